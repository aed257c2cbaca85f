#include "launcher/train_tokenizer_command.h"

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/counted.h"
#include "core/parallel_for.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "io/text_source.h"
#include "io/tokenizer/tokenizer.h"
#include "io/tokenizer/train_bpe.h"
#include "launcher/data_pack_command.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr const char* end_of_text = "<|endoftext|>";

std::string config_text() {
  const nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                         {"bos_token", end_of_text},
                                         {"eos_token", end_of_text},
                                         {"clean_up_tokenization_spaces", false},
                                         {"model_max_length", 1000000000}};
  return config.dump(1, ' ') + "\n";
}

struct Places {
  fs::path tokenizer, config;  // config: empty where none is written
};

// Before the work is done, so that nobody waits for a refusal.
Places places_of(const TrainTokenizerOptions& options) {
  const fs::path out = options.out;
  Places places{.tokenizer = out, .config = {}};
  if (out.extension() != ".json") {
    places = {.tokenizer = out / "tokenizer.json", .config = out / "tokenizer_config.json"};
  }
  for (const fs::path& path : {places.tokenizer, places.config}) {
    std::error_code error;
    if (path.empty() || !fs::exists(path, error)) continue;
    if (!fs::is_regular_file(path, error)) {
      fail_usage(cat(path.string(), " is there and is no regular file; choose another --out"));
    }
    if (!options.overwrite) {
      fail_usage(cat(path.string(), " exists; choose another --out or add --overwrite"));
    }
  }
  return places;
}

void write_files(const Places& places, const std::string& json) {
  const fs::path folder = places.tokenizer.parent_path();
  std::error_code error;
  if (!folder.empty()) fs::create_directories(folder, error);
  if (error) fail_data(cat("cannot make the folder ", folder.string(), ": ", error.message()));
  write_file_durably(places.tokenizer, json);
  if (!places.config.empty()) write_file_durably(places.config, config_text());
}

std::string line_of(const BpeTrainProgress& now, int vocabulary_size) {
  if (now.tokens == 0) {
    return absl::StrFormat("reading: %d documents, %.1f MB", now.documents,
                           static_cast<double>(now.bytes) / 1e6);
  }
  return absl::StrFormat("merging: %d of %d tokens", now.tokens, vocabulary_size);
}

// Returns the number of broken UTF-8 sequences that were replaced.
int64_t read_all(const std::vector<TextInput>& inputs, const TextOptions& options,
                 const std::function<void(std::string)>& add) {
  int64_t replaced = 0;
  for (const TextInput& input : inputs) {
    const auto sink = [&](TextPiece&& piece) { add(std::move(piece.text)); };
    replaced += read_documents(input, options, sink).replaced;
  }
  return replaced;
}

}  // namespace

std::string train_tokenizer(const TrainTokenizerOptions& options,
                            const std::function<void(const std::string&)>& progress) {
  const auto start = std::chrono::steady_clock::now();
  TextOptions text;
  text.field = options.field;
  text.field_hint = " (choose with --field)";
  text.bad_utf8 = parse_bad_utf8(options.bad_utf8);
  text.bad_utf8_hint = ", or use --bad-utf8 replace (or keep)";
  const Places places = places_of(options);
  const auto inputs = list_inputs(options.inputs, text.format, nullptr);
  BpeTrainProgress last;
  int64_t replaced = 0;
  const std::string json =
      train_bpe([&](const auto& add) { replaced = read_all(inputs, text, add); },
                {.vocabulary_size = options.vocabulary_size,
                 .pattern = options.pattern,
                 .special_tokens = {end_of_text},
                 .min_frequency = options.min_frequency,
                 .threads = options.threads > 0 ? options.threads : hardware_threads()},
                [&](const BpeTrainProgress& now) {
                  last = now;
                  progress(line_of(now, options.vocabulary_size));
                });
  const Tokenizer trained = Tokenizer::from_json(json, options.out);
  write_files(places, json);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::string told =
      absl::StrFormat("%s: %d tokens from %s (%.1f MB) in %.1f s\n", places.tokenizer.string(),
                      trained.vocabulary_size(), counted(last.documents, "document"),
                      static_cast<double>(last.bytes) / 1e6, seconds.count());
  if (trained.vocabulary_size() < options.vocabulary_size) {
    append(told, "the text has no more pairs to merge: fewer than the ", options.vocabulary_size,
           " tokens asked for\n");
  }
  if (replaced > 0) {
    append(told, "replaced: ", counted(replaced, "broken UTF-8 sequence"), "\n");
  }
  return told;
}

}  // namespace shoestring
