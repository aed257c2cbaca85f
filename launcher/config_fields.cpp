#include "launcher/config_fields.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <type_traits>

#include "core/text.h"

namespace shoestring {
namespace {

template <class T>
struct ScalarText;
template <>
struct ScalarText<bool> {
  static constexpr std::string_view one = "true or false", many = "list of true or false";
  static std::string toml(bool x) { return x ? "true" : "false"; }
};
template <>
struct ScalarText<int64_t> {
  static constexpr std::string_view one = "whole number", many = "list of whole numbers";
  static std::string toml(int64_t x) { return cat(x); }
};
template <>
struct ScalarText<double> {
  static constexpr std::string_view one = "number", many = "list of numbers";
  static std::string toml(double x) { return toml_number(x); }
};
template <>
struct ScalarText<std::string> {
  static constexpr std::string_view one = "text", many = "list of texts";
  static std::string toml(const std::string& x) { return toml_string(x); }
};

template <class T>
std::string_view type_name(const T*) {
  return ScalarText<T>::one;
}
template <class T>
std::string_view type_name(const std::vector<T>*) {
  return ScalarText<T>::many;
}
template <class T>
std::string_view type_name(const std::optional<T>*) {
  return ScalarText<T>::one;
}

template <class T>
std::string value_of(const T* x) {
  return ScalarText<T>::toml(*x);
}
template <class T>
std::string value_of(const std::optional<T>* x) {
  return *x ? ScalarText<T>::toml(**x) : "";
}
template <class T>
std::string value_of(const std::vector<T>* x) {
  std::string text = "[";
  for (const T& element : *x) {
    append(text, text.size() > 1 ? ", " : "", ScalarText<T>::toml(element));
  }
  return text + "]";
}

template <class T>
constexpr bool optional_pointer(const T*) {
  return false;
}
template <class T>
constexpr bool optional_pointer(const std::optional<T>*) {
  return true;
}

// 3 and not 3.0, 1000000 and not 1e+06: for people.
std::string plain_number(double x) {
  if (x == std::floor(x) && std::fabs(x) < 1e15) return cat(static_cast<int64_t>(x));
  return toml_number(x);
}

}  // namespace

std::string join_key(std::string_view section, std::string_view name) {
  return cat(section, section.empty() || name.empty() ? "" : ".", name);
}

const FieldNode* find_node(const FieldList& list, std::string_view name) {
  for (const FieldNode& node : list.nodes) {
    if (node.name == name) return &node;
  }
  return nullptr;
}

std::vector<std::string> names_of(const FieldList& list) {
  std::vector<std::string> names;
  for (const FieldNode& node : list.nodes) names.push_back(node.name);
  return names;
}

std::string type_text(const FieldPointer& pointer) {
  return std::string(std::visit([](auto* p) { return type_name(p); }, pointer));
}

bool is_optional(const FieldPointer& pointer) {
  return std::visit([](auto* p) { return optional_pointer(p); }, pointer);
}

std::string toml_value(const FieldPointer& pointer) {
  return std::visit([](auto* p) { return value_of(p); }, pointer);
}

std::string toml_number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  std::string text(buffer, end);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string toml_string(std::string_view text) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string result = "\"";
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      result += "\\u00";
      result += digits[byte >> 4];
      result += digits[byte & 15];
    } else {
      result += c;
    }
  }
  return result + "\"";
}

std::vector<std::string> choices_of(const Field& field) {
  std::vector<std::string> choices;
  std::string_view rest = field.choices;
  while (!rest.empty()) {
    size_t bar = rest.find('|');
    choices.emplace_back(rest.substr(0, bar));
    rest.remove_prefix(bar == std::string_view::npos ? rest.size() : bar + 1);
  }
  return choices;
}

std::string range_text(const Field& field) {
  std::string text;
  for (const std::string& choice : choices_of(field)) {
    append(text, text.empty() ? "one of " : ", ", choice);
  }
  if (!text.empty()) return text;
  bool low = std::isfinite(field.min), high = std::isfinite(field.max);
  if (low && high) return cat("from ", plain_number(field.min), " to ", plain_number(field.max));
  if (low) return cat("at least ", plain_number(field.min));
  if (high) return cat("at most ", plain_number(field.max));
  return "";
}

}  // namespace shoestring
