#include "io/tokenizer/word_counts.h"

#include <algorithm>

namespace shoestring {

namespace {

constexpr size_t batch_bytes = size_t{8} << 20;

}  // namespace

WordCounter::WordCounter(SplitStep step, int threads)
    : step_(std::move(step)), workers_(static_cast<size_t>(std::max(threads, 1))) {}

bool WordCounter::add(std::string document) {
  ++documents_;
  bytes_ += static_cast<int64_t>(document.size());
  following_bytes_ += document.size();
  following_.push_back(std::move(document));
  if (following_bytes_ < batch_bytes) {
    return false;
  }
  start_batch();
  return true;
}

void WordCounter::start_batch() {
  wait();
  batch_.swap(following_);
  following_.clear();
  following_bytes_ = 0;
  for (size_t number = 0; number < workers_.size(); ++number) {
    team_.emplace_back([this, number] {
      Worker& worker = workers_[number];
      try {
        for (size_t i = number; i < batch_.size(); i += workers_.size()) {
          count(worker, batch_[i]);
        }
      } catch (...) {
        worker.error = std::current_exception();
      }
    });
  }
}

void WordCounter::wait() {
  team_.clear();
  for (const Worker& worker : workers_) {
    if (worker.error) {
      std::rethrow_exception(worker.error);
    }
  }
}

void WordCounter::count(Worker& worker, const std::string& document) const {
  const char* const begin = document.data();
  const char* const end = begin + document.size();
  std::string word;
  for (const char* at = begin; at < end;) {
    const char* const next = step_.next(begin, at, end, worker.scratch);
    word.assign(at, next);
    ++worker.counts[word];
    at = next;
  }
}

WordCounts WordCounter::finish() {
  start_batch();
  wait();
  auto& all = workers_[0].counts;
  for (size_t number = 1; number < workers_.size(); ++number) {
    for (const auto& [word, count] : workers_[number].counts) {
      all[word] += count;
    }
    workers_[number].counts.clear();
  }
  WordCounts out(all.begin(), all.end());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace shoestring
