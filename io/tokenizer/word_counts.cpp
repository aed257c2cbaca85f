#include "io/tokenizer/word_counts.h"

#include <algorithm>
#include <exception>
#include <thread>

#include "absl/container/flat_hash_map.h"

namespace shoestring {

namespace {

constexpr size_t batch_bytes = size_t{8} << 20;

using Counts = absl::flat_hash_map<std::string, int64_t>;

void count_document(const SplitStep& step, const std::string& text, Regex::Scratch& scratch,
                    Counts& counts) {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  std::string word;
  for (const char* at = begin; at < end;) {
    const char* const next = step.next(begin, at, end, scratch);
    word.assign(at, next);
    ++counts[word];
    at = next;
  }
}

// Reads documents until the batch is full; false if there were none.
bool read_batch(const std::function<bool(std::string&)>& next, std::vector<std::string>& batch,
                size_t& bytes) {
  batch.clear();
  bytes = 0;
  std::string document;
  while (bytes < batch_bytes && next(document)) {
    bytes += document.size();
    batch.push_back(std::move(document));
    document.clear();
  }
  return !batch.empty();
}

}  // namespace

WordCounts count_words(const SplitStep& step, const std::function<bool(std::string&)>& next,
                       int threads, const std::function<void(int64_t, int64_t)>& read) {
  const auto workers = static_cast<size_t>(std::max(threads, 1));
  std::vector<Counts> counts(workers);
  std::vector<Regex::Scratch> scratch(workers);
  std::vector<std::exception_ptr> errors(workers);
  std::vector<std::string> batch, following;
  int64_t documents = 0, bytes = 0;
  size_t size = 0;
  bool more = read_batch(next, batch, size);
  while (more) {
    std::vector<std::jthread> team;
    for (size_t worker = 0; worker < workers; ++worker) {
      team.emplace_back([&, worker] {
        try {
          for (size_t i = worker; i < batch.size(); i += workers) {
            count_document(step, batch[i], scratch[worker], counts[worker]);
          }
        } catch (...) {
          errors[worker] = std::current_exception();
        }
      });
    }
    documents += static_cast<int64_t>(batch.size());
    bytes += static_cast<int64_t>(size);
    more = read_batch(next, following, size);  // while the team counts
    team.clear();
    for (const std::exception_ptr& error : errors) {
      if (error) {
        std::rethrow_exception(error);
      }
    }
    batch.swap(following);
    read(documents, bytes);
  }
  for (size_t worker = 1; worker < workers; ++worker) {
    for (const auto& [word, count] : counts[worker]) {
      counts[0][word] += count;
    }
    counts[worker].clear();
  }
  WordCounts out(counts[0].begin(), counts[0].end());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace shoestring
