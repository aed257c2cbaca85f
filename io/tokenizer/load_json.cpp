#include "io/tokenizer/load_json.h"

#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/text.h"
#include "io/tokenizer/byte_chars.h"

namespace shoestring {

namespace {

using nlohmann::json;

json parse(std::string_view text, std::string_view name) {
  try {
    return json::parse(text);
  } catch (const json::exception& error) {
    fail_data(cat(name, ": broken JSON: ", error.what()));
  }
}

class Loader {
 public:
  Loader(const json& root, std::string_view name) : root_(root), name_(name) {}

  TokenizerData run() {
    read_normalizer(member(root_, "normalizer"), 0);
    read_pre_tokenizer(member(root_, "pre_tokenizer"), 0);
    if (!byte_level_) {
      refuse("no ByteLevel pre-tokenizer; only byte-level tokenizers can be used");
    }
    read_decoder(member(root_, "decoder"));
    read_model(required(root_, "model", "the file"));
    read_added(member(root_, "added_tokens"));
    read_post_processor(member(root_, "post_processor"), 0);
    return std::move(data_);
  }

  // Ids of the tokens that tokenizer_config.json names.
  void read_config(const json& config, TokenizerData& data) const {
    for (const bool is_bos : {true, false}) {
      const json& entry = member(config, is_bos ? "bos_token" : "eos_token");
      const json& content = entry.is_object() ? member(entry, "content") : entry;
      for (const AddedToken& token : data.added) {
        if (content.is_string() && token.content == content.get_ref<const std::string&>()) {
          (is_bos ? data.bos : data.eos) = token.id;
        }
      }
    }
  }

 private:
  static constexpr int deepest = 8;

  [[noreturn]] void refuse(const std::string& why) const { fail_data(cat(name_, ": ", why)); }

  // Null where the key is missing or `object` is none.
  static const json& member(const json& object, const char* key) {
    static const json null;
    if (!object.is_object()) {
      return null;
    }
    const auto found = object.find(key);
    return found == object.end() ? null : *found;
  }

  const json& required(const json& object, const char* key, std::string_view where) const {
    const json& found = member(object, key);
    if (found.is_null()) {
      refuse(cat(where, " has no \"", key, "\""));
    }
    return found;
  }

  const std::string& text_of(const json& object, const char* key, std::string_view where) const {
    const json& found = required(object, key, where);
    if (!found.is_string()) {
      refuse(cat("\"", key, "\" of ", where, " is no string"));
    }
    return found.get_ref<const std::string&>();
  }

  bool flag_of(const json& object, const char* key, bool otherwise) const {
    const json& found = member(object, key);
    if (found.is_null()) {
      return otherwise;
    }
    if (!found.is_boolean()) {
      refuse(cat("\"", key, "\" is neither true nor false"));
    }
    return found.get<bool>();
  }

  int32_t id_of(const json& value, std::string_view token) const {
    if (!value.is_number_integer() || value.get<double>() < 0 ||
        value.get<double>() > static_cast<double>(largest_token_id)) {
      refuse(cat("the id of token '", token, "' is ", value.dump(),
                 "; ids are whole numbers from 0", " to ", largest_token_id));
    }
    return value.get<int32_t>();
  }

  const json& list_of(const json& object, const char* key, int depth) const {
    if (depth >= deepest) {
      refuse("sequences are nested too deeply");
    }
    const json& list = required(object, key, "a Sequence");
    if (!list.is_array()) {
      refuse(cat("\"", key, "\" is no list"));
    }
    return list;
  }

  void read_normalizer(const json& part, int depth) {
    if (part.is_null()) {
      return;
    }
    const std::string& type = text_of(part, "type", "the normalizer");
    if (type == "Sequence") {
      for (const json& inner : list_of(part, "normalizers", depth)) {
        read_normalizer(inner, depth + 1);
      }
    } else if (type == "NFC") {
      data_.nfc = true;
    } else {
      refuse(
          cat("the normalizer ", type, " is not one of byte-level language models (NFC or none)"));
    }
  }

  void read_pre_tokenizer(const json& part, int depth) {
    if (part.is_null()) {
      return;
    }
    const std::string& type = text_of(part, "type", "the pre-tokenizer");
    if (type == "Sequence") {
      for (const json& inner : list_of(part, "pretokenizers", depth)) {
        read_pre_tokenizer(inner, depth + 1);
      }
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
      data_.steps.push_back(SplitStep::digits(flag_of(part, "individual_digits", false)));
    } else {
      refuse(cat("the pre-tokenizer ", type, " is unknown; Split, Digits, ByteLevel and Sequence",
                 " can be used"));
    }
  }

  void read_byte_level(const json& part) {
    byte_level_ = true;
    data_.prefix_space = flag_of(part, "add_prefix_space", true);
    if (data_.prefix_space && !data_.steps.empty()) {
      refuse("ByteLevel with add_prefix_space after another step would put blanks inside the text");
    }
    if (flag_of(part, "use_regex", true)) {
      data_.steps.push_back(SplitStep::from_pattern(patterns::gpt2));
    }
  }

