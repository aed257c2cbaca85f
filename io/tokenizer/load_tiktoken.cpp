#include "io/tokenizer/load_tiktoken.h"

#include <charconv>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"

namespace shoestring {

namespace {

struct Named {
  std::string content;
  int32_t id;
};

struct Family {
  std::string_view pattern;
  bool nfc = false;
  std::vector<Named> special;
};

constexpr std::string_view o200k_pattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view qwen35_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
    R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<Named> llama3_special() {
  std::vector<Named> out = {{"<|begin_of_text|>", 128000},
                            {"<|end_of_text|>", 128001},
                            {"<|start_header_id|>", 128006},
                            {"<|end_header_id|>", 128007},
                            {"<|eot_id|>", 128009}};
  int reserved = 0;
  for (int32_t id = 128002; id < 128256; ++id) {
    if (id != 128006 && id != 128007 && id != 128009) {
      out.push_back({cat("<|reserved_special_token_", reserved++, "|>"), id});
    }
  }
  return out;
}

// By lines and largest rank, which differ where a special token takes an id in between.
Family family_of(size_t lines, int32_t largest, std::string_view name) {
  if (lines == 50256 && largest == 50255) {
    return {.pattern = patterns::gpt2, .special = {{"<|endoftext|>", 50256}}};
  }
  if (lines == 50280 && largest == 50280) {
    return {.pattern = patterns::gpt2, .special = {{"<|endoftext|>", 50256}}};
  }
  if (lines == 100256) {
    return {.pattern = patterns::llama3,
            .special = {{"<|endoftext|>", 100257},
                        {"<|fim_prefix|>", 100258},
                        {"<|fim_middle|>", 100259},
                        {"<|fim_suffix|>", 100260},
                        {"<|endofprompt|>", 100276}}};
  }
  if (lines == 128000) {
    return {.pattern = patterns::llama3, .special = llama3_special()};
  }
  if (lines == 151643) {
    return {
        .pattern = patterns::qwen2,
        .nfc = true,
        .special = {{"<|endoftext|>", 151643}, {"<|im_start|>", 151644}, {"<|im_end|>", 151645}}};
  }
  if (lines == 248044) {
    return {
        .pattern = qwen35_pattern,
        .nfc = true,
        .special = {{"<|endoftext|>", 248044}, {"<|im_start|>", 248045}, {"<|im_end|>", 248046}}};
  }
  if (lines == 199998) {
    return {.pattern = o200k_pattern,
            .special = {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}};
  }
  fail_data(
      cat(name, " has ", counted(lines, "token"), " and the largest rank ", largest,
          ": no published tiktoken vocabulary (50256, 50280, 100256, 128000, 151643, 199998 or",
          " 248044 tokens), so its pattern is unknown; use its tokenizer.json instead"));
}

std::string from_base64(std::string_view code, std::string_view where) {
  static constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string_view body = code;
  while (!body.empty() && body.back() == '=' && code.size() - body.size() < 2) {
    body.remove_suffix(1);
  }
  std::string out;
  uint32_t bits = 0;
  int held = 0;
  for (const char c : body) {
    const size_t digit = digits.find(c);
    if (digit == std::string_view::npos) {
      fail_data(cat(where, ": '", code, "' is not base64"));
    }
    bits = bits << 6 | static_cast<uint32_t>(digit);
    held += 6;
    if (held >= 8) {
      held -= 8;
      out += static_cast<char>(bits >> held & 0xFF);
    }
  }
  if (code.size() % 4 != 0 || out.empty()) {
    fail_data(cat(where, ": '", code, "' is not base64 of a token"));
  }
  return out;
}

struct Ranked {
  std::string bytes;
  int32_t rank;
};

Ranked parse_line(std::string_view line, std::string_view where) {
  const size_t blank = line.find(' ');
  if (blank == std::string_view::npos) {
    fail_data(cat(where, ": '", line.substr(0, 80), "' is not a token in base64, a blank and a ",
                  "rank; is this a tokenizer file?"));
  }
  const std::string_view number = line.substr(blank + 1);
  int32_t rank = -1;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), rank);
  if (error != std::errc() || end != number.data() + number.size() || rank < 0 ||
      rank > largest_token_id) {
    fail_data(cat(where, ": the rank '", number.substr(0, 80), "' is no whole number from 0 to ",
                  largest_token_id));
  }
  return {from_base64(line.substr(0, blank), where), rank};
}

std::vector<Ranked> parse_lines(std::string_view text, std::string_view name) {
  std::vector<Ranked> tokens;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) {
      line.remove_suffix(1);
    }
    // One vocabulary in circulation has a line with an empty token, which can never occur.
    if (line.empty() || line.starts_with("= ") || line.starts_with(" ")) {
      continue;
    }
    tokens.push_back(parse_line(line, cat(name, ":", number)));
    if (tokens.size() > 1 && tokens[tokens.size() - 2].rank >= tokens.back().rank) {
      fail_data(cat(name, ":", number, ": the rank ", tokens.back().rank,
                    " does not follow that of the line before (", tokens[tokens.size() - 2].rank,
                    ")"));
    }
  }
  if (tokens.empty()) {
    fail_data(cat(name, " holds no tokens"));
  }
  return tokens;
}

// Two parts merge if their bytes, joined, are a token: every way to cut a token in two is a merge,
// all of the token's rank.
void derive_merges(TokenizerData& data, const std::vector<Ranked>& tokens) {
  for (const Ranked& token : tokens) {
    const std::string_view bytes = token.bytes;
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const int32_t left = data.piece_ids.find(data.tokens, bytes.substr(0, cut));
      if (left == TokenMap::none) {
        continue;
      }
      const int32_t right = data.piece_ids.find(data.tokens, bytes.substr(cut));
      if (right != TokenMap::none) {
        data.merges.push_back({left, right, token.rank, token.rank});
      }
    }
  }
}

}  // namespace

std::shared_ptr<const TokenizerData> parse_tiktoken(std::string_view lines, std::string_view name) {
  const std::vector<Ranked> tokens = parse_lines(lines, name);
  const int32_t largest = tokens.back().rank;
  const Family family = family_of(tokens.size(), largest, name);
  TokenizerData data;
  data.nfc = family.nfc;
  data.steps.push_back(SplitStep::from_pattern(family.pattern));
  data.whole_pieces = true;
  data.tokens.resize(largest + 1);
  data.piece_ids.reset(tokens.size());
  for (const Ranked& token : tokens) {
    data.tokens.set(token.rank, token.bytes);
    const int32_t first = data.piece_ids.insert(data.tokens, token.rank);
    if (first != token.rank) {
      fail_data(cat(name, ": the ranks ", first, " and ", token.rank, " have the same bytes"));
    }
  }
  derive_merges(data, tokens);
  for (const Named& special : family.special) {
    data.added.push_back(
        {.id = special.id, .content = special.content, .normalized = false, .special = true});
  }
  return finish_tokenizer(std::move(data), name);
}

}  // namespace shoestring
