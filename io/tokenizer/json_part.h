#pragma once
// A parsed JSON file and views of its values: what the readers of tokenizer.json need, with one
// form of message ("file: why").

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace shoestring {

// A view of one value; lives no longer than its JsonDocument.
class JsonPart {
 public:
  JsonPart(const void* value, const std::string* file) : value_(value), file_(file) {}

  bool is_null() const;
  bool is_text() const;
  bool is_list() const;
  bool is_object() const;
  bool is_text(std::string_view wanted) const { return is_text() && as_text() == wanted; }
  const std::string& as_text() const;       // of a text only
  std::optional<int64_t> as_whole() const;  // none for what is no whole number of 64 bits
  size_t size() const;                      // entries of a list or an object

  JsonPart operator[](size_t i) const;  // of a list, i < size()
  // Calls visit(key, value) for each entry of an object.
  void each(const std::function<void(const std::string&, JsonPart)>& visit) const;

  // A null part where the key is missing, or where this is no object.
  JsonPart member(const char* key) const;
  // Data errors where it is missing, null or of another type; `where` names this part.
  JsonPart required(const char* key, std::string_view where) const;
  const std::string& text(const char* key, std::string_view where) const;
  JsonPart list(const char* key, std::string_view where) const;
  bool flag(const char* key, bool otherwise) const;

  // For messages: the value itself, or "a list", "an object".
  std::string shown() const;
  // Data error "file: why".
  [[noreturn]] void refuse(std::string_view why) const;

 private:
  const void* value_;
  const std::string* file_;
};

class JsonDocument {
 public:
  // Data error that names `file` for broken JSON.
  JsonDocument(std::string_view text, std::string_view file);
  JsonDocument(const JsonDocument&) = delete;
  JsonDocument& operator=(const JsonDocument&) = delete;
  JsonPart root() const { return {value_.get(), &file_}; }

 private:
  std::string file_;
  std::shared_ptr<const void> value_;
};

}  // namespace shoestring
