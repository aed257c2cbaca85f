#include "io/tokenizer/load_json.h"

#include "absl/container/flat_hash_map.h"
#include "core/check.h"
#include "core/text.h"
#include "io/tokenizer/byte_chars.h"
#include "io/tokenizer/json_part.h"
#include "io/tokenizer/load_char_level.h"

namespace shoestring {

namespace {

class Loader {
 public:
  explicit Loader(JsonPart root) : root_(root) {}

  TokenizerData run() {
    const JsonPart model = root_.required("model", "the file");
    require_bpe(model);
    if (has_byte_level(root_.member("pre_tokenizer"), 0)) {
      read_normalizer(root_.member("normalizer"), 0);
      read_pre_tokenizer(root_.member("pre_tokenizer"), 0);
      read_decoder(root_.member("decoder"));
    } else {
      read_char_pipeline(root_, data_);
    }
    read_model(model);
    read_added(root_.member("added_tokens"));
    read_post_processor(root_.member("post_processor"), 0);
    return std::move(data_);
  }

  // Ids of the tokens that tokenizer_config.json names.
  static void read_config(JsonPart config, TokenizerData& data) {
    for (const bool is_bos : {true, false}) {
      const JsonPart entry = config.member(is_bos ? "bos_token" : "eos_token");
      const JsonPart content = entry.is_object() ? entry.member("content") : entry;
      for (const AddedToken& token : data.added) {
        if (content.is_text(token.content)) (is_bos ? data.bos : data.eos) = token.id;
      }
    }
  }

 private:
  static constexpr int deepest = 8;

  [[noreturn]] void refuse(const std::string& why) const { root_.refuse(why); }

  int32_t id_of(JsonPart value, std::string_view token) const {
    const auto id = value.as_whole();
    if (!id || *id < 0 || *id > largest_token_id) {
      refuse(cat("the id of token '", token, "' is ", value.shown(),
                 "; ids are whole numbers from 0", " to ", largest_token_id));
    }
    return static_cast<int32_t>(*id);
  }

  JsonPart list_of(JsonPart part, const char* key, int depth) const {
    if (depth >= deepest) refuse("sequences are nested too deeply");
    return part.list(key, "a Sequence");
  }

  void require_bpe(JsonPart model) const {
    const JsonPart type = model.member("type");
    if (!type.is_null() && !type.is_text("BPE")) {
      refuse(
          cat("the model is ", type.shown(), "; only BPE can be read, byte-level (the kinds of ",
              "GPT-2, Llama 3, Qwen, DeepSeek) or SentencePiece-like (Llama 2, Mistral, Gemma)"));
    }
  }

  bool has_byte_level(JsonPart part, int depth) const {
    if (part.member("type").is_text("ByteLevel")) return true;
    if (!part.member("type").is_text("Sequence")) return false;
    const JsonPart list = list_of(part, "pretokenizers", depth);
    for (size_t i = 0; i < list.size(); ++i) {
      if (has_byte_level(list[i], depth + 1)) return true;
    }
    return false;
  }

  void read_normalizer(JsonPart part, int depth) {
    if (part.is_null()) {
      return;
    }
    const std::string& type = part.text("type", "the normalizer");
    if (type == "Sequence") {
      const JsonPart list = list_of(part, "normalizers", depth);
      for (size_t i = 0; i < list.size(); ++i) read_normalizer(list[i], depth + 1);
    } else if (type == "NFC") {
      data_.nfc = true;
    } else {
      refuse(
          cat("the normalizer ", type, " is not one of byte-level language models (NFC or none)"));
    }
  }

  void read_pre_tokenizer(JsonPart part, int depth) {
    if (part.is_null()) {
      return;
    }
    const std::string& type = part.text("type", "the pre-tokenizer");
    if (type == "Sequence") {
      const JsonPart list = list_of(part, "pretokenizers", depth);
      for (size_t i = 0; i < list.size(); ++i) read_pre_tokenizer(list[i], depth + 1);
      return;
    }
    if (byte_level_) {
      refuse(cat("the pre-tokenizer ", type, " comes after ByteLevel, which must be the last"));
    }
    if (type == "ByteLevel") {
      read_byte_level(part);
    } else if (type == "Split") {
      read_split(part);
    } else if (type == "Digits") {
      data_.steps.push_back(SplitStep::digits(part.flag("individual_digits", false)));
    } else {
      refuse(cat("the pre-tokenizer ", type, " is unknown; Split, Digits, ByteLevel and Sequence",
                 " can be used"));
    }
  }