  void read_split(const json& part) {
    const std::string& behavior = text_of(part, "behavior", "a Split");
    const bool inverted = flag_of(part, "invert", false);
    const json& pattern = required(part, "pattern", "a Split");
    const json& regex = member(pattern, "Regex");
    SplitStep step =
        step_of(regex.is_string() ? regex.get<std::string>()
                                  : quoted(text_of(pattern, "String", "a Split's pattern")));
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

  void read_decoder(const json& part) const {
    if (part.is_null()) {
      return;
    }
    const std::string& type = text_of(part, "type", "the decoder");
    if (type != "ByteLevel" && type != "Sequence") {
      refuse(cat("the decoder ", type, " does not fit a byte-level tokenizer"));
    }
  }

  void read_model(const json& model) {
    const json& type = member(model, "type");
    if (!type.is_null() && type != "BPE") {
      refuse(cat("the model is ", type.dump(), "; only BPE can be used"));
    }
    if (flag_of(model, "byte_fallback", false)) {
      refuse("byte_fallback belongs to SentencePiece tokenizers, not to byte-level ones");
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const json& text = member(model, key);
      if (!text.is_null() && text != "") {
        refuse(cat("\"", key, "\" is ", text.dump(), "; byte-level tokenizers have none"));
      }
    }
    if (const json& dropout = member(model, "dropout"); !dropout.is_null() && dropout != 0.0) {
      refuse(cat("\"dropout\" is ", dropout.dump(), ": encoding would be random"));
    }
    data_.whole_pieces = flag_of(model, "ignore_merges", false);
    read_vocabulary(required(model, "vocab", "the model"));
    const json& merges = required(model, "merges", "the model");
    if (!merges.is_array()) {
      refuse("\"merges\" is no list");
    }
    data_.merges.reserve(merges.size());
    for (const json& merge : merges) {
      read_merge(merge);
    }
  }

  void read_vocabulary(const json& vocabulary) {
    if (!vocabulary.is_object()) {
      refuse("\"vocab\" is no object of tokens and ids");
    }
    int32_t largest = -1;
    for (const auto& [token, id] : vocabulary.items()) {
      largest = std::max(largest, id_of(id, token));
    }
    data_.tokens.resize(largest + 1);
    data_.piece_ids.reset(vocabulary.size());
    for (const auto& [token, value] : vocabulary.items()) {
      const auto id = value.get<int32_t>();
      if (data_.tokens.has(id)) {
        refuse(cat("two tokens have the id ", id, ": '", bytes_to_chars(data_.tokens[id]),
                   "' and '", token, "'"));
      }
      // A token with a character that stands for no byte is an added one: taken literally, and
      // no result of merging.
      const auto bytes = chars_to_bytes(token);
      data_.tokens.set(id, bytes ? *bytes : token);
      if (bytes) {
        data_.piece_ids.insert(data_.tokens, id);
      }
    }
  }

  void read_merge(const json& merge) {
    const size_t number = data_.merges.size();
    std::string left, right;
    if (merge.is_string()) {
      const auto& both = merge.get_ref<const std::string&>();
      const size_t blank = both.find(' ');
      if (blank == std::string::npos || both.find(' ', blank + 1) != std::string::npos) {
        refuse(cat("merge ", number, " is '", both, "', not two tokens with one blank between"));
      }
      left = both.substr(0, blank);
      right = both.substr(blank + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else {
      refuse(cat("merge ", number, " is ", merge.dump(), ", not two tokens"));
    }
    data_.merges.push_back({merged_id(left, number), merged_id(right, number),
                            merged_id(left + right, number), static_cast<int32_t>(number)});
  }

  int32_t merged_id(const std::string& token, size_t merge) const {
    const auto bytes = chars_to_bytes(token);
    const int32_t id = bytes ? data_.piece_ids.find(data_.tokens, *bytes) : TokenMap::none;
    if (id == TokenMap::none) {
      refuse(cat("merge ", merge, " needs the token '", token, "', which the vocabulary lacks"));
    }
    return id;
  }

  void read_added(const json& list) {
    if (list.is_null()) {
      return;
    }
    if (!list.is_array()) {
      refuse("\"added_tokens\" is no list");
    }
    for (const json& entry : list) {
      AddedToken token;
      token.content = text_of(entry, "content", "an added token");
      token.id = id_of(required(entry, "id", "an added token"), token.content);
      token.single_word = flag_of(entry, "single_word", false);
      token.lstrip = flag_of(entry, "lstrip", false);
      token.rstrip = flag_of(entry, "rstrip", false);
      token.special = flag_of(entry, "special", false);
      token.normalized = flag_of(entry, "normalized", !token.special);
      if (token.content.empty()) {
        refuse(cat("the added token with the id ", token.id, " is empty"));
      }
      data_.added.push_back(std::move(token));
    }
  }

  // TemplateProcessing puts the bos token before "A" and the eos token behind it.
  void read_post_processor(const json& part, int depth) {
    const json& type = member(part, "type");
    if (type == "Sequence") {
      for (const json& inner : list_of(part, "processors", depth)) {
        read_post_processor(inner, depth + 1);
      }
    }
    const json& single = member(part, "single");
    if (type != "TemplateProcessing" || !single.is_array()) {
      return;
    }
    bool after_text = false;
    for (const json& piece : single) {
      after_text = after_text || !member(piece, "Sequence").is_null();
      const json& token = member(member(piece, "SpecialToken"), "id");
      for (const AddedToken& added : data_.added) {
        if (token.is_string() && added.content == token.get_ref<const std::string&>()) {
          (after_text ? data_.eos : data_.bos) = added.id;
        }
      }
    }
  }

  const json& root_;
  std::string_view name_;
  TokenizerData data_;
  bool byte_level_ = false;
};

}  // namespace

std::shared_ptr<const TokenizerData> parse_tokenizer_json(std::string_view text,
                                                          std::string_view name,
                                                          const TokenizerConfigText& beside) {
  const json root = parse(text, name);
  Loader loader(root, name);
  TokenizerData data = loader.run();
  if (!beside.config.empty()) {
    loader.read_config(parse(beside.config, beside.config_name), data);
  }
  return finish_tokenizer(std::move(data), name);
}

}  // namespace shoestring
