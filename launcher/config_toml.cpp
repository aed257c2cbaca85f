#include "launcher/config_toml.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/nearest_name.h"
#include "core/text.h"
#include "launcher/config_path.h"

// Some broken texts trip assertions inside toml++ (or undefined behaviour, without assertions):
// they become exceptions. No other file includes toml++.
namespace shoestring {
struct ParserTripped {};
[[noreturn]] static void parser_tripped() { throw ParserTripped(); }
}  // namespace shoestring
#undef NDEBUG
#define TOML_ASSERT(condition) ((condition) ? void() : shoestring::parser_tripped())
#include <toml++/toml.h>

namespace shoestring {
namespace {

std::string node_text(const toml::node& node) {
  if (const auto* text = node.as_string()) return toml_string(text->get());
  if (const auto* integer = node.as_integer()) return cat(integer->get());
  if (const auto* number = node.as_floating_point()) return toml_number(number->get());
  if (const auto* boolean = node.as_boolean()) return boolean->get() ? "true" : "false";
  if (node.is_array()) return "a list";
  if (node.is_table()) return "a table";
  return "a date or time";
}

struct Entry {
  const toml::key* key;
  const toml::node* value;
};
// toml++ sorts by name; people read from top to bottom.
std::vector<Entry> in_file_order(const toml::table& table) {
  std::vector<Entry> entries;
  for (auto&& [key, value] : table) entries.push_back({&key, &value});
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.key->source().begin < b.key->source().begin;
  });
  return entries;
}

// Puts one parsed document into fields. Positions come from the document, or are all the same for
// an override.
class Assigner {
 public:
  Assigner(const FieldList& root, ConfigComplaints& complaints, std::string file, bool fixed)
      : root_(root), complaints_(complaints), file_(std::move(file)), fixed_(fixed) {}

  std::string position(const toml::source_region& source) const {
    return fixed_ ? file_ : cat(file_, ":", source.begin.line, ":", source.begin.column);
  }

  void assign(const FieldList& list, const toml::table& table, const std::string& section) {
    for (const Entry& entry : in_file_order(table)) {
      std::string_view name = entry.key->str();
      if (section.empty() && name == "include") continue;
      if (const FieldNode* node = find_node(list, name)) {
        assign(*node, *entry.value, join_key(section, node->name));
      } else {
        complaints_.add_unknown(root_, list, section, name, position(entry.key->source()));
      }
    }
  }

  void assign(const FieldNode& node, const toml::node& value, const std::string& key) {
    complaints_.was_set(key, position(value.source()));
    if (const auto* pointer = std::get_if<FieldPointer>(&node.content)) {
      std::visit([&](auto* target) { store(value, key, node.field, target); }, *pointer);
    } else if (const auto* child = std::get_if<FieldList>(&node.content)) {
      if (const auto* table = value.as_table()) return assign(*child, *table, key);
      complain(value, key, cat("a table ([", key, "])"));
    } else {
      assign(std::get<TableArray>(node.content), value, key);
    }
  }

 private:
  void assign(const TableArray& array, const toml::node& value, const std::string& key) {
    const auto* elements = value.as_array();
    if (elements == nullptr) return complain(value, key, cat("a list of tables ([[", key, "]])"));
    array.clear();
    for (size_t i = 0; i < elements->size(); ++i) array.append();
    for (size_t i = 0; i < elements->size(); ++i) {
      std::string element_key = cat(key, ".", i);
      const toml::node& element = *elements->get(i);
      complaints_.was_set(element_key, position(element.source()));
      if (const auto* table = element.as_table()) {
        assign(array.at(i), *table, element_key);
      } else {
        complain(element, element_key, "a table");
      }
    }
  }

  void complain(const toml::node& value, const std::string& key, std::string_view wanted) {
    complaints_.add(position(value.source()), key,
                    cat(key, " must be ", wanted, " but is ", node_text(value)));
  }

  // The scalar a node holds, when it has the right type.
  static bool take(const toml::node& value, bool& x) {
    if (!value.is_boolean()) return false;
    x = value.as_boolean()->get();
    return true;
  }
  static bool take(const toml::node& value, int64_t& x) {
    if (const auto* integer = value.as_integer()) {
      x = integer->get();
      return true;
    }
    // 3e9 is easier to read than 3000000000; 2^53 is the last double that names one integer.
    const auto* number = value.as_floating_point();
    if (number == nullptr || std::floor(number->get()) != number->get()) return false;
    if (std::fabs(number->get()) > 9007199254740992.0) return false;
    x = static_cast<int64_t>(number->get());
    return true;
  }
  static bool take(const toml::node& value, double& x) {
    if (const auto* integer = value.as_integer()) {
      x = static_cast<double>(integer->get());
      return true;
    }
    if (!value.is_floating_point() || std::isnan(value.as_floating_point()->get())) return false;
    x = value.as_floating_point()->get();
    return true;
  }
  static bool take(const toml::node& value, std::string& x) {
    if (!value.is_string()) return false;
    x = value.as_string()->get();
    return true;
  }

  static bool allowed(bool, const Field&) { return true; }
  static bool allowed(int64_t x, const Field& field) {
    return allowed(static_cast<double>(x), field);
  }
  static bool allowed(double x, const Field& field) { return x >= field.min && x <= field.max; }
  static bool allowed(const std::string& x, const Field& field) {
    std::vector<std::string> choices = choices_of(field);
    return choices.empty() || std::find(choices.begin(), choices.end(), x) != choices.end();
  }

  template <class T>
  void store(const toml::node& value, const std::string& key, const Field& field, T* target) {
    T x{};
    std::string type = type_text(FieldPointer(target));
    if (!take(value, x)) return complain(value, key, with_article(type));
    if (!allowed(x, field)) return complain_range(value, key, field);
    *target = std::move(x);
  }

