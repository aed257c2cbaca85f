#include "launcher/text_borders.h"

#include <filesystem>

#include "core/check.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "launcher/export_tokenizer.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr uint64_t file_limit = uint64_t{1} << 30;

// Null where it is missing.
Json member(const Json& object, const std::string& key) {
  const auto at = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && at != object.end() ? *at : Json();
}

std::vector<Json> list_of(const Json& object, const std::string& key) {
  const Json list = member(object, key);
  return list.is_array() ? list.get<std::vector<Json>>() : std::vector<Json>();
}

// Null when there is none; a Sequence holds it among others.
Json template_of(const Json& processor) {
  if (member(processor, "type") == "TemplateProcessing") return processor;
  for (const Json& inner : list_of(processor, "processors")) {
    if (member(inner, "type") == "TemplateProcessing") return inner;
  }
  return {};
}

struct TemplateReader {
  std::string path;
  const Tokenizer& tokenizer;

  [[noreturn]] void refuse(const std::string& why) const {
    fail_data(cat(path, ": in the TemplateProcessing of \"post_processor\" ", why));
  }
  // The ids that the template lists for the token, else that of the token itself.
  void add(const Json& known, const std::string& token, std::vector<int32_t>& ids) const {
    std::vector<Json> listed = list_of(member(known, token), "ids");
    if (listed.empty()) {
      const auto own = tokenizer.token_to_id(token);
      if (!own) refuse(cat("\"", token, "\" is no token"));
      listed.emplace_back(*own);
    }
    for (const Json& id : listed) {
      const int64_t value = id.is_number_integer() ? id.get<int64_t>() : -1;
      if (value < 0 || value > INT32_MAX || !tokenizer.has_id(static_cast<int32_t>(value))) {
        refuse(cat("the id ", id.dump(), " of \"", token, "\" is none of this tokenizer"));
      }
      ids.push_back(static_cast<int32_t>(value));
    }
  }
};

}  // namespace

std::vector<int32_t> ids_before_text(const std::string& path, const Tokenizer& tokenizer) {
  const fs::path file = fs::is_directory(path) ? fs::path(path) / "tokenizer.json" : fs::path(path);
  if (file.extension() != ".json") return {};
  const Json root = Json::parse(read_small_file(file.string(), file_limit), nullptr, false);
  const Json found = template_of(member(root, "post_processor"));
  const TemplateReader reader{.path = file.string(), .tokenizer = tokenizer};
  std::vector<int32_t> ids;
  for (const Json& piece : list_of(found, "single")) {
    if (!member(piece, "Sequence").is_null()) break;
    const Json token = member(member(piece, "SpecialToken"), "id");
    if (token.is_string()) {
      reader.add(member(found, "special_tokens"), token.get_ref<const std::string&>(), ids);
    }
  }
  return ids;
}

TextBorders text_borders(const LoadedModel& loaded) {
  TextBorders borders{.begin = ids_before_text(loaded.tokenizer_path, loaded.need_tokenizer()),
                      .end = loaded.end_ids};
  const TokenIds beside = generation_ids(loaded.home);
  borders.end.insert(borders.end.end(), beside.end.begin(), beside.end.end());
  return borders;
}

}  // namespace shoestring
