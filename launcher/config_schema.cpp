// JSON Schema from fields.

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "launcher/config.h"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

Json scalar_schema(const bool&) { return {{"type", "boolean"}}; }
Json scalar_schema(const int64_t&) { return {{"type", "integer"}}; }
Json scalar_schema(const double&) { return {{"type", "number"}}; }
Json scalar_schema(const std::string&) { return {{"type", "string"}}; }

Json bound(double x) {
  if (std::floor(x) == x && std::fabs(x) < 9e15) return static_cast<int64_t>(x);
  return x;
}

template <class T>
Json limited(const T& value, const Field& field) {
  Json schema = scalar_schema(value);
  if (std::isfinite(field.min)) schema["minimum"] = bound(field.min);
  if (std::isfinite(field.max)) schema["maximum"] = bound(field.max);
  if (auto choices = choices_of(field); !choices.empty()) schema["enum"] = choices;
  return schema;
}

template <class T>
Json value_schema(const T* value, const Field& field) {
  Json schema = limited(*value, field);
  // JSON has no infinity; a default of inf is left out.
  if constexpr (std::is_same_v<T, double>) {
    if (!std::isfinite(*value)) return schema;
  }
  schema["default"] = *value;
  return schema;
}

template <class T>
Json value_schema(const std::optional<T>*, const Field& field) {
  Json none = {{"const", "none"}};
  return {{"anyOf", Json::array({limited(T{}, field), none})}};
}

template <class T>
Json value_schema(const std::vector<T>* value, const Field& field) {
  return {{"type", "array"}, {"items", limited(T{}, field)}, {"default", *value}};
}

Json node_schema(const FieldNode& node);

Json list_schema(const FieldList& list) {
  Json properties = Json::object();
  for (const FieldNode& node : list.nodes) properties[node.name] = node_schema(node);
  return {{"type", "object"}, {"additionalProperties", false}, {"properties", properties}};
}

Json node_schema(const FieldNode& node) {
  Json schema;
  if (const auto* pointer = std::get_if<FieldPointer>(&node.content)) {
    schema = std::visit([&](auto* p) { return value_schema(p, node.field); }, *pointer);
  } else if (const auto* list = std::get_if<FieldList>(&node.content)) {
    schema = list_schema(*list);
  } else {
    const auto& array = std::get<TableArray>(node.content);
    schema = {{"type", "array"}, {"items", list_schema(array.prototype())}};
  }
  std::string text(node.field.help);
  if (!node.field.unit.empty()) text += " [" + std::string(node.field.unit) + "]";
  if (!text.empty()) schema["description"] = text;
  return schema;
}

}  // namespace

std::string schema_of_fields(const FieldList& fields, std::string_view title) {
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", title}};
  schema.update(list_schema(fields));
  Json path = {{"type", "string"}};
  schema["properties"]["include"] = {
      {"description", "configs read before this one, relative to this file; later ones win"},
      {"anyOf", Json::array({path, {{"type", "array"}, {"items", path}}})}};
  return schema.dump(2) + "\n";
}

}  // namespace shoestring
