#include "launcher/import_command.h"

#include <array>
#include <filesystem>

#include "core/check.h"
#include "core/log.h"
#include "core/model/parameters.h"
#include "core/text.h"
#include "io/checkpoint_save.h"
#include "io/durable_file.h"
#include "io/hugging_face/config_text.h"
#include "io/hugging_face/save.h"
#include "launcher/config.h"
#include "launcher/earlier_output.h"
#include "launcher/new_folder.h"
#include "launcher/parameter_counts.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t file_limit = uint64_t{1} << 28;

TensorPiece piece_of(const ModelSource& source, const std::string& name, const Shape& shape) {
  const Dtype dtype = source.stored_type(name);
  return {.name = cat("model/", name),
          .shape = shape,
          .begin = 0,
          .end = shape.elements(),
          .dtype = dtype,
          .read = [&source, name, dtype](int64_t first, int64_t last, std::byte* out) {
            source.read(name, first, last, dtype, out);
          }};
}

std::string facts_of(const ModelSource& source) {
  nlohmann::json facts = {{"step", 0},
                          {"tokenizer_hash", source.trained_hash()},
                          {"imported_from", fs::absolute(source.path()).string()}};
  // So that an export with FP8 can give the same codes back.
  if (const Fp8Origin origin = source.fp8_origin(); origin.blocks.on()) {
    facts["fp8_blocks"] = {origin.blocks.rows, origin.blocks.columns};
    facts["fp8_codes"] = origin.parameters;
  }
  return facts.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void save_imported(const ModelSource& source, const std::vector<ParamInfo>& parameters,
                   const RunConfig& config, const std::string& directory) {
  CheckpointContent content{
      .step = 0, .config = dump_config(config), .state = facts_of(source), .pieces = {}};
  for (const ParamInfo& p : parameters) {
    content.pieces.push_back(piece_of(source, p.name, p.shape));
  }
  save_checkpoint(directory, std::move(content));
}

std::span<const char* const> tokenizer_file_names() {
  static constexpr std::array<const char*, 8> names = {"tokenizer.json",
                                                       "tokenizer_config.json",
                                                       "special_tokens_map.json",
                                                       "tokenizer.model",
                                                       "vocab.json",
                                                       "merges.txt",
                                                       "chat_template.jinja",
                                                       "generation_config.json"};
  return names;
}

void copy_tokenizer_files(const std::string& from, const std::string& to) {
  for (const char* name : tokenizer_file_names()) {
    const std::string path = cat(from, "/", name);
    if (!fs::is_regular_file(path)) continue;
    write_text_file(cat(to, "/", name), read_small_file(path, file_limit));
  }
}

void run_import(const ImportOptions& options) {
  if (!HuggingFaceFolder::is_at(options.folder)) {
    fail_data(cat(options.folder, " is no Hugging Face folder: it has no config.json"));
  }
  NewFolder out(options.out,
                {.force = options.force, .needed = {options.folder}, .why_not = why_no_import});
  const ModelSource source(options.folder);
  RunConfig config = source.config();
  config.run.directory = options.out;
  config.run.name = cat("import of ", fs::absolute(options.folder).filename().string());
  config.tokenizer = config.tokenizer.empty() ? "" : cat(options.out, "/tokenizer.json");
  const Chunk chunk = whole_model(config.model);
  std::vector<ParamInfo> parameters = parameters_of(config.model, chunk);
  for (const auto& [name, shape] : states_of(config.model, chunk)) {
    parameters.push_back({.name = name, .shape = shape});
  }
  copy_tokenizer_files(options.folder, out.temporary());
  if (!fs::exists(out.temporary() + "/generation_config.json")) {
    write_text_file(out.temporary() + "/generation_config.json",
                    generation_config_text(source.folder()->config()));
  }
  write_text_file(out.temporary() + "/config.toml", dump_config(config, true));
  save_imported(source, parameters, config, out.temporary() + "/checkpoints");
  out.commit();
  log_info(cat(options.out, ": ", model_type_of(source.folder()->config().family), " of ",
               text_of_parameters(config.model)));
}

}  // namespace shoestring
