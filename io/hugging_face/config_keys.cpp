#include "io/hugging_face/config_keys.h"

#include <cmath>

#include "core/check.h"
#include "core/text.h"
#include "io/json_check.h"
#include "nlohmann/json.hpp"

namespace shoestring {

using Json = nlohmann::json;

struct ConfigKeys::State {
  std::shared_ptr<const Json> root;  // keeps `object` alive
  const Json* object = nullptr;
  std::string path, prefix;

  // Null when it is missing.
  const Json& find(std::string_view key) const {
    static const Json nothing;
    const auto at = object->find(std::string(key));
    return at == object->end() ? nothing : *at;
  }
};

namespace {

// Long values are cut: a message is for people.
std::string shown(const Json& value) {
  constexpr size_t longest = 80;
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > longest) text = text.substr(0, longest) + "...";
  return text;
}

}  // namespace

ConfigKeys::ConfigKeys(std::string_view json, const std::string& path) {
  check_json_object(json, path);
  auto root = std::make_shared<const Json>(Json::parse(json.begin(), json.end(), nullptr, false));
  const Json* object = root.get();
  state_ = std::make_shared<const State>(
      State{.root = std::move(root), .object = object, .path = path, .prefix = ""});
}

const std::string& ConfigKeys::path() const { return state_->path; }

bool ConfigKeys::has(std::string_view key) const { return !state_->find(key).is_null(); }

bool ConfigKeys::is_null(std::string_view key) const {
  return state_->object->contains(std::string(key)) && !has(key);
}

void ConfigKeys::refuse(std::string_view key, std::string_view why) const {
  const Json& value = state_->find(key);
  const std::string is = value.is_null() ? "is missing" : cat("is ", shown(value));
  fail_data(cat(state_->path, ": \"", state_->prefix, key, "\" ", is, ", ", why));
}

int64_t ConfigKeys::whole(std::string_view key, WholeRange range) const {
  const Json& value = state_->find(key);
  const std::string wanted =
      cat("but must be a whole number from ", range.least, " to ", range.most);
  if (!value.is_number_integer()) refuse(key, wanted);
  const bool huge = value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX};
  const int64_t number = huge ? INT64_MAX : value.get<int64_t>();
  if (huge || number < range.least || number > range.most) refuse(key, wanted);
  return number;
}

int64_t ConfigKeys::whole_or(std::string_view key, int64_t fallback, WholeRange range) const {
  return has(key) ? whole(key, range) : fallback;
}

double ConfigKeys::number(std::string_view key) const {
  const Json& value = state_->find(key);
  if (!value.is_number()) refuse(key, "but must be a number");
  const double number = value.get<double>();
  if (!std::isfinite(number)) refuse(key, "but must be a finite number");
  return number;
}

double ConfigKeys::number_or(std::string_view key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool ConfigKeys::flag_or(std::string_view key, bool fallback) const {
  if (!has(key)) return fallback;
  const Json& value = state_->find(key);
  if (!value.is_boolean()) refuse(key, "but must be true or false");
  return value.get<bool>();
}

std::string ConfigKeys::text_or(std::string_view key, const std::string& fallback) const {
  if (!has(key)) return fallback;
  const Json& value = state_->find(key);
  if (!value.is_string()) refuse(key, "but must be a text");
  return value.get<std::string>();
}

std::vector<int64_t> ConfigKeys::wholes(std::string_view key, WholeRange range) const {
  const Json& value = state_->find(key);
  if (value.is_null()) return {};
  if (!value.is_array()) return {whole(key, range)};
  std::vector<int64_t> list;
  for (const Json& item : value) {
    const bool fits = item.is_number_integer() && item >= range.least && item <= range.most;
    if (!fits) {
      refuse(key, cat("but must hold whole numbers from ", range.least, " to ", range.most));
    }
    list.push_back(item.get<int64_t>());
  }
  return list;
}

std::vector<std::string> ConfigKeys::texts(std::string_view key) const {
  const Json& value = state_->find(key);
  if (value.is_null()) return {};
  if (value.is_string()) return {value.get<std::string>()};
  std::vector<std::string> list;
  if (!value.is_array()) refuse(key, "but must be a list of texts");
  for (const Json& item : value) {
    if (!item.is_string()) refuse(key, "but must be a list of texts");
    list.push_back(item.get<std::string>());
  }
  return list;
}

ConfigKeys ConfigKeys::object(std::string_view key) const {
  const Json& value = state_->find(key);
  if (!value.is_object()) refuse(key, "but must be an object");
  return ConfigKeys(std::make_shared<const State>(State{.root = state_->root,
                                                        .object = &value,
                                                        .path = state_->path,
                                                        .prefix = cat(state_->prefix, key, ".")}));
}

}  // namespace shoestring
