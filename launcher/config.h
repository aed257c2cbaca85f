#pragma once
// Typed configs: TOML text and --set overrides in; a resolved dump, a hash, differences, a JSON
// schema and a reference page out. All of it follows from visit() (core/fields.h).
//
//   include = ["../models/tiny.toml"]   # first; paths are relative to this file, later ones win
//   [train]
//   steps = 100
//
// A file's own keys win over its includes, --set wins over files. An array of tables is replaced
// as a whole. Whole numbers may be written 3e9. "none" clears an optional value.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "launcher/config_fields.h"

namespace shoestring {

struct ConfigSource {
  std::string file;                    // path; empty: defaults and overrides only
  std::vector<std::string> overrides;  // "train.steps=10", "stages.0.tokens=1e6"
};

// Fills the fields from the source, checks types, ranges, choices and validate(), and throws one
// usage error with every complaint, each with its position: "a.toml:3:9: ..." or "--set #2: ...".
// Returns where each key was set.
KeyPositions read_fields(const FieldList& fields, const ConfigSource& source);
// The same for text that is already in memory; includes are relative to the folder of `name`.
void parse_fields(const FieldList& fields, std::string_view text, const std::string& name);

// One "key = value" a set field, without sections: the canonical form, sorted by key.
std::vector<std::string> flat_fields(const FieldList& fields);
// TOML that reads back to the same values; with comments, each field's help stands above it. Arrays
// of tables that are empty, as in `defaults`, are left out: in their place stands an example, as a
// comment.
std::string dump_fields(const FieldList& fields, const FieldList& defaults, bool comments);
// 16 hexadecimal digits of XXH3 over the canonical form.
std::string hash_fields(const FieldList& fields);

struct ConfigDifference {
  std::string key, left, right;  // values as TOML; "" where one side has none
};
std::vector<ConfigDifference> diff_fields(const FieldList& left, const FieldList& right);

// JSON Schema (draft 2020-12): editors complete and check TOML files with it.
std::string schema_of_fields(const FieldList& fields, std::string_view title);
// Markdown: one table a section, with type, default, unit, range and help.
std::string reference_of_fields(const FieldList& fields);

// A config with a member KeyPositions set_at keeps there where each key was set.
template <Section T>
void keep_positions(T& config, KeyPositions positions) {
  if constexpr (requires { config.set_at = std::move(positions); }) {
    config.set_at = std::move(positions);
  }
}

template <Section T>
T read_config(const ConfigSource& source) {
  T config;
  keep_positions(config, read_fields(fields_of(config), source));
  return config;
}

// With rules of a command beside the config's own: rules(config, complaints).
template <Section T, class Rules>
T read_config(const ConfigSource& source, Rules rules) {
  T config;
  FieldList fields = fields_of(config);
  fields.validate = [&config, rules, own = fields.validate](Complaints& c) {
    if (own) own(c);
    rules(std::as_const(config), c);
  };
  keep_positions(config, read_fields(fields, source));
  return config;
}

template <Section T>
T parse_config(std::string_view text, const std::string& name) {
  T config;
  parse_fields(fields_of(config), text, name);
  return config;
}

// The functions below take configs by value because visit() is not const.
template <Section T>
std::string dump_config(T config, bool comments = false) {
  T defaults;
  return dump_fields(fields_of(config), fields_of(defaults), comments);
}

template <Section T>
std::string config_hash(T config) {
  return hash_fields(fields_of(config));
}

template <Section T>
std::vector<ConfigDifference> diff_configs(T left, T right) {
  return diff_fields(fields_of(left), fields_of(right));
}

template <Section T>
std::string config_schema(std::string_view title) {
  T config;
  return schema_of_fields(fields_of(config), title);
}

template <Section T>
std::string config_reference() {
  T config;
  return reference_of_fields(fields_of(config));
}

}  // namespace shoestring
