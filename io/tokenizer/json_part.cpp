#include "io/tokenizer/json_part.h"

#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

namespace {

using nlohmann::json;

const json& value_at(const void* value) { return *static_cast<const json*>(value); }

std::shared_ptr<const void> parse(std::string_view text, std::string_view file) {
  try {
    return std::make_shared<const json>(json::parse(text));
  } catch (const json::exception& error) {
    fail_data(cat(file, ": broken JSON: ", error.what()));
  }
}

}  // namespace

JsonDocument::JsonDocument(std::string_view text, std::string_view file)
    : file_(file), value_(parse(text, file)) {}

bool JsonPart::is_null() const { return value_at(value_).is_null(); }
bool JsonPart::is_text() const { return value_at(value_).is_string(); }
bool JsonPart::is_list() const { return value_at(value_).is_array(); }
bool JsonPart::is_object() const { return value_at(value_).is_object(); }

const std::string& JsonPart::as_text() const {
  check(is_text(), "a part of a JSON file was taken for a text");
  return value_at(value_).get_ref<const std::string&>();
}

std::optional<int64_t> JsonPart::as_whole() const {
  const json& value = value_at(value_);
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) return std::nullopt;
  return value.get<int64_t>();
}

size_t JsonPart::size() const { return value_at(value_).size(); }

JsonPart JsonPart::operator[](size_t i) const { return {&value_at(value_).at(i), file_}; }

void JsonPart::each(const std::function<void(const std::string&, JsonPart)>& visit) const {
  for (const auto& [key, value] : value_at(value_).items()) visit(key, {&value, file_});
}

JsonPart JsonPart::member(const char* key) const {
  static const json null;
  const json& object = value_at(value_);
  if (!object.is_object()) return {&null, file_};
  const auto found = object.find(key);
  return {found == object.end() ? &null : &*found, file_};
}

JsonPart JsonPart::required(const char* key, std::string_view where) const {
  const JsonPart found = member(key);
  if (found.is_null()) refuse(cat(where, " has no \"", key, "\""));
  return found;
}

const std::string& JsonPart::text(const char* key, std::string_view where) const {
  const JsonPart found = required(key, where);
  if (!found.is_text()) refuse(cat("\"", key, "\" of ", where, " is no string"));
  return found.as_text();
}

JsonPart JsonPart::list(const char* key, std::string_view where) const {
  const JsonPart found = required(key, where);
  if (!found.is_list()) refuse(cat("\"", key, "\" of ", where, " is no list"));
  return found;
}

bool JsonPart::flag(const char* key, bool otherwise) const {
  const JsonPart found = member(key);
  if (found.is_null()) return otherwise;
  const json& value = value_at(found.value_);
  if (!value.is_boolean()) refuse(cat("\"", key, "\" is neither true nor false"));
  return value.get<bool>();
}

// Lists and objects are not spelled out: writing what is nested without end would take a stack
// without end.
std::string JsonPart::shown() const {
  if (is_list()) return "a list";
  if (is_object()) return "an object";
  return value_at(value_).dump();
}

void JsonPart::refuse(std::string_view why) const { fail_data(cat(*file_, ": ", why)); }

}  // namespace shoestring
