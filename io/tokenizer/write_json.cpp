#include "io/tokenizer/write_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/text.h"
#include "io/tokenizer/byte_chars.h"
#include "io/tokenizer/tokenizer_data.h"

namespace shoestring {
namespace {

using nlohmann::ordered_json;

ordered_json byte_level(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

ordered_json step_json(const SplitStep& step) {
  if (step.name() == "digits" || step.name() == "single digits") {
    return {{"type", "Digits"}, {"individual_digits", step.name() != "digits"}};
  }
  return {{"type", "Split"},
          {"pattern", {{"Regex", step.name()}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

ordered_json pre_tokenizer(const TokenizerData& data) {
  // A blank in front goes with the one step that ByteLevel does by itself.
  if (data.prefix_space) return byte_level(true, !data.steps.empty());
  ordered_json list = ordered_json::array();
  for (const SplitStep& step : data.steps) list.push_back(step_json(step));
  list.push_back(byte_level(false, false));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(list)}};
}

ordered_json vocabulary(const TokenizerData& data) {
  ordered_json ids = ordered_json::object();
  auto& list = ids.get_ref<ordered_json::object_t&>();
  auto is_added = [&](int32_t id) {
    return std::any_of(data.added.begin(), data.added.end(),
                       [&](const AddedToken& token) { return token.id == id; });
  };
  for (int32_t id = 0; id < data.tokens.size(); ++id) {
    if (!data.tokens.has(id)) continue;
    const bool piece = data.piece_ids.find(data.tokens, data.tokens[id]) == id;
    if (!piece && is_added(id)) continue;
    list.emplace_back(piece ? bytes_to_chars(data.tokens[id]) : std::string(data.tokens[id]), id);
  }
  return ids;
}

ordered_json merges(const TokenizerData& data) {
  ordered_json pairs = ordered_json::array();
  for (const MergeRule& merge : data.merges) {
    pairs.push_back(ordered_json::array(
        {bytes_to_chars(data.tokens[merge.left]), bytes_to_chars(data.tokens[merge.right])}));
  }
  return pairs;
}

ordered_json added_tokens(const TokenizerData& data) {
  ordered_json list = ordered_json::array();
  for (const AddedToken& token : data.added) {
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", token.single_word},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  }
  return list;
}

}  // namespace

std::string tokenizer_json(const Tokenizer& tokenizer) {
  const TokenizerData& data = tokenizer.data();
  check(!data.chars, "a character-level tokenizer comes from a tokenizer.json and is copied");
  const ordered_json model = {{"type", "BPE"},
                              {"dropout", nullptr},
                              {"unk_token", nullptr},
                              {"continuing_subword_prefix", nullptr},
                              {"end_of_word_suffix", nullptr},
                              {"fuse_unk", false},
                              {"byte_fallback", false},
                              {"ignore_merges", data.whole_pieces},
                              {"vocab", vocabulary(data)},
                              {"merges", merges(data)}};
  const ordered_json root = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added_tokens(data)},
      {"normalizer", data.nfc ? ordered_json({{"type", "NFC"}}) : ordered_json()},
      {"pre_tokenizer", pre_tokenizer(data)},
      {"post_processor", nullptr},
      {"decoder", byte_level(true, true)},
      {"model", model}};
  return root.dump(1, ' ') + "\n";
}

}  // namespace shoestring
