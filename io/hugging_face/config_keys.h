#pragma once
// A JSON object read key by key, with types and ranges checked. Every error names the file, the key
// and the value. A key whose value is null counts as missing, as the format's readers have it.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

// Inclusive.
struct WholeRange {
  int64_t least = 0, most = 0;
};

class ConfigKeys {
 public:
  // Data errors for what is no JSON object (io/json_check.h). `path` stands for it in messages.
  ConfigKeys(std::string_view json, const std::string& path);

  const std::string& path() const;
  bool has(std::string_view key) const;
  bool is_null(std::string_view key) const;  // there, as null: some keys mean something by that

  // Required; `_or`: the fallback when it is missing. A number may be written as a whole one.
  int64_t whole(std::string_view key, WholeRange range) const;
  int64_t whole_or(std::string_view key, int64_t fallback, WholeRange range) const;
  double number(std::string_view key) const;  // finite
  double number_or(std::string_view key, double fallback) const;
  bool flag_or(std::string_view key, bool fallback) const;
  std::string text_or(std::string_view key, const std::string& fallback) const;
  // Empty when missing. One value counts as a list of one.
  std::vector<int64_t> wholes(std::string_view key, WholeRange range) const;
  std::vector<std::string> texts(std::string_view key) const;
  // Its keys are called "key.name" in messages.
  ConfigKeys object(std::string_view key) const;

  // Data error "path: \"key\" is <value>, <why>".
  [[noreturn]] void refuse(std::string_view key, std::string_view why) const;

 private:
  struct State;
  explicit ConfigKeys(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace shoestring
