#include "launcher/config_path.h"

#include <charconv>

#include "core/text.h"

namespace shoestring {
namespace {

// Takes the first part off `rest`; returns false when nothing is left.
bool next_part(std::string_view& rest, bool& more, std::string& part) {
  if (!more) return false;
  size_t dot = rest.find('.');
  part = rest.substr(0, dot);
  more = dot != std::string_view::npos;
  rest.remove_prefix(more ? dot + 1 : rest.size());
  return true;
}

// The element's number, when there is such an element.
std::optional<size_t> element_number(const std::string& part, size_t size) {
  size_t number = 0;
  const char* end = part.data() + part.size();
  auto [stop, error] = std::from_chars(part.data(), end, number);
  if (error != std::errc() || stop != end || number >= size) return std::nullopt;
  return number;
}

}  // namespace

std::optional<FieldTarget> find_key(const FieldList& root, std::string_view key,
                                    const std::string& position, ConfigComplaints& complaints) {
  FieldTarget target{.key = "", .node = {.name = "", .field = {.help = ""}, .content = root}};
  std::string part;
  bool more = true;
  while (next_part(key, more, part)) {
    if (const auto* list = std::get_if<FieldList>(&target.node.content)) {
      const FieldNode* child = find_node(*list, part);
      if (child == nullptr) {
        complaints.add_unknown(root, *list, target.key, part, position);
        return std::nullopt;
      }
      FieldNode found = *child;  // the assignment below ends the life of the list it came from
      target.node = std::move(found);
    } else if (const auto* array = std::get_if<TableArray>(&target.node.content)) {
      auto number = element_number(part, array->size());
      if (!number) {
        complaints.add(position, target.key,
                       cat(target.key, " has no element '", part, "': it has ", array->size(),
                           ", counted from 0"));
        return std::nullopt;
      }
      FieldList element = array->at(*number);
      target.node.content = std::move(element);
    } else {
      complaints.add(position, target.key,
                     cat(target.key, " is a value, not a section: it has no '", part, "'"));
      return std::nullopt;
    }
    target.key = join_key(target.key, part);
  }
  return target;
}

}  // namespace shoestring
