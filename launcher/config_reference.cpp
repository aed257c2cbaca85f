// The reference page from fields.

#include "core/text.h"
#include "launcher/config.h"

namespace shoestring {
namespace {

// A '|' would end a table's cell.
std::string cell(std::string_view text) {
  std::string result;
  for (char c : text) {
    if (c == '|') result += '\\';
    result += c == '\n' ? ' ' : c;
  }
  return result;
}

std::string value_row(const FieldNode& node, const FieldPointer& pointer) {
  std::string value = toml_value(pointer);
  std::string type = type_text(pointer);
  if (is_optional(pointer)) append(type, " or \"none\"");
  if (value.empty()) value = "\"none\"";
  return cat("| `", node.name, "` | ", type, " | `", cell(value), "` | ", cell(node.field.unit),
             " | ", cell(range_text(node.field)), " | ", cell(node.field.help), " |\n");
}

void write_section(const FieldList& list, const std::string& title, std::string_view help,
                   std::string& out) {
  std::string rows;
  for (const FieldNode& node : list.nodes) {
    if (const auto* p = std::get_if<FieldPointer>(&node.content)) rows += value_row(node, *p);
  }
  if (!title.empty()) append(out, "## ", title, "\n\n");
  if (!help.empty()) append(out, help, "\n\n");
  if (!rows.empty()) {
    append(out, "| key | type | default | unit | allowed | meaning |\n|---|---|---|---|---|---|\n",
           rows, "\n");
  }
}

void write_tree(const FieldList& list, const std::string& section, std::string& out) {
  for (const FieldNode& node : list.nodes) {
    std::string key = join_key(section, node.name);
    if (const auto* child = std::get_if<FieldList>(&node.content)) {
      write_section(*child, cat("`[", key, "]`"), node.field.help, out);
      write_tree(*child, key, out);
    } else if (const auto* array = std::get_if<TableArray>(&node.content)) {
      FieldList element = array->prototype();
      std::string help = cat(node.field.help, ". An array of tables: each `[[", key,
                             "]]` adds one, and a later file replaces all of them.");
      write_section(element, cat("`[[", key, "]]`"), help, out);
      write_tree(element, key, out);
    }
  }
}

}  // namespace

std::string reference_of_fields(const FieldList& fields) {
  std::string out =
      "# Configuration\n\nEvery key, written by `shoestring config docs` from the program itself. "
      "A file may begin with `include = [\"../models/tiny.toml\"]`: those files are read first, "
      "relative to the file that names them, and later ones win. `--set section.key=value` wins "
      "over files. Whole numbers may be written `3e9`.\n\n";
  write_section(fields, "", "", out);
  write_tree(fields, "", out);
  out.pop_back();  // one newline at the end
  return out;
}

}  // namespace shoestring
