#pragma once
// How often each pre-tokenizer piece occurs in a corpus: all that a BPE trainer needs to know of
// it.

#include <cstdint>
#include <exception>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "io/tokenizer/scanners.h"

namespace shoestring {

using WordCounts = std::vector<std::pair<std::string, int64_t>>;  // ascending words

// Counts the pieces of documents by one split step. Documents are collected into batches of a few
// MB; while threads count one batch, the caller collects the next.
class WordCounter {
 public:
  WordCounter(SplitStep step, int threads);

  // Returns true when a batch was handed to the threads: time to report progress. Throws what a
  // thread threw.
  bool add(std::string document);
  WordCounts finish();

  int64_t documents() const { return documents_; }
  int64_t bytes() const { return bytes_; }

 private:
  struct Worker {
    absl::flat_hash_map<std::string, int64_t> counts;
    Regex::Scratch scratch;
    std::exception_ptr error;
  };

  void start_batch();
  void wait();
  void count(Worker& worker, const std::string& document) const;

  SplitStep step_;
  std::vector<Worker> workers_;
  std::vector<std::string> batch_, following_;
  size_t following_bytes_ = 0;
  int64_t documents_ = 0, bytes_ = 0;
  std::vector<std::jthread> team_;  // last: joined before what it uses goes away
};

}  // namespace shoestring
