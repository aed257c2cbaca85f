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

// Shows texts as they arrive: that of the first prompt that is not done, and what has come of the
// next one as soon as its turn begins.
class LiveTexts {
 public:
  explicit LiveTexts(const std::vector<std::string>& prompts)
      : prompts_(prompts), waiting_(prompts.size()), ended_(prompts.size()) {}
  void add(size_t prompt, const std::string& text) {
    waiting_[prompt] += text;
    if (prompt == current_) show();
  }
  void end(size_t prompt) {
    ended_[prompt] = true;
    while (current_ < prompts_.size() && ended_[current_]) end_current();
    if (current_ < prompts_.size() && !waiting_[current_].empty()) show();
  }
  // Whatever is left, of texts that were broken off too.
  void finish() {
    while (current_ < prompts_.size()) end_current();
  }

 private:
  void show() {
    // The prompt stands before the text, once nothing is refused any more.
    if (!std::exchange(begun_, true)) {
      if (prompts_.size() > 1) put(cat("[", current_, "] "));
      put(prompts_[current_]);
    }
    put(std::exchange(waiting_[current_], {}));
  }
  void end_current() {
    show();
    put("\n");
    begun_ = false;
    ++current_;
  }

  const std::vector<std::string>& prompts_;
  std::vector<std::string> waiting_;
  std::vector<bool> ended_;
  size_t current_ = 0;
  bool begun_ = false;
};

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
  LiveTexts live(request.prompts);
  if (!options.json) {
    request.on_text = [&](size_t prompt, const std::string& text) { live.add(prompt, text); };
    request.on_end = [&](size_t prompt) { live.end(prompt); };
  }
  const GenerateResult result =
      generate(loaded.stream, *loaded.model, *loaded.source, tokenizer, request);
  if (options.json) {
    put(json_of(request, result).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
        "\n");
  } else {
    live.finish();
  }
  const double seconds = result.prefill_seconds + result.decode_seconds;
  log_info(cat(counted(result.tokens, "token"), " in ", text_of_seconds(seconds), ", ",
               text_of_count(static_cast<double>(result.tokens) / seconds), " tokens/s"));
}

}  // namespace shoestring
