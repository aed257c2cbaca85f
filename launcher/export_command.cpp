#include "launcher/export_command.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <utility>

#include "core/check.h"
#include "core/log.h"
#include "core/model/parameters.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "io/hugging_face/config_keys.h"
#include "io/hugging_face/family.h"
#include "io/hugging_face/fp8_choice.h"
#include "io/hugging_face/save.h"
#include "io/safetensors_shards.h"
#include "launcher/earlier_output.h"
#include "launcher/export_tokenizer.h"
#include "launcher/model_card.h"
#include "launcher/new_folder.h"
#include "launcher/parameter_counts.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t file_limit = uint64_t{1} << 28;

// The family's classes know no selection bias, so it must not have become one.
void require_no_bias(const ModelSource& source, const ModelConfig& m) {
  std::vector<float> bias(static_cast<size_t>(m.moe.experts));
  for (int64_t block = 0; block < m.layers; ++block) {
    const std::string name = selection_bias_name(m, block);
    if (!m.moe.sparse(block) || !source.has(name)) continue;
    source.read(name, 0, m.moe.experts, Dtype::f32, reinterpret_cast<std::byte*>(bias.data()));
    if (std::any_of(bias.begin(), bias.end(), [](float b) { return b != 0; })) {
      fail_usage(cat("no Hugging Face family computes this model: ", name,
                     " is not zero, and only DeepSeek-V3 has a selection bias"));
    }
  }
}

void choose_fp8(const ModelSource& source, HuggingFaceConfig& config) {
  Fp8Origin origin = source.fp8_origin();
  config.blocks = origin.blocks.on() ? origin.blocks : Fp8Blocks{.rows = 128, .columns = 128};
  config.coded = std::move(origin.parameters);
  const Fp8Choice choice(config);
  if (choice.fp8() > 0) return;
  fail_usage(cat("--fp8 would write no FP8: no matrix of this model, with those that readers fuse ",
                 "it with, has sides that are multiples of ", config.blocks.rows, " x ",
                 config.blocks.columns, ":", listed(choice.plain_kinds()),
                 "\nExport it without --fp8."));
}

void tell_of_fp8(const HuggingFaceConfig& config) {
  if (!config.blocks.on()) return;
  const Fp8Choice choice(config);
  if (config.coded.empty() && choice.plain() > 0) {
    log_warning(cat(choice.plain(), " of ", choice.fp8() + choice.plain(), " matrices stay ",
                    name_of(config.dtype), ", because their sides, or those of a matrix that ",
                    "readers fuse with them, are no multiples of ", config.blocks.rows, " x ",
                    config.blocks.columns, ", and transformers misreads blocks that are cut:",
                    listed(choice.plain_kinds())));
  }
  if (!choice.cut_kinds().empty()) {
    log_warning(cat("blocks that are cut at the edge stay as they were read; transformers without ",
                    "a GPU refuses or misreads such matrices:", listed(choice.cut_kinds())));
  }
}

HuggingFaceConfig config_of(const ModelSource& source, const ExportOptions& options) {
  const std::string dtype = options.dtype.empty() ? source.config().train.dtype : options.dtype;
  if (dtype != "bf16" && dtype != "f32") {
    fail_usage(cat("--dtype is ", dtype, " but must be bf16 or f32"));
  }
  HuggingFaceConfig config{.model = source.model()};
  if (options.no_mtp) config.model.mtp.depth = 0;
  config.family = family_of(config.model);
  if (source.folder()) {
    config.begin_ids = source.folder()->config().begin_ids;
    config.end_ids = source.folder()->config().end_ids;
  }
  config.dtype = dtype == "bf16" ? Dtype::bf16 : Dtype::f32;
  if (options.fp8) choose_fp8(source, config);
  if (config.model.moe.on() && !has_selection_bias(config.family)) {
    require_no_bias(source, config.model);
  }
  return config;
}

