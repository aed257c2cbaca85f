#include "launcher/data_inspect_command.h"

#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "io/token_store.h"
#include "io/tokenizer/tokenizer.h"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

int64_t text_bytes(const TokenStore& store) {
  int64_t sum = 0;
  for (int64_t d = 0; d < store.documents(); ++d) sum += store.document_bytes(d);
  return sum;
}

Json describe(const TokenStore& store, bool verified) {
  Json json{{"file", store.path()},
            {"tokens", store.tokens()},
            {"documents", store.documents()},
            {"text_bytes", text_bytes(store)},
            {"token_bytes", store.token_bytes()},
            {"vocabulary", store.facts().vocabulary},
            {"tokenizer_hash", store.facts().tokenizer_hash},
            {"end_of_document", store.facts().end_of_document},
            {"chunks", store.chunks()},
            {"verified", verified ? "all" : "index"}};
  json["provenance"] = Json::parse(store.facts().provenance, nullptr, false);
  return json;
}

std::string time_text(const Json& provenance) {
  if (!provenance.is_object() || !provenance.contains("created") ||
      !provenance["created"].is_number_integer()) {
    return "unknown";
  }
  const std::time_t time = provenance.at("created").get<int64_t>();
  std::tm parts{};
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&time, &parts));
  return text;
}

std::string as_text(const Json& json) {
  std::string text = cat(json.at("file").get<std::string>(), "\n");
  const auto line = [&](const char* name, const std::string& value) {
    char row[64];
    std::snprintf(row, sizeof row, "  %-16s ", name);
    append(text, row, value, "\n");
  };
  const double tokens = json.at("tokens").get<double>();
  line("tokens", cat(json.at("tokens").get<int64_t>(), " (", json.at("token_bytes").get<int>(),
                     " bytes each)"));
  line("documents", cat(json.at("documents").get<int64_t>()));
  line("text", cat(counted(json.at("text_bytes").get<int64_t>(), "byte"), ", ",
                   json.at("text_bytes").get<double>() / tokens, " a token"));
  line("vocabulary", cat(json.at("vocabulary").get<int64_t>()));
  line("tokenizer", json.at("tokenizer_hash").get<std::string>());
  line("document end", cat(json.at("end_of_document").get<int>()));
  const Json& provenance = json.at("provenance");
  line("packed", time_text(provenance));
  if (provenance.is_object() && provenance.contains("inputs")) {
    const Json& inputs = provenance.at("inputs");
    for (size_t i = 0; i < inputs.size() && i < 10; ++i) {
      line(i == 0 ? "inputs" : "",
           cat(inputs[i].at("path").get<std::string>(), " (",
               counted(inputs[i].at("documents").get<int64_t>(), "document"), ")"));
    }
    if (inputs.size() > 10) line("", cat("and ", inputs.size() - 10, " more (--json lists all)"));
  }
  line("verified", json.at("verified") == "all"
                       ? cat("index and ", counted(json.at("chunks").get<int64_t>(), "chunk"))
                       : std::string("index (--verify also reads every token)"));
  return text;
}

std::string one_document(const TokenStore& store, const DataInspectOptions& options) {
  const int64_t d = *options.document;
  if (d < 0 || d >= store.documents()) {
    fail_usage(cat("there is no document ", d, " in ", store.path(), "; they are numbered 0 to ",
                   store.documents() - 1));
  }
  const int64_t first = store.document_start(d);
  std::vector<int32_t> ids(static_cast<size_t>(store.document_start(d + 1) - first));
  store.read(first, static_cast<int64_t>(ids.size()), ids.data());
  Json json{{"document", d}, {"text_bytes", store.document_bytes(d)}, {"ids", ids}};
  if (!options.tokenizer.empty()) {
    const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
    require_tokenizer(store, tokenizer.hash(), options.tokenizer);
    json["text"] = tokenizer.decode(ids);
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string data_inspect(const DataInspectOptions& options) {
  const auto store = TokenStore::open(options.file);
  if (options.verify) store->verify();
  if (options.document) return one_document(*store, options);
  const Json json = describe(*store, options.verify);
  return options.json ? json.dump(2) + "\n" : as_text(json);
}

}  // namespace shoestring
