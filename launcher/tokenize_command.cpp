#include "launcher/tokenize_command.h"

#include <istream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <ostream>

#include "core/check.h"
#include "core/text.h"
#include "io/tokenizer/encoder.h"
#include "io/utf8_check.h"

namespace shoestring {
namespace {

std::string read_whole(std::istream& in) {
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string list_of(const std::vector<int32_t>& ids) {
  std::string line = "[";
  for (size_t i = 0; i < ids.size(); ++i) {
    append(line, i == 0 ? "" : ", ", ids[i]);
  }
  return line + "]";
}

// A program that writes a line and waits for the answer gets it.
void flush_if_idle(std::istream& in, std::ostream& out) {
  if (in.rdbuf()->in_avail() <= 0) {
    out.flush();
  }
}

std::vector<int32_t> parse_ids(const std::string& text, const std::string& where) {
  const auto list = nlohmann::json::parse(text, nullptr, false);
  if (!list.is_array()) {
    fail_data(cat(where, " is no JSON list of ids"));
  }
  std::vector<int32_t> ids;
  for (const auto& id : list) {
    if (!id.is_number_integer() || id < 0 || id > INT32_MAX) {
      fail_data(cat(where, " holds ", id.dump(), ", which is no id"));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

std::string decode(const Tokenizer& tokenizer, const std::string& text, const std::string& where) {
  const std::vector<int32_t> ids = parse_ids(text, where);
  for (const int32_t id : ids) {
    if (!tokenizer.has_id(id)) {
      fail_data(cat(where, " holds the id ", id, ", for which the tokenizer has no token; its ids ",
                    "go from 0 to ", tokenizer.vocabulary_size() - 1));
    }
  }
  return tokenizer.decode(ids);
}

int finish(std::ostream& out) {
  out.flush();
  if (!out) {
    fail_data("the output cannot be written (is the disk full, or the pipe closed?)");
  }
  return static_cast<int>(ExitCode::done);
}

}  // namespace

int run_tokenize(const TokenizeOptions& options, std::istream& in, std::ostream& out) {
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  Encoder encoder(tokenizer);
  std::vector<int32_t> ids;
  const auto put = [&](std::string_view text, const std::string& where) {
    require_utf8(text, where);
    ids.clear();
    encoder.encode(text, ids, {.special_as_text = options.special_as_text});
    out << list_of(ids) << '\n';
  };
  if (options.whole) {
    put(read_whole(in), "the input");
    return finish(out);
  }
  int64_t number = 1;
  for (std::string line; std::getline(in, line); ++number) {
    put(line, cat("line ", number, " of the input"));
    flush_if_idle(in, out);
  }
  return finish(out);
}

int run_detokenize(const TokenizeOptions& options, std::istream& in, std::ostream& out) {
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  if (options.whole) {
    out << decode(tokenizer, read_whole(in), "the input");
    return finish(out);
  }
  int64_t number = 1;
  for (std::string line; std::getline(in, line); ++number) {
    out << decode(tokenizer, line, cat("line ", number, " of the input")) << '\n';
    flush_if_idle(in, out);
  }
  return finish(out);
}

}  // namespace shoestring