// What the run says about itself.
std::string summary_of(const ModelSource& source) {
  const std::string path = source.home() + "/summary.json";
  return fs::is_regular_file(path) ? read_small_file(path, file_limit) : "";
}

void put_ids(const TokenIds& ids, HuggingFaceConfig& config) {
  if (!ids.begin.empty()) config.begin_ids = ids.begin;
  if (!ids.end.empty()) config.end_ids = ids.end;
}

std::string title_of(const ModelSource& source, const std::string& out) {
  const std::string& name = source.config().run.name;
  return name.empty() ? fs::path(out).lexically_normal().filename().string() : name;
}

}  // namespace

int64_t parse_shard_size(const std::string& text) {
  constexpr std::array<std::pair<std::string_view, double>, 7> units = {{{"", 1},
                                                                         {"KB", 1e3},
                                                                         {"MB", 1e6},
                                                                         {"GB", 1e9},
                                                                         {"KiB", 1024},
                                                                         {"MiB", 1048576},
                                                                         {"GiB", 1073741824}}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  for (const auto& [name, bytes] : units) {
    const double size = number * bytes;
    if (error == std::errc() && unit == name && size >= 1 && size < 1e18) {
      return static_cast<int64_t>(size);
    }
  }
  fail_usage(cat("--shard-size is \"", text, "\" but must be a size such as 5GB, 500MB or 2GiB"));
}

std::string prediction_hint(const ModelConfig& m) {
  // The class ignores those after layer 60, and transformers 5 drafts with them (use_mtp).
  constexpr int64_t layers_of_v3 = 61;
  if (m.mtp.depth == 0 || m.layers == layers_of_v3) return "";
  return cat("transformers knows prediction modules of models of 61 layers only: it leaves the ",
             "tensors of model.layers.", m.layers,
             m.mtp.depth > 1 ? cat(" to ", m.layers + m.mtp.depth - 1) : "",
             " out and reports them as unexpected keys; --no-mtp exports the model without");
}

void run_export(const ExportOptions& options) {
  if (options.format != "hf") {
    fail_usage(cat("--format is \"", options.format, "\"; the formats are: hf"));
  }
  const int64_t shard_bytes = parse_shard_size(options.shard_size);
  ModelSource source(options.model);
  source.prefer_average();
  HuggingFaceExport model{.config = config_of(source, options),
                          .generation = generation_text(source.home()),
                          .shard_bytes = shard_bytes};
  model.read = [&source](const std::string& name, int64_t begin, int64_t end, float* out) {
    source.read(name, begin, end, Dtype::f32, reinterpret_cast<std::byte*>(out));
  };
  NewFolder out(options.out,
                {.force = options.force, .needed = {source.path()}, .why_not = why_no_export});
  const std::string tokenizer =
      options.tokenizer.empty() ? source.tokenizer_path() : options.tokenizer;
  if (tokenizer.empty()) {
    log_warning(cat(options.out, " has no tokenizer: none is beside the model; name one with ",
                    "--tokenizer PATH"));
    put_ids(generation_ids(source.home()), model.config);
  } else {
    put_ids(export_tokenizer({.path = tokenizer,
                              .folder = out.temporary(),
                              .positions = model.config.model.max_positions,
                              .trained_hash = source.trained_hash(),
                              .own = options.tokenizer.empty()}),
            model.config);
  }
  save_hugging_face(model, out.temporary());
  const ModelCard card{.name = title_of(source, options.out),
                       .exported = model.config,
                       .summary = summary_of(source)};
  write_text_file(out.temporary() + "/README.md", model_card_text(source, card));
  out.commit();
  log_info(cat(options.out, ": ", model_type_of(model.config.family), " of ",
               text_of_parameters(model.config.model)));
  tell_of_fp8(model.config);
  if (const std::string hint = prediction_hint(model.config.model); !hint.empty()) log_info(hint);
}

}  // namespace shoestring