  void read_byte_level(JsonPart part) {
    byte_level_ = true;
    data_.prefix_space = part.flag("add_prefix_space", true);
    if (data_.prefix_space && !data_.steps.empty()) {
      refuse("ByteLevel with add_prefix_space after another step would put blanks inside the text");
    }
    if (part.flag("use_regex", true)) {
      data_.steps.push_back(SplitStep::from_pattern(patterns::gpt2));
    }
  }

  void read_split(JsonPart part) {
    const std::string& behavior = part.text("behavior", "a Split");
    const bool inverted = part.flag("invert", false);
    const JsonPart pattern = part.required("pattern", "a Split");
    const JsonPart regex = pattern.member("Regex");
    SplitStep step = step_of(regex.is_text() ? regex.as_text()
                                             : quoted(pattern.text("String", "a Split's pattern")));
    // Isolated: inverting swaps pieces and gaps, which are both kept. Removed and inverted keeps
    // the matches only; that is the same where the pattern leaves no gaps.
    const bool keeps_all =
        behavior == "Isolated" || (behavior == "Removed" && inverted && step.leaves_no_gaps());
    if (!keeps_all) {
      refuse(cat("a Split has the behavior ", behavior, inverted ? ", inverted" : "",
                 "; only Isolated keeps the text as it is"));
    }
    data_.steps.push_back(std::move(step));
  }

  SplitStep step_of(const std::string& pattern) const {
    try {
      return SplitStep::from_pattern(pattern);
    } catch (const Error& error) {
      refuse(error.what());
    }
  }

  static std::string quoted(const std::string& literal) {
    std::string out;
    for (const char c : literal) {
      if (std::string_view("\\^$.[]|()?*+{}-").find(c) != std::string_view::npos) {
        out += '\\';
      }
      out += c;
    }
    return out;
  }

  void read_decoder(JsonPart part) const {
    if (part.is_null()) {
      return;
    }
    const std::string& type = part.text("type", "the decoder");
    if (type != "ByteLevel" && type != "Sequence") {
      refuse(cat("the decoder ", type, " does not fit a byte-level tokenizer"));
    }
  }

  void read_model(JsonPart model) {
    if (!data_.chars && model.flag("byte_fallback", false)) {
      refuse("byte_fallback belongs to SentencePiece-like tokenizers, not to byte-level ones");
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const JsonPart text = model.member(key);
      if (!text.is_null() && !text.is_text("")) {
        refuse(cat("\"", key, "\" is ", text.shown(), "; the tokenizers read here have none"));
      }
    }
    const JsonPart dropout = model.member("dropout");
    if (!dropout.is_null() && dropout.shown() != "0.0" && dropout.shown() != "0") {
      refuse(cat("\"dropout\" is ", dropout.shown(), ": encoding would be random"));
    }
    data_.whole_pieces = model.flag("ignore_merges", false);
    read_vocabulary(model.required("vocab", "the model"));
    const auto find = [&](std::string_view token) { return named(token); };
    if (data_.chars) read_char_symbols(model, find, data_);
    const JsonPart merges = model.list("merges", "the model");
    data_.merges.reserve(merges.size());
    for (size_t i = 0; i < merges.size(); ++i) read_merge(merges[i], i);
    if (data_.chars) find_cuts(data_);
  }

  void read_vocabulary(JsonPart vocabulary) {
    if (!vocabulary.is_object()) {
      refuse("\"vocab\" is no object of tokens and ids");
    }
    int32_t largest = -1;
    vocabulary.each([&](const std::string& token, JsonPart id) {
      largest = std::max(largest, id_of(id, token));
    });
    data_.tokens.resize(largest + 1);
    data_.piece_ids.reset(vocabulary.size());
    vocabulary.each([&](const std::string& token, JsonPart value) {
      const int32_t id = id_of(value, token);
      if (data_.tokens.has(id)) {
        const std::string other(data_.tokens[id]);
        refuse(cat("two tokens have the id ", id, ": '",
                   data_.chars ? other : bytes_to_chars(other), "' and '", token, "'"));
      }
      add_token(token, id);
    });
  }

  void add_token(const std::string& token, int32_t id) {
    if (data_.chars) {
      names_.emplace(token, id);
      add_char_token(token, id, data_);
      return;
    }
    // A token with a character that stands for no byte is an added one: taken literally, and no
    // result of merging.
    const auto bytes = chars_to_bytes(token);
    data_.tokens.set(id, bytes ? *bytes : token);
    if (bytes) data_.piece_ids.insert(data_.tokens, id);
  }

