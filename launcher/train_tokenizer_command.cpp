#include "launcher/train_tokenizer_command.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/counted.h"
#include "core/parallel_for.h"
#include "core/text.h"
#include "io/text_source.h"
#include "io/tokenizer/tokenizer.h"
#include "io/tokenizer/train_bpe.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr const char* end_of_text = "<|endoftext|>";

// To a temporary name first: a full disk leaves no half tokenizer.
void write_file(const fs::path& path, const std::string& text) {
  const fs::path temporary = path.string() + ".partial";
  std::ofstream file(temporary, std::ios::binary);
  file << text;
  file.close();
  std::error_code error;
  if (file) {
    fs::rename(temporary, path, error);
  }
  if (!file || error) {
    fs::remove(temporary, error);
    fail_data(cat("cannot write ", path.string(), " (is the disk full, or the folder missing?)"));
  }
}

std::string config_text() {
  const nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                         {"bos_token", end_of_text},
                                         {"eos_token", end_of_text},
                                         {"clean_up_tokenization_spaces", false},
                                         {"model_max_length", 1000000000}};
  return config.dump(1, ' ') + "\n";
}

std::string line_of(const BpeTrainProgress& now, int vocabulary_size) {
  if (now.tokens == 0) {
    return absl::StrFormat("reading: %d documents, %.1f MB", now.documents,
                           static_cast<double>(now.bytes) / 1e6);
  }
  return absl::StrFormat("merging: %d of %d tokens", now.tokens, vocabulary_size);
}

void read_all(const std::vector<TextInput>& inputs, const TextOptions& options,
              const std::function<void(std::string)>& add) {
  for (const TextInput& input : inputs) {
    read_documents(input, options, [&](TextPiece&& piece) { add(std::move(piece.text)); });
  }
}

}  // namespace

std::string train_tokenizer(const TrainTokenizerOptions& options,
                            const std::function<void(const std::string&)>& progress) {
  const auto start = std::chrono::steady_clock::now();
  TextOptions text;
  text.field = options.field;
  text.field_hint = " (choose with --field)";
  const auto inputs = list_inputs(options.inputs, text.format, nullptr);
  const bool to_folder = fs::path(options.out).extension() != ".json";
  BpeTrainProgress last;
  const std::string json =
      train_bpe([&](const std::function<void(std::string)>& add) { read_all(inputs, text, add); },
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
  const fs::path out = options.out;
  const fs::path file = to_folder ? out / "tokenizer.json" : out;
  std::error_code error;
  if (file.has_parent_path()) {
    fs::create_directories(file.parent_path(), error);  // if it fails, so does write_file
  }
  write_file(file, json);
  if (to_folder) {
    write_file(file.parent_path() / "tokenizer_config.json", config_text());
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::string told = absl::StrFormat("%s: %d tokens from %s (%.1f MB) in %.1f s\n", file.string(),
                                     trained.vocabulary_size(), counted(last.documents, "document"),
                                     static_cast<double>(last.bytes) / 1e6, seconds.count());
  if (trained.vocabulary_size() < options.vocabulary_size) {
    append(told, "the text has no more pairs to merge: fewer than the ", options.vocabulary_size,
           " tokens asked for\n");
  }
  return told;
}

}  // namespace shoestring
