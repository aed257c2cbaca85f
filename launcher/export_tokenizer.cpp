#include "launcher/export_tokenizer.h"

#include <filesystem>
#include <optional>

#include "core/check.h"
#include "core/log.h"
#include "core/text.h"
#include "io/durable_file.h"
#include "io/hugging_face/config_keys.h"
#include "io/hugging_face/save.h"
#include "io/json_check.h"
#include "io/tokenizer/tokenizer.h"
#include "io/tokenizer/tokenizer_data.h"
#include "io/tokenizer/write_json.h"
#include "launcher/saving.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr uint64_t file_limit = uint64_t{1} << 28;

std::optional<std::string> text_of(const fs::path& path) {
  if (!fs::is_regular_file(path)) return std::nullopt;
  return read_small_file(path.string(), file_limit);
}

std::string generation_path(const std::string& folder) {
  return (fs::path(folder) / "generation_config.json").string();
}

std::optional<Tokenizer> try_load(const TokenizerExport& request) {
  try {
    return Tokenizer::load(request.path);
  } catch (const Error& error) {
    if (!request.own) throw;
    log_warning(cat("the tokenizer is passed on as it is, without a look into it: ", error.what()));
    return std::nullopt;
  }
}

Json fresh_config(const Tokenizer& tokenizer, int64_t positions) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"model_max_length", positions},
                 {"clean_up_tokenization_spaces", false}};
  auto put = [&](const char* key, std::optional<int32_t> id) {
    if (id) config[key] = std::string(tokenizer.id_to_bytes(*id));
  };
  put("bos_token", tokenizer.bos_id());
  const auto end = tokenizer.eos_id();
  put("eos_token", end ? end : tokenizer.end_of_text_id());
  for (const AddedToken& token : tokenizer.data().added) {
    config["added_tokens_decoder"][cat(token.id)] = {
        {"content", token.content},         {"lstrip", token.lstrip},
        {"normalized", token.normalized},   {"rstrip", token.rstrip},
        {"single_word", token.single_word}, {"special", token.special}};
  }
  return config;
}

// The name that transformers 5 writes is refused by version 4; both know the general one.
Json known_config(const std::string& text, const std::string& path) {
  check_json_object(text, path);
  Json config = Json::parse(text, nullptr, false);
  const auto at = config.find("tokenizer_class");
  if (at == config.end() || *at == "TokenizersBackend") {
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
  }
  return config;
}

TokenIds ids_of(const fs::path& beside, const std::optional<Tokenizer>& tokenizer) {
  TokenIds ids = generation_ids(beside.string());
  if (!tokenizer) return ids;
  const auto end = tokenizer->eos_id() ? tokenizer->eos_id() : tokenizer->end_of_text_id();
  if (ids.begin.empty() && tokenizer->bos_id()) ids.begin = {*tokenizer->bos_id()};
  if (ids.end.empty() && end) ids.end = {*end};
  return ids;
}

}  // namespace

std::string generation_text(const std::string& folder) {
  const std::string path = generation_path(folder);
  const std::optional<std::string> text = text_of(path);
  if (text) check_json_object(*text, path);
  return text.value_or("");
}

TokenIds generation_ids(const std::string& folder) {
  const std::string text = generation_text(folder);
  if (text.empty()) return {};
  const ConfigKeys keys(text, generation_path(folder));
  return {.begin = keys.wholes("bos_token_id", {0, INT32_MAX}),
          .end = keys.wholes("eos_token_id", {0, INT32_MAX})};
}

TokenIds export_tokenizer(const TokenizerExport& request) {
  const fs::path given = request.path;
  const bool folder = fs::is_directory(given);
  const fs::path file = folder ? given / "tokenizer.json" : given;
  const fs::path beside = folder ? given : given.parent_path();
  const std::optional<Tokenizer> tokenizer = try_load(request);
  if (tokenizer) {
    require_same_tokenizer({.checkpoint = "the model",
                            .trained = request.trained_hash,
                            .other = request.path,
                            .hash = tokenizer->hash(),
                            .remedy = "name the one it was trained with: --tokenizer PATH"});
  }
  const bool json = file.extension() == ".json" || !tokenizer;
  write_text_file(request.folder + "/tokenizer.json",
                  json ? read_small_file(file.string(), file_limit) : tokenizer_json(*tokenizer));
  const fs::path config = beside / "tokenizer_config.json";
  const auto known = file.filename() == "tokenizer.json" ? text_of(config) : std::nullopt;
  if (known || tokenizer) {
    const Json text =
        known ? known_config(*known, config.string()) : fresh_config(*tokenizer, request.positions);
    write_text_file(request.folder + "/tokenizer_config.json", text.dump(2) + "\n");
  }
  for (const char* name : {"chat_template.jinja", "special_tokens_map.json", "tokenizer.model"}) {
    if (const auto text = text_of(beside / name)) {
      write_text_file(cat(request.folder, "/", name), *text);
    }
  }
  return ids_of(beside, tokenizer);
}

}  // namespace shoestring
