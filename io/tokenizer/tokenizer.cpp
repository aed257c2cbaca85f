#include "io/tokenizer/tokenizer.h"

#include "core/check.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "io/tokenizer/encoder.h"
#include "io/tokenizer/load_json.h"
#include "io/tokenizer/load_tiktoken.h"
#include "io/tokenizer/tokenizer_data.h"
#include "io/tokenizer/unicode.h"

namespace shoestring {

namespace {

std::string read_whole(const std::filesystem::path& path) {
  constexpr uint64_t limit = uint64_t{1} << 30;
  return read_small_file(path.string(), limit);
}

// Up to `count` blanks in front; `count` becomes what the text's next part may still lose.
void drop_blanks(std::string& text, int& count) {
  size_t dropped = 0;
  while (count > 0 && dropped < text.size()) {
    if (text[dropped] == ' ') {
      ++dropped;
      --count;
    } else {
      count = 0;
    }
  }
  text.erase(0, dropped);
}

}  // namespace

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    const std::filesystem::path file = path / "tokenizer.json";
    if (!std::filesystem::exists(file)) {
      fail_data(cat("the folder ", path.string(), " holds no tokenizer.json"));
    }
    const std::filesystem::path config = path / "tokenizer_config.json";
    const bool has_config = std::filesystem::exists(config);
    return Tokenizer(parse_tokenizer_json(
        read_whole(file), file.string(),
        {.config = has_config ? read_whole(config) : "", .config_name = config.string()}));
  }
  const std::string text = read_whole(path);
  const size_t start = text.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  if (start != std::string::npos && text[start] == '{') {
    return from_json(text, path.string());
  }
  if (path.extension() == ".json") {
    fail_data(cat(path.string(), " holds no JSON object"));
  }
  return from_tiktoken(text, path.string());
}

Tokenizer Tokenizer::from_json(std::string_view json, std::string_view name) {
  return Tokenizer(parse_tokenizer_json(json, name, {}));
}

Tokenizer Tokenizer::from_tiktoken(std::string_view lines, std::string_view name) {
  return Tokenizer(parse_tiktoken(lines, name));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::vector<int32_t> ids;
  Encoder(*this, 0).encode(text, ids, options);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) {
    text += id_to_bytes(id);
  }
  int strip = data_->chars ? data_->chars->strip : 0;
  drop_blanks(text, strip);
  return text;
}

int32_t Tokenizer::vocabulary_size() const { return data_->tokens.size(); }

bool Tokenizer::has_id(int32_t id) const { return data_->tokens.has(id); }

std::string_view Tokenizer::id_to_bytes(int32_t id) const {
  if (!data_->tokens.has(id)) {
    fail_data(cat("the tokenizer has no token with the id ", id, "; its ids go from 0 to ",
                  vocabulary_size() - 1));
  }
  return data_->tokens[id];
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view bytes) const {
  for (const AddedToken& token : data_->added) {
    if (token.content == bytes) {
      return token.id;
    }
  }
  const int32_t id = data_->piece_ids.find(data_->tokens, bytes);
  if (id != TokenMap::none) return id;
  const bool byte = data_->chars && bytes.size() == 1;
  const int32_t of_byte =
      byte ? data_->byte_ids[static_cast<unsigned char>(bytes[0])] : TokenMap::none;
  return of_byte == TokenMap::none ? std::nullopt : std::optional(of_byte);
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocabulary_size() && data_->is_special[static_cast<size_t>(id)];
}

std::optional<int32_t> Tokenizer::bos_id() const { return data_->bos; }
std::optional<int32_t> Tokenizer::eos_id() const { return data_->eos; }
std::optional<int32_t> Tokenizer::end_of_text_id() const { return data_->end_of_text; }
const std::string& Tokenizer::hash() const { return data_->hash; }

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool begins_text)
    : tokenizer_(std::move(tokenizer)) {
  const auto& chars = tokenizer_.data().chars;
  strip_ = begins_text && chars ? chars->strip : 0;
}

std::string StreamDecoder::push(int32_t id) {
  std::string bytes(tokenizer_.id_to_bytes(id));
  drop_blanks(bytes, strip_);
  held_ += bytes;
  const size_t whole = held_.size() - unfinished_suffix(held_);
  std::string out = held_.substr(0, whole);
  held_.erase(0, whole);
  return out;
}

std::string StreamDecoder::finish() { return std::exchange(held_, {}); }

}  // namespace shoestring
