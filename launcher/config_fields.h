#pragma once
// A config struct as a list of named pointers: what remains of its type once visit() has run.
// Reader, writer, schema and reference work on this list, so each of them is ordinary code in a
// .cpp file, and a config struct costs only the few templates below.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/fields.h"

namespace shoestring {

// Where a field's value lives. The struct must outlive the list.
using FieldPointer =
    std::variant<bool*, int64_t*, double*, std::string*, std::vector<bool>*, std::vector<int64_t>*,
                 std::vector<double>*, std::vector<std::string>*, std::optional<bool>*,
                 std::optional<int64_t>*, std::optional<double>*, std::optional<std::string>*>;

struct FieldList;

// A std::vector of structs: an array of tables. Lists of elements are made when asked for, because
// append() moves the elements.
struct TableArray {
  std::function<size_t()> size;
  std::function<void()> clear;
  std::function<void()> append;
  std::function<FieldList(size_t)> at;
  std::function<FieldList()> prototype;  // a default element, owned by the returned list
};

struct FieldNode;

struct FieldList {
  std::vector<FieldNode> nodes;
  std::function<void(Complaints&)> validate;  // empty: the struct has no rules between fields
  std::shared_ptr<void> owner;                // what the pointers point into, when nobody else does
};

struct FieldNode {
  std::string name;
  Field field;
  std::variant<FieldPointer, FieldList, TableArray> content;
};

template <class T>
struct FieldVectorOf {};
template <class E>
struct FieldVectorOf<std::vector<E>> {
  using Element = E;
};
template <class T>
concept SectionVector = requires {
  typename FieldVectorOf<T>::Element;
}
&&Section<typename FieldVectorOf<T>::Element>;

template <Section T>
FieldList fields_of(T& config);

template <class E>
TableArray table_array(std::vector<E>& items) {
  return {.size = [&items] { return items.size(); },
          .clear = [&items] { items.clear(); },
          .append = [&items] { items.emplace_back(); },
          .at = [&items](size_t i) { return fields_of(items.at(i)); },
          .prototype =
              [] {
                auto element = std::make_shared<E>();
                FieldList list = fields_of(*element);
                list.owner = element;
                return list;
              }};
}

// The visitor that collects a struct's fields.
struct FieldCollector {
  FieldList list;

  template <class T>
  void operator()(std::string_view name, T& member, const Field& field) {
    FieldNode node{.name = std::string(name), .field = field, .content = {}};
    if constexpr (Section<T>) {
      node.content = fields_of(member);
    } else if constexpr (SectionVector<T>) {
      node.content = table_array(member);
    } else {
      static_assert(std::is_constructible_v<FieldPointer, T*>,
                    "a config field is a bool, int64_t, double, std::string, a std::vector or "
                    "std::optional of these, a struct with visit(), or a std::vector of those");
      node.content = FieldPointer(&member);
    }
    list.nodes.push_back(std::move(node));
  }
};

template <Section T>
FieldList fields_of(T& config) {
  FieldCollector collector;
  config.visit(collector);
  if constexpr (Validated<T>) {
    collector.list.validate = [&config](Complaints& c) { std::as_const(config).validate(c); };
  }
  return std::move(collector.list);
}

// Where each key was set last: "a.toml:3:9" or "--set #2".
using KeyPositions = std::map<std::string, std::string>;

// "train.steps"; either part may be empty.
std::string join_key(std::string_view section, std::string_view name);

const FieldNode* find_node(const FieldList& list, std::string_view name);
std::vector<std::string> names_of(const FieldList& list);

// "whole number", "list of texts", ...: what the reference page and the complaints call a type.
std::string type_text(const FieldPointer& pointer);
bool is_optional(const FieldPointer& pointer);

// The value as TOML that reads back to the same bits; "" for an optional without a value.
std::string toml_value(const FieldPointer& pointer);
std::string toml_string(std::string_view text);
// The shortest decimal text that reads back to the same double, always with '.', 'e', inf or nan.
std::string toml_number(double value);

// "at least 1", "from 0 to 1", "one of adamw, muon"; "" when everything is allowed.
std::string range_text(const Field& field);
std::vector<std::string> choices_of(const Field& field);

}  // namespace shoestring
