#pragma once
// Trains a byte-level BPE tokenizer and writes it as a complete tokenizer.json. The result equals
// that of the reference library's BpeTrainer on the same documents, ties included: the pair with
// the highest count is merged, of equals the one with the smaller (left id, right id).

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

struct BpeTrainOptions {
  // With the special tokens and the 256 bytes; at least 256 + special tokens. Smaller results occur
  // where the text runs out of pairs.
  int32_t vocabulary_size = 8192;
  std::string pattern = "gpt2";                                 // or "llama3"
  std::vector<std::string> special_tokens = {"<|endoftext|>"};  // ids 0, 1, ...
  int64_t min_frequency = 0;  // pairs that occur less often are not merged
  int threads = 2;            // for counting words
};

struct BpeTrainProgress {
  int64_t documents = 0;
  int64_t bytes = 0;   // of text read so far
  int32_t tokens = 0;  // made so far; 0 while words are counted
};

// Hands every document of the corpus to `add`.
using DocumentSource = std::function<void(const std::function<void(std::string)>& add)>;

// Returns the text of tokenizer.json. Documents are held one batch of a few MB at a time; memory
// grows with the number of distinct words. Calls `progress` now and then from the calling thread.
// Throws fail_usage for impossible options, fail_data if the source holds no text.
std::string train_bpe(const DocumentSource& read_documents, const BpeTrainOptions& options,
                      const std::function<void(const BpeTrainProgress&)>& progress = nullptr);

}  // namespace shoestring
