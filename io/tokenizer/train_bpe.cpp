#include "io/tokenizer/train_bpe.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/check.h"
#include "core/text.h"
#include "io/tokenizer/byte_chars.h"
#include "io/tokenizer/pair_merger.h"
#include "io/tokenizer/scanners.h"
#include "io/tokenizer/tokenizer.h"
#include "io/tokenizer/word_counts.h"

namespace shoestring {

namespace {

using nlohmann::ordered_json;

struct Vocabulary {
  std::vector<std::string> tokens;  // by id, in stand-in characters
  std::unordered_map<std::string, int32_t> ids;
  std::array<int32_t, 256> byte_ids{};

  int32_t add(const std::string& token) {
    const auto [at, is_new] = ids.emplace(token, static_cast<int32_t>(tokens.size()));
    if (is_new) {
      tokens.push_back(token);
    }
    return at->second;
  }
};

// Special tokens first, then the bytes in the order of their stand-in characters.
Vocabulary initial_vocabulary(const BpeTrainOptions& options) {
  Vocabulary vocabulary;
  for (const std::string& token : options.special_tokens) {
    vocabulary.add(token);
  }
  std::array<std::pair<std::string, int>, 256> alphabet;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    // UTF-8 sorts as code points do.
    alphabet[static_cast<size_t>(byte)] = {bytes_to_chars({&c, 1}), byte};
  }
  std::sort(alphabet.begin(), alphabet.end());
  for (const auto& [token, byte] : alphabet) {
    vocabulary.byte_ids[static_cast<size_t>(byte)] = vocabulary.add(token);
  }
  return vocabulary;
}

PairMerger make_merger(const WordCounts& counted, const Vocabulary& vocabulary) {
  std::vector<std::vector<int32_t>> words;
  std::vector<int64_t> counts;
  words.reserve(counted.size());
  counts.reserve(counted.size());
  for (const auto& [word, count] : counted) {
    std::vector<int32_t>& symbols = words.emplace_back();
    symbols.reserve(word.size());
    for (const char c : word) {
      symbols.push_back(vocabulary.byte_ids[static_cast<unsigned char>(c)]);
    }
    counts.push_back(count);
  }
  return PairMerger(std::move(words), std::move(counts));
}

// One that is merged a second time (its words appeared later) takes its later place.
std::vector<IdPair> without_repeats(const std::vector<IdPair>& merges) {
  absl::flat_hash_map<IdPair, size_t> last;
  for (size_t i = 0; i < merges.size(); ++i) {
    last[merges[i]] = i;
  }
  std::vector<IdPair> out;
  for (size_t i = 0; i < merges.size(); ++i) {
    if (last[merges[i]] == i) {
      out.push_back(merges[i]);
    }
  }
  return out;
}

ordered_json byte_level(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

ordered_json pre_tokenizer(const std::string& pattern) {
  if (pattern == "gpt2") {
    return byte_level(false, true);
  }
  const ordered_json split = {{"type", "Split"},
                              {"pattern", {{"Regex", std::string(patterns::llama3)}}},
                              {"behavior", "Isolated"},
                              {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", {split, byte_level(false, false)}}};
}

std::string to_json(const BpeTrainOptions& options, const Vocabulary& vocabulary,
                    const std::vector<IdPair>& merges) {
  ordered_json added = ordered_json::array();
  for (size_t i = 0; i < options.special_tokens.size(); ++i) {
    added.push_back({{"id", i},
                     {"content", options.special_tokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  ordered_json ids = ordered_json::object();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    ids.get_ref<ordered_json::object_t&>().emplace_back(vocabulary.tokens[id], id);
  }
  ordered_json pairs = ordered_json::array();
  const auto token = [&](int32_t id) { return vocabulary.tokens[static_cast<size_t>(id)]; };
  for (const IdPair& merge : without_repeats(merges)) {
    pairs.push_back(ordered_json::array({token(merge.left), token(merge.right)}));
  }
  const ordered_json model = {{"type", "BPE"},
                              {"dropout", nullptr},
                              {"unk_token", nullptr},
                              {"continuing_subword_prefix", nullptr},
                              {"end_of_word_suffix", nullptr},
                              {"fuse_unk", false},
                              {"byte_fallback", false},
                              {"ignore_merges", false},
                              {"vocab", std::move(ids)},
                              {"merges", std::move(pairs)}};
  const ordered_json root = {
      {"version", "1.0"},          {"truncation", nullptr},
      {"padding", nullptr},        {"added_tokens", std::move(added)},
      {"normalizer", nullptr},     {"pre_tokenizer", pre_tokenizer(options.pattern)},
      {"post_processor", nullptr}, {"decoder", byte_level(true, true)},
      {"model", std::move(model)}};
  return root.dump(1, ' ') + "\n";
}

SplitStep step_of(const BpeTrainOptions& options) {
  if (options.pattern != "gpt2" && options.pattern != "llama3") {
    fail_usage(cat("the pattern '", options.pattern, "' is unknown; there are gpt2 and llama3"));
  }
  const size_t least = 256 + options.special_tokens.size();
  if (options.vocabulary_size < 0 || static_cast<size_t>(options.vocabulary_size) < least) {
    fail_usage(cat("a vocabulary of ", options.vocabulary_size, " tokens is too small: the bytes ",
                   "and special tokens alone are ", least));
  }
  for (size_t i = 0; i < options.special_tokens.size(); ++i) {
    const auto& all = options.special_tokens;
    const bool twice = std::count(all.begin(), all.end(), all[i]) > 1;
    if (twice || chars_to_bytes(all[i]).value_or("??").size() < 2) {
      fail_usage(cat("the special token '", all[i], "' ",
                     twice ? "is given twice" : "needs at least two printable ASCII characters"));
    }
  }
  return SplitStep::from_pattern(options.pattern == "gpt2" ? patterns::gpt2 : patterns::llama3);
}

}  // namespace

std::string train_bpe(const DocumentSource& read_documents, const BpeTrainOptions& options,
                      const std::function<void(const BpeTrainProgress&)>& progress) {
  BpeTrainProgress state;
  const auto report = [&] {
    if (progress) {
      progress(state);
    }
  };
  WordCounter counter(step_of(options), options.threads);
  const auto note_reading = [&] {
    state.documents = counter.documents();
    state.bytes = counter.bytes();
    report();
  };
  read_documents([&](std::string document) {
    if (counter.add(std::move(document))) {
      note_reading();
    }
  });
  const WordCounts counted = counter.finish();
  note_reading();
  if (counted.empty()) {
    fail_data("there is no text to train a tokenizer on");
  }
  Vocabulary vocabulary = initial_vocabulary(options);
  PairMerger merger = make_merger(counted, vocabulary);
  std::vector<IdPair> merges;
  while (static_cast<int32_t>(vocabulary.tokens.size()) < options.vocabulary_size) {
    const auto pair = merger.best(options.min_frequency);
    if (!pair) {
      break;
    }
    const std::string left = vocabulary.tokens[static_cast<size_t>(pair->left)];
    merger.merge(*pair, vocabulary.add(left + vocabulary.tokens[static_cast<size_t>(pair->right)]));
    merges.push_back(*pair);
    state.tokens = static_cast<int32_t>(vocabulary.tokens.size());
    if (merges.size() % 256 == 0) {
      report();
    }
  }
  report();
  return to_json(options, vocabulary, merges);
}

}  // namespace shoestring
