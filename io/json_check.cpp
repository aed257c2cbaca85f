#include "io/json_check.h"

#include <algorithm>
#include <set>
#include <vector>

#include "core/check.h"
#include "core/printable.h"
#include "core/text.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

using Json = nlohmann::json;

// What stands before this many bytes are read, on one line.
std::string end_of(std::string_view text) {
  constexpr size_t longest = 30;
  if (text.size() > longest) text.remove_prefix(text.size() - longest);
  while (!text.empty() && (static_cast<unsigned char>(text[0]) & 0xc0) == 0x80) {
    text.remove_prefix(1);  // the rest of a character
  }
  std::string line(text);
  std::replace(line.begin(), line.end(), '\n', ' ');
  return printable(line);
}

// Walks the text without building values; the parser behind it does not recurse.
class Watcher : public nlohmann::json_sax<Json> {
 public:
  Watcher(std::string_view text, const std::string& path, size_t deepest)
      : text_(text), path_(path), deepest_(deepest) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return open(true); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(false); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (!open_.back().insert(name).second) {
      fail_data(cat(path_, ": an object has the key \"", name, "\" twice"));
    }
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    fail_json(text_, path_, position, error.id);
  }

 private:
  bool open(bool object) {
    if (open_.empty() && !object) fail_data(cat(path_, ": not a JSON object"));
    if (open_.size() == deepest_) {
      fail_data(cat(path_, ": nested deeper than ", deepest_, " brackets"));
    }
    open_.emplace_back();
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& path_;
  size_t deepest_;
  std::vector<std::set<std::string>> open_;  // keys of each open bracket
};

}  // namespace

void fail_json(std::string_view text, const std::string& path, size_t position, int error) {
  constexpr int number_overflow = 406;
  if (position > text.size()) {
    fail_data(cat(path, ": not valid JSON: it ends too early, after ", text.size(), " bytes"));
  }
  const std::string_view read = text.substr(0, position);
  fail_data(cat(path, ": not valid JSON at byte ", position, ", line ",
                1 + std::count(read.begin(), read.end(), '\n'),
                error == number_overflow ? ", a number that is too large" : "",
                ", at the end of: ", end_of(read)));
}

void check_json_object(std::string_view text, const std::string& path, size_t deepest) {
  const size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string_view::npos || text[start] != '{') {
    fail_data(cat(path, ": not a JSON object"));
  }
  Watcher watcher(text, path, deepest);
  if (!Json::sax_parse(text.begin(), text.end(), &watcher)) {
    fail_data(cat(path, ": not valid JSON"));
  }
}

}  // namespace shoestring