  template <class T>
  void store(const toml::node& value, const std::string& key, const Field& field,
             std::optional<T>* target) {
    if (value.is_string() && value.as_string()->get() == "none") {
      target->reset();
      return;
    }
    T x{};
    if (!take(value, x)) {
      complain(value, key, cat(with_article(type_text(FieldPointer(target))), " or \"none\""));
    } else if (!allowed(x, field)) {
      complain_range(value, key, field);
    } else {
      *target = std::move(x);
    }
  }

  template <class T>
  void store(const toml::node& value, const std::string& key, const Field& field,
             std::vector<T>* target) {
    const auto* elements = value.as_array();
    if (elements == nullptr) {
      return complain(value, key, with_article(type_text(FieldPointer(target))));
    }
    std::vector<T> list;
    for (size_t i = 0; i < elements->size(); ++i) {
      T x{};
      const toml::node& element = *elements->get(i);
      std::string element_key = cat(key, ".", i);
      complaints_.was_set(element_key, position(element.source()));
      store(element, element_key, field, &x);
      list.push_back(std::move(x));
    }
    *target = std::move(list);
  }

  static std::string with_article(const std::string& type) {
    return type.starts_with("t") ? type : cat("a ", type);
  }

  void complain_range(const toml::node& value, const std::string& key, const Field& field) {
    std::string message = cat(key, " must be ", range_text(field), " but is ", node_text(value));
    if (const auto* text = value.as_string()) {
      std::string nearest = nearest_name(text->get(), choices_of(field));
      if (!nearest.empty()) append(message, "; did you mean \"", nearest, "\"?");
    }
    complaints_.add(position(value.source()), key, std::move(message));
  }

  const FieldList& root_;
  ConfigComplaints& complaints_;
  std::string file_;
  bool fixed_;
};

// The paths an `include` names, with their positions.
struct Include {
  std::string path, position;
};
std::vector<Include> includes_of(const toml::table& table, const Assigner& assigner,
                                 ConfigComplaints& complaints) {
  std::vector<Include> includes;
  const toml::node* node = table.get("include");
  if (node == nullptr) return includes;
  auto add = [&](const toml::node& value) {
    std::string position = assigner.position(value.source());
    if (const auto* path = value.as_string()) {
      includes.push_back({path->get(), position});
    } else {
      complaints.add(position, "include",
                     cat("include must be a path or a list of paths but is ", node_text(value)));
    }
  };
  if (const auto* list = node->as_array()) {
    for (size_t i = 0; i < list->size(); ++i) add(*list->get(i));
  } else {
    add(*node);
  }
  return includes;
}

// The value of an override as a document with the one key "value".
toml::table override_document(std::string_view text, bool wants_text) {
  try {
    toml::table document = toml::parse(cat("value = ", text));
    const toml::node* value = document.get("value");
    if (document.size() == 1 && (!wants_text || value->is_string())) return document;
  } catch (const toml::parse_error&) {
    // Not TOML: text without quotes.
  } catch (const ParserTripped&) {
    // The same.
  }
  return toml::table{{"value", std::string(text)}};
}

bool is_text(const FieldNode& node) {
  const auto* pointer = std::get_if<FieldPointer>(&node.content);
  return pointer != nullptr && (std::holds_alternative<std::string*>(*pointer) ||
                                std::holds_alternative<std::optional<std::string>*>(*pointer));
}

}  // namespace

void TomlReader::read_file(const std::string& path) { read_file(path, ""); }

void TomlReader::read_file(const std::string& path, const std::string& included_from) {
  std::error_code ignored;
  std::string canonical = std::filesystem::weakly_canonical(path, ignored).string();
  if (std::find(open_files_.begin(), open_files_.end(), canonical) != open_files_.end()) {
    complaints_.add(included_from, "include", cat("'", path, "' includes itself"));
    return;
  }
  if (std::filesystem::is_directory(path, ignored)) {
    complaints_.add(included_from, "", cat("cannot read '", path, "': it is a directory"));
    return;
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    complaints_.add(included_from, "", cat("cannot read '", path, "': ", std::strerror(errno)));
    return;
  }
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  open_files_.push_back(canonical);
  read_text(text, path);
  open_files_.pop_back();
}

void TomlReader::read_text(std::string_view text, const std::string& name) {
  toml::table document;
  try {
    document = toml::parse(text, name);
  } catch (const toml::parse_error& error) {
    const auto& begin = error.source().begin;
    complaints_.add(cat(name, ":", begin.line, ":", begin.column), "",
                    cat("not valid TOML: ", error.description()));
    return;
  } catch (const ParserTripped&) {
    complaints_.add(name, "", "not valid TOML: a value is missing or cut off");
    return;
  }
  Assigner assigner(root_, complaints_, name, false);
  for (const Include& include : includes_of(document, assigner, complaints_)) {
    auto folder = std::filesystem::path(name).parent_path();
    read_file((folder / include.path).lexically_normal().string(), include.position);
  }
  assigner.assign(root_, document, "");
}

void TomlReader::read_override(std::string_view assignment, int number) {
  std::string position = cat("--set #", number);
  size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    complaints_.add(position, "", cat("'", assignment, "' is not of the form section.key=value"));
    return;
  }
  auto target = find_key(root_, assignment.substr(0, equals), position, complaints_);
  if (!target) return;
  toml::table document = override_document(assignment.substr(equals + 1), is_text(target->node));
  Assigner assigner(root_, complaints_, position, true);
  assigner.assign(target->node, *document.get("value"), target->key);
}

}  // namespace shoestring
