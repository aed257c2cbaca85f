#include "launcher/config.h"

#include <algorithm>
#include <map>

#include "core/text.h"
#include "launcher/config_complaints.h"
#include "launcher/config_toml.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace shoestring {
namespace {

using FlatValues = std::map<std::string, std::string>;

void flatten(const FieldList& list, const std::string& section, FlatValues& values) {
  for (const FieldNode& node : list.nodes) {
    std::string key = join_key(section, node.name);
    if (const auto* pointer = std::get_if<FieldPointer>(&node.content)) {
      if (std::string value = toml_value(*pointer); !value.empty()) values[key] = value;
    } else if (const auto* child = std::get_if<FieldList>(&node.content)) {
      flatten(*child, key, values);
    } else {
      const auto& array = std::get<TableArray>(node.content);
      for (size_t i = 0; i < array.size(); ++i) flatten(array.at(i), cat(key, ".", i), values);
    }
  }
}

// Help text as comment lines of at most 100 columns.
void write_comment(std::string& out, const Field& field) {
  std::string text(field.help);
  if (!field.unit.empty()) append(text, " [", field.unit, "]");
  if (std::string range = range_text(field); !range.empty()) append(text, "; ", range);
  if (text.empty()) return;
  constexpr size_t columns = 98;
  std::string_view rest = text;
  while (rest.size() > columns) {
    size_t at = rest.rfind(' ', columns);
    if (at == std::string_view::npos) break;
    append(out, "# ", rest.substr(0, at), "\n");
    rest.remove_prefix(at + 1);
  }
  append(out, "# ", rest, "\n");
}

class Dumper {
 public:
  explicit Dumper(bool comments) : comments_(comments) {}

  // TOML wants a table's own values before its sub-tables.
  void write(const FieldList& list, const FieldList& defaults, const std::string& section) {
    for (const FieldNode& node : list.nodes) write_value(node, *find_node(defaults, node.name));
    for (const FieldNode& node : list.nodes) {
      std::string key = join_key(section, node.name);
      if (const auto* child = std::get_if<FieldList>(&node.content)) {
        write_header(node, cat("[", key, "]"));
        write(*child, std::get<FieldList>(find_node(defaults, node.name)->content), key);
      } else if (const auto* array = std::get_if<TableArray>(&node.content)) {
        for (size_t i = 0; i < array->size(); ++i) {
          write_header(node, cat("[[", key, "]]"));
          write(array->at(i), array->prototype(), key);
        }
        if (comments_ && array->size() == 0) write_example(node, *array, key);
      }
    }
  }
  std::string take() { return std::move(out_); }

 private:
  void write_value(const FieldNode& node, const FieldNode& initial) {
    if (const auto* array = std::get_if<TableArray>(&node.content)) {
      // Said aloud only against a default with elements: whoever adds a table to the dump would
      // define the array a second time, which TOML forbids.
      const bool said = array->size() == 0 && std::get<TableArray>(initial.content).size() > 0;
      if (said) append(out_, node.name, " = []\n");
      return;
    }
    const auto* pointer = std::get_if<FieldPointer>(&node.content);
    if (pointer == nullptr) return;
    std::string value = toml_value(*pointer);
    if (comments_) write_comment(out_, node.field);
    if (value.empty()) value = toml_string("none");
    append(out_, node.name, " = ", value, "\n");
  }

  void write_header(const FieldNode& node, const std::string& header) {
    if (!out_.empty()) out_ += "\n";
    if (comments_) write_comment(out_, node.field);
    append(out_, header, "\n");
  }

  // What an element would look like, as a comment.
  void write_example(const FieldNode& node, const TableArray& array, const std::string& key) {
    write_header(node, cat("# [[", key, "]]"));
    const FieldList element = array.prototype();
    Dumper dumper(false);
    dumper.write(element, element, key);
    std::string_view rest = dumper.out_;
    while (!rest.empty()) {
      const size_t end = rest.find('\n');
      append(out_, end == 0 ? "#" : "# ", rest.substr(0, end), "\n");
      rest.remove_prefix(end + 1);
    }
  }

  bool comments_;
  std::string out_;
};

}  // namespace

KeyPositions read_fields(const FieldList& fields, const ConfigSource& source) {
  ConfigComplaints complaints;
  TomlReader reader(fields, complaints);
  if (!source.file.empty()) {
    complaints.was_set("", source.file);
    reader.read_file(source.file);
  }
  int number = 0;
  for (const std::string& assignment : source.overrides) {
    reader.read_override(assignment, ++number);
  }
  complaints.validate(fields);
  complaints.throw_if_any();
  return complaints.positions();
}

void parse_fields(const FieldList& fields, std::string_view text, const std::string& name) {
  ConfigComplaints complaints;
  TomlReader(fields, complaints).read_text(text, name);
  complaints.validate(fields);
  complaints.throw_if_any();
}

std::vector<std::string> flat_fields(const FieldList& fields) {
  FlatValues values;
  flatten(fields, "", values);
  std::vector<std::string> lines;
  for (const auto& [key, value] : values) lines.push_back(cat(key, " = ", value));
  return lines;
}

std::string dump_fields(const FieldList& fields, const FieldList& defaults, bool comments) {
  Dumper dumper(comments);
  dumper.write(fields, defaults, "");
  return dumper.take();
}

std::string hash_fields(const FieldList& fields) {
  std::string text;
  for (const std::string& line : flat_fields(fields)) append(text, line, "\n");
  return cat(absl::Hex(XXH3_64bits(text.data(), text.size()), absl::kZeroPad16));
}

std::vector<ConfigDifference> diff_fields(const FieldList& left, const FieldList& right) {
  FlatValues a, b;
  flatten(left, "", a);
  flatten(right, "", b);
  std::vector<ConfigDifference> differences;
  for (const auto& [key, value] : a) {
    auto other = b.find(key);
    std::string there = other == b.end() ? "" : other->second;
    if (there != value) differences.push_back({.key = key, .left = value, .right = there});
  }
  for (const auto& [key, value] : b) {
    if (!a.contains(key)) differences.push_back({.key = key, .left = "", .right = value});
  }
  std::sort(differences.begin(), differences.end(),
            [](const auto& x, const auto& y) { return x.key < y.key; });
  return differences;
}

}  // namespace shoestring
