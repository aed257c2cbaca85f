#include "launcher/generate_command.h"

#include <cstdio>
#include <utility>

#include "core/counted.h"
#include "core/log.h"
#include "core/text.h"
#include "io/utf8_check.h"
#include "launcher/progress.h"
#include "launcher/text_borders.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

void put(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

nlohmann::ordered_json json_of(const GenerateRequest& request, const GenerateResult& result) {
  nlohmann::ordered_json out;
  out["outputs"] = nlohmann::json::array();
  for (size_t i = 0; i < result.texts.size(); ++i) {
    // Text cut inside a character is shown with the replacement character.
    out["outputs"].push_back(
        {{"prompt", request.prompts[i]}, {"text", result.texts[i]}, {"ids", result.ids[i]}});
  }
  out["tokens"] = result.tokens;
  out["prefill_seconds"] = result.prefill_seconds;
  out["decode_seconds"] = result.decode_seconds;
  return out;
}

}  // namespace

void run_generate(const GenerateOptions& options) {
  LoadedModel loaded(options.model);
  const Tokenizer& tokenizer = loaded.need_tokenizer();  // before anything is printed
  GenerateRequest request = options.request;
  const TextBorders borders = text_borders(loaded);
  request.begin_ids = borders.begin;
  request.end_ids = borders.end;
  if (request.prompts.empty()) request.prompts.emplace_back();
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    require_utf8(request.prompts[i], cat("prompt ", i));
  }
  const bool live = !options.json && request.prompts.size() == 1;
  bool begun = false;  // the prompt stands before the text, once nothing is refused any more
  if (live) {
    request.on_text = [&](size_t, const std::string& text) {
      if (!std::exchange(begun, true)) put(request.prompts[0]);
      put(text);
    };
  }
  const GenerateResult result =
      generate(loaded.stream, *loaded.model, *loaded.source, tokenizer, request);
  if (options.json) {
    put(json_of(request, result).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
        "\n");
  } else if (live) {
    put(begun ? "\n" : request.prompts[0] + "\n");
  } else {
    for (size_t i = 0; i < result.texts.size(); ++i) {
      put(cat("[", i, "] ", request.prompts[i], result.texts[i], "\n"));
    }
  }
  const double seconds = result.prefill_seconds + result.decode_seconds;
  log_info(cat(counted(result.tokens, "token"), " in ", text_of_seconds(seconds), ", ",
               text_of_count(static_cast<double>(result.tokens) / seconds), " tokens/s"));
}

}  // namespace shoestring