  void read_merge(JsonPart merge, size_t number) {
    std::string left, right;
    if (merge.is_text()) {
      const std::string& both = merge.as_text();
      const size_t blank = both.find(' ');
      if (blank == std::string::npos || both.find(' ', blank + 1) != std::string::npos) {
        refuse(cat("merge ", number, " is '", both, "', not two tokens with one blank between"));
      }
      left = both.substr(0, blank);
      right = both.substr(blank + 1);
    } else if (merge.is_list() && merge.size() == 2 && merge[0].is_text() && merge[1].is_text()) {
      left = merge[0].as_text();
      right = merge[1].as_text();
    } else {
      refuse(cat("merge ", number, " is ", merge.shown(), ", not two tokens"));
    }
    data_.merges.push_back({merged_id(left, number), merged_id(right, number),
                            merged_id(left + right, number), static_cast<int32_t>(number)});
  }

  int32_t merged_id(const std::string& token, size_t merge) {
    const int32_t id = named(token);
    if (id == TokenMap::none) {
      refuse(cat("merge ", merge, " needs the token '", token, "', which the vocabulary lacks"));
    }
    if (data_.chars && (byte_of_name(token) || id == data_.chars->unknown)) {
      data_.chars->plain_merges = false;
    }
    return id;
  }

  // The id of a token by its name in the vocabulary.
  int32_t named(std::string_view token) const {
    if (data_.chars) {
      const auto found = names_.find(std::string(token));
      return found == names_.end() ? TokenMap::none : found->second;
    }
    const auto bytes = chars_to_bytes(token);
    return bytes ? data_.piece_ids.find(data_.tokens, *bytes) : TokenMap::none;
  }

  void read_added(JsonPart list) {
    if (list.is_null()) {
      return;
    }
    if (!list.is_list()) {
      refuse("\"added_tokens\" is no list");
    }
    for (size_t i = 0; i < list.size(); ++i) {
      const JsonPart entry = list[i];
      AddedToken token;
      token.content = entry.text("content", "an added token");
      token.id = id_of(entry.required("id", "an added token"), token.content);
      token.single_word = entry.flag("single_word", false);
      token.lstrip = entry.flag("lstrip", false);
      token.rstrip = entry.flag("rstrip", false);
      token.special = entry.flag("special", false);
      token.normalized = entry.flag("normalized", !token.special);
      if (token.content.empty()) {
        refuse(cat("the added token with the id ", token.id, " is empty"));
      }
      if (data_.chars) require_agreement(token);
      data_.added.push_back(std::move(token));
    }
  }

  void require_agreement(const AddedToken& token) const {
    const int32_t id = named(token.content);
    if (id != TokenMap::none && id != token.id) {
      refuse(cat("added token '", token.content, "' has the id ", token.id,
                 ", but the vocabulary says ", id));
    }
    if (id == TokenMap::none && data_.tokens.has(token.id)) {
      refuse(cat("added token '", token.content, "' has the id ", token.id,
                 ", which the vocabulary gives to '", data_.tokens[token.id], "'"));
    }
  }

  // TemplateProcessing puts the bos token before "A" and the eos token behind it.
  void read_post_processor(JsonPart part, int depth) {
    const JsonPart type = part.member("type");
    if (type.is_text("Sequence")) {
      const JsonPart list = list_of(part, "processors", depth);
      for (size_t i = 0; i < list.size(); ++i) read_post_processor(list[i], depth + 1);
    }
    const JsonPart single = part.member("single");
    if (!type.is_text("TemplateProcessing") || !single.is_list()) {
      return;
    }
    bool after_text = false;
    for (size_t i = 0; i < single.size(); ++i) {
      after_text = after_text || !single[i].member("Sequence").is_null();
      const JsonPart token = single[i].member("SpecialToken").member("id");
      for (const AddedToken& added : data_.added) {
        if (token.is_text(added.content)) (after_text ? data_.eos : data_.bos) = added.id;
      }
    }
  }

  JsonPart root_;
  TokenizerData data_;
  bool byte_level_ = false;
  absl::flat_hash_map<std::string, int32_t> names_;  // character-level vocabularies
};

}  // namespace

std::shared_ptr<const TokenizerData> parse_tokenizer_json(std::string_view text,
                                                          std::string_view name,
                                                          const TokenizerConfigText& beside) {
  const JsonDocument document(text, name);
  TokenizerData data = Loader(document.root()).run();
  if (!beside.config.empty()) {
    const JsonDocument config(beside.config, beside.config_name);
    Loader::read_config(config.root(), data);
  }
  return finish_tokenizer(std::move(data), name);
}

}  // namespace shoestring
