#include "io/tokenizer/load_char_level.h"

#include "absl/strings/str_format.h"
#include "core/text.h"
#include "io/tokenizer/unicode.h"

namespace shoestring {

namespace {

constexpr int deepest = 8;
constexpr int most_stripped = 1000;

class PipelineReader {
 public:
  PipelineReader(JsonPart root, TokenizerData& data)
      : root_(root), data_(data), chars_(*data.chars) {}

  void run() {
    read_normalizer(root_.member("normalizer"), 0);
    read_pre_tokenizer(root_.member("pre_tokenizer"), 0);
    if (!chars_.early && !metaspace_) {
      root_.refuse(
          "there is neither a ByteLevel pre-tokenizer nor one that writes blanks as U+2581 "
          "(Metaspace, or the normalizer Replace); byte-level tokenizers and SentencePiece-like "
          "ones can be read");
    }
    read_decoder(root_.member("decoder"), 0);
    if (!unmarks_) {
      root_.refuse(cat("the decoder is ", decoder_name(),
                       ", but where Metaspace or Replace writes blanks as U+2581 the decoder must ",
                       "hold a Replace that turns them back"));
    }
  }

 private:
  JsonPart list_of(JsonPart part, const char* key, int depth) const {
    if (depth >= deepest) root_.refuse("sequences are nested too deeply");
    return part.list(key, "a Sequence");
  }

  std::string decoder_name() const {
    const JsonPart type = root_.member("decoder").member("type");
    return type.is_text() ? type.as_text() : "missing";
  }

  // Whether a Replace writes `from` as `to`, both plain strings.
  static bool replaces(JsonPart part, std::string_view from, std::string_view to) {
    return part.member("pattern").member("String").is_text(from) &&
           part.member("content").is_text(to);
  }

  void read_normalizer(JsonPart part, int depth) {
    if (part.is_null()) return;
    const std::string& type = part.text("type", "the normalizer");
    if (type == "Sequence") {
      const JsonPart list = list_of(part, "normalizers", depth);
      for (size_t i = 0; i < list.size(); ++i) read_normalizer(list[i], depth + 1);
    } else if (type == "NFC") {
      data_.nfc = true;
    } else if (type == "Prepend" && part.member("prepend").is_text(blank_mark) && !chars_.prepend) {
      chars_.prepend = true;
    } else if (type == "Replace" && replaces(part, " ", blank_mark)) {
      chars_.early = true;
    } else {
      root_.refuse(cat("the normalizer ", type, " is none that can be read with a SentencePiece-",
                       "like tokenizer: NFC, one Prepend of U+2581, Replace of blanks by U+2581"));
    }
  }

  void read_pre_tokenizer(JsonPart part, int depth) {
    if (part.is_null()) return;
    const std::string& type = part.text("type", "the pre-tokenizer");
    if (type == "Sequence") {
      const JsonPart list = list_of(part, "pretokenizers", depth);
      for (size_t i = 0; i < list.size(); ++i) read_pre_tokenizer(list[i], depth + 1);
    } else if (type == "Metaspace" && !metaspace_) {
      read_metaspace(part);
    } else if (!(type == "Split" && chars_.early &&
                 part.member("pattern").member("String").is_text(" "))) {
      // A split at blanks finds none where the normalizer has replaced them (Gemma's files).
      root_.refuse(cat("the pre-tokenizer ", type,
                       " is none that can be read without ByteLevel: ", "only one Metaspace"));
    }
  }

  void read_metaspace(JsonPart part) {
    metaspace_ = true;
    if (!part.member("replacement").is_text(blank_mark)) {
      root_.refuse(cat("Metaspace has the replacement ", part.member("replacement").shown(),
                       "; only U+2581 can be read"));
    }
    const JsonPart scheme = part.member("prepend_scheme");
    if (scheme.is_null() || scheme.is_text("always")) {
      chars_.scheme = CharLevel::Scheme::always;
    } else if (scheme.is_text("first")) {
      chars_.scheme = CharLevel::Scheme::first;
    } else if (!scheme.is_text("never")) {
      root_.refuse(cat("Metaspace has the prepend_scheme ", scheme.shown(),
                       "; it is always, first or never"));
    }
    // The older way to say "never".
    if (!part.flag("add_prefix_space", true)) chars_.scheme = CharLevel::Scheme::never;
    chars_.split = part.flag("split", true);
  }

  void read_decoder(JsonPart part, int depth) {
    if (part.is_null()) return;
    const std::string& type = part.text("type", "the decoder");
    if (type == "Sequence") {
      const JsonPart list = list_of(part, "decoders", depth);
      for (size_t i = 0; i < list.size(); ++i) read_decoder(list[i], depth + 1);
    } else if (type == "Replace" && replaces(part, blank_mark, " ")) {
      unmarks_ = true;
    } else if (type == "ByteFallback") {
      chars_.names_bytes = true;
    } else if (type == "Fuse") {
      fuses_ = true;
    } else if (type == "Strip") {
      read_strip(part);
    } else {
      root_.refuse(cat("the decoder ", type,
                       " does not fit a tokenizer with Metaspace or Replace: ",
                       "Replace of U+2581 by a blank, ByteFallback, Fuse and Strip can be read"));
    }
  }

  void read_strip(JsonPart part) {
    const auto start = part.member("start").as_whole(), stop = part.member("stop").as_whole();
    // Without Fuse before it, every token would lose its blanks.
    if (!part.member("content").is_text(" ") || !start || *start < 0 || *start > most_stripped ||
        stop.value_or(0) != 0 || !fuses_) {
      root_.refuse(
          "the decoder's Strip can be read where it drops blanks at the start of a text: "
          "content \" \", stop 0, behind Fuse");
    }
    chars_.strip = static_cast<int>(*start);
  }

  JsonPart root_;
  TokenizerData& data_;
  CharLevel& chars_;
  bool metaspace_ = false, unmarks_ = false, fuses_ = false;
};

}  // namespace

void read_char_pipeline(JsonPart root, TokenizerData& data) {
  data.chars.emplace();
  PipelineReader(root, data).run();
}

void read_char_symbols(JsonPart model, const std::function<int32_t(std::string_view)>& ids,
                       TokenizerData& data) {
  CharLevel& chars = *data.chars;
  chars.fuse_unknown = model.flag("fuse_unk", false);
  if (const JsonPart unknown = model.member("unk_token"); !unknown.is_null()) {
    chars.unknown = ids(model.text("unk_token", "the model"));
  }
  data.byte_ids.assign(256, TokenMap::none);
  if (!model.flag("byte_fallback", false)) return;
  if (!chars.names_bytes) {
    model.refuse("the model has byte_fallback, but the decoder has no ByteFallback");
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    data.byte_ids[byte] = ids(absl::StrFormat("<0x%02X>", byte));
  }
}

void add_char_token(std::string_view name, int32_t id, TokenizerData& data) {
  CharLevel& chars = *data.chars;
  data.tokens.set(id, chars.decoded(name));
  // Texts hold marks where they held blanks: a token with a blank stands in none.
  if (name.empty() || name.find(' ') != std::string_view::npos) return;
  const bool is_byte = chars.names_bytes && byte_of_name(name);
  if (is_byte) return;
  data.piece_ids.insert(data.tokens, id);
  const std::string_view bytes = data.tokens[id];
  const Char c = decode_char(bytes.data(), bytes.data() + bytes.size());
  if (c.length != bytes.size() || c.code == invalid_code) return;
  if (chars.char_ids.size() <= c.code) chars.char_ids.resize(c.code + 1, TokenMap::none);
  chars.char_ids[c.code] = id;
}

}  // namespace shoestring
