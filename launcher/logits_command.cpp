#include "launcher/logits_command.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <numeric>
#include <vector>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "io/safetensors.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

constexpr uint64_t ids_limit = uint64_t{1} << 30;

struct IdTable {
  std::vector<std::vector<int32_t>> rows;
  int64_t length = 0;
};

// A list of equally long lists of ids; data errors name the file, the row and the position in it.
IdTable read_ids(const std::string& path, int64_t vocabulary) {
  const auto json = nlohmann::json::parse(read_small_file(path, ids_limit), nullptr, false);
  if (!json.is_array() || json.empty() || !json[0].is_array() || json[0].empty()) {
    fail_data(
        cat(path, " must be a JSON list of lists of ids, for example [[1, 2, 3], [4, 5, 6]]"));
  }
  IdTable table{.rows = {}, .length = static_cast<int64_t>(json[0].size())};
  for (const auto& row : json) {
    const size_t number = table.rows.size();
    if (!row.is_array() || static_cast<int64_t>(row.size()) != table.length) {
      fail_data(cat(path, ": row ", number, " is not a list of ", counted(table.length, "id"),
                    " like the first one"));
    }
    std::vector<int32_t>& ids = table.rows.emplace_back();
    for (const auto& id : row) {
      const bool whole = id.is_number_integer();
      const int64_t value = whole ? id.get<int64_t>() : -1;
      if (value < 0 || value >= vocabulary) {
        fail_data(cat(path, ": row ", number, ", position ", ids.size(), ": ", id.dump(),
                      " is not an id of this model (0 to ", vocabulary - 1, ")"));
      }
      ids.push_back(static_cast<int32_t>(value));
    }
  }
  return table;
}

void write_rows(SafetensorsWriter& writer, const Tensor& logits, int64_t first_row) {
  const int64_t begin = first_row * logits.columns();
  if (logits.dtype() == Dtype::f32) {
    return writer.write("logits", begin, logits.elements(), logits.raw());
  }
  const auto values = logits.span<double>();  // the oracle's
  const std::vector<float> narrow(values.begin(), values.end());
  writer.write("logits", begin, logits.elements(),
               reinterpret_cast<const std::byte*>(narrow.data()));
}

// What an earlier call wrote can be made again; anything else may be somebody's only copy.
bool is_replaceable(const std::string& path) {
  std::error_code error;
  if (std::filesystem::file_size(path, error) == 0 && !error) return true;
  try {
    const SafetensorsFile file(path);
    const auto& tensors = file.header().tensors;
    return tensors.size() == 1 && tensors[0].name == "logits" && tensors[0].shape.size() == 3;
  } catch (const Error&) {  // no safetensors file
    return false;
  }
}

void check_out(const LogitsOptions& options) {
  std::error_code error;
  if (!std::filesystem::exists(options.out, error)) return;
  if (!std::filesystem::is_regular_file(options.out)) {
    fail_usage(cat("--out ", options.out, " is there and is no regular file; name another"));
  }
  if (options.overwrite || is_replaceable(options.out)) return;
  fail_usage(
      cat(options.out, " exists and holds no logits; choose another --out or add ", "--overwrite"));
}

// One sequence forward; its logits a chunk of rows at a time.
void run_sequence(LoadedModel& loaded, const std::vector<int32_t>& ids, int64_t sequence,
                  int64_t chunk_bytes, SafetensorsWriter& writer) {
  const auto length = static_cast<int64_t>(ids.size());
  MicroBatch micro{.sequences = 1,
                   .length = length,
                   .tokens = ids,
                   .labels = std::vector<int32_t>(ids.size(), -1),
                   .positions = std::vector<int32_t>(ids.size()),
                   .first_key = std::vector<int32_t>(ids.size(), 0)};
  std::iota(micro.positions.begin(), micro.positions.end(), 0);
  const BatchTensors tensors = to_device(loaded.device, micro);
  Tape tape(loaded.stream, *loaded.source, Tape::Mode::inference);
  LayerContext context{.tape = tape, .batch = tensors};
  const Transformer& model = *loaded.model;
  const Residual x = model.run_blocks(context, model.embed(context));
  const int64_t vocabulary = model.config().vocabulary;
  const int64_t chunk = std::clamp<int64_t>(chunk_bytes / (4 * vocabulary), 1, length);
  for (int64_t first = 0; first < length; first += chunk) {
    std::vector<int64_t> rows(static_cast<size_t>(std::min(chunk, length - first)));
    std::iota(rows.begin(), rows.end(), first);
    write_rows(writer, model.logits(context, x, rows), sequence * length + first);
  }
}

}  // namespace

void run_logits(const LogitsOptions& options) {
  check_out(options);
  LoadedModel loaded(options.model);
  const ModelConfig& model = loaded.model->config();
  const IdTable ids = read_ids(options.ids, model.vocabulary);
  if (ids.length > model.max_positions) {
    fail_usage(cat(options.ids, " has sequences of ", ids.length, " ids, but the model has ",
                   model.max_positions, " positions"));
  }
  const auto batch = static_cast<int64_t>(ids.rows.size());
  SafetensorsWriter writer(
      options.out,
      {{.name = "logits", .dtype = Dtype::f32, .shape = {batch, ids.length, model.vocabulary}}});
  for (int64_t b = 0; b < batch; ++b) {
    run_sequence(loaded, ids.rows[static_cast<size_t>(b)], b, options.chunk_bytes, writer);
  }
  writer.finish();
}

}  // namespace shoestring
