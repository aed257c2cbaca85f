#pragma once
// `shoestring data train-tokenizer`: a byte-level BPE tokenizer from text files.

#include <functional>
#include <string>
#include <vector>

namespace shoestring {

struct TrainTokenizerOptions {
  std::vector<std::string> inputs;  // .txt, .jsonl, plain or compressed, folders, - (text_source.h)
  std::string out;                  // a .json file, or a folder to hold tokenizer.json
  int vocabulary_size = 8192;
  std::string pattern = "gpt2";    // or llama3
  std::string field = "text";      // of JSON lines
  std::string bad_utf8 = "error";  // error | replace | keep
  int64_t min_frequency = 0;
  int threads = 0;  // 0: one a core
  bool overwrite = false;
};

// Writes the tokenizer (a folder also gets tokenizer_config.json, which names the special tokens)
// and returns what to tell the user. Files that are there are a usage error unless `overwrite`.
// `progress` gets lines to show in place, without line ends.
std::string train_tokenizer(const TrainTokenizerOptions& options,
                            const std::function<void(const std::string&)>& progress);

}  // namespace shoestring
