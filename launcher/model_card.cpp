#include "launcher/model_card.h"

#include <algorithm>
#include <filesystem>

#include "core/counted.h"
#include "core/model/parameters.h"
#include "core/text.h"
#include "io/batch_schedule.h"
#include "launcher/plan.h"
#include "launcher/progress.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

using Json = nlohmann::json;

std::string row(std::string_view what, std::string_view value) {
  return cat("| ", what, " | ", value, " |\n");
}

// A number of the summary; empty when it is not known.
std::string figure(const Json& summary, const char* key, int digits, std::string_view unit) {
  if (!summary.is_object() || !summary.contains(key) || !summary[key].is_number()) return "";
  return cat(text_of_fixed(summary[key].get<double>(), digits), unit);
}

// What is in the folder, which may have fewer modules than the run that it comes from.
std::string prediction_text(int64_t trained, int64_t exported, const ParamCounts& counts) {
  if (exported > 0) return cat(exported, ", with ", counts.prediction, " of the parameters");
  return trained > 0 ? cat(trained, " trained, left out of this folder") : "";
}

std::string model_table(const ModelConfig& trained, const HuggingFaceConfig& exported) {
  const ModelConfig& m = exported.model;
  const ParamCounts counts = count_parameters(m);
  std::string text = "| model | |\n|---|---|\n";
  append(text, row("family", model_type_of(exported.family)));
  append(text, row("parameters", cat(counts.total + counts.prediction)));
  if (m.moe.on()) {
    append(text,
           row("active for a token",
               cat(counts.active, m.mtp.depth > 0 ? ", without the prediction modules" : "")));
    append(text, row("experts",
                     cat(m.moe.experts, ", ", m.moe.chosen, " chosen, ", m.moe.shared, " shared")));
  }
  const std::string prediction = prediction_text(trained.mtp.depth, m.mtp.depth, counts);
  if (!prediction.empty()) append(text, row("prediction modules", prediction));
  append(text, row("layers", cat(m.layers)));
  append(text, row("width", cat(m.hidden)));
  append(text, row("heads", cat(m.heads, m.mla.on() ? ", latent attention"
                                                    : cat(", ", m.kv_heads, " of keys"))));
  append(text, row("vocabulary", cat(m.vocabulary)));
  append(text, row("positions", cat(m.max_positions)));
  append(text,
         row("weights", exported.blocks.on()
                            ? cat("FP8 E4M3 in blocks of ", exported.blocks.rows, " x ",
                                  exported.blocks.columns, ", others ", name_of(exported.dtype))
                            : std::string(name_of(exported.dtype))));
  return text;
}

std::string data_text(const RunConfig& config) {
  std::string text;
  for (const auto& source : config.data.sources) {
    append(text, "- ", source.name.empty() ? source.path : source.name, ", weight ", source.weight,
           " (", std::filesystem::path(source.path).filename().string(), ")\n");
  }
  return text;
}

std::string money_of(const Json& summary) {
  const std::string cost = figure(summary, "cost", 4, "");
  const std::string price = figure(summary, "price_per_hour", 4, "");
  if (cost.empty() || price.empty() || summary["price_per_hour"].get<double>() <= 0) return "";
  const std::string currency = summary.contains("currency") && summary["currency"].is_string()
                                   ? summary["currency"].get<std::string>()
                                   : "";
  return cat(cost, " ", currency, " at ", price, " ", currency, " an hour");
}

std::string time_of(const Json& summary) {
  const bool known = !figure(summary, "seconds", 0, "").empty();
  return known ? text_of_seconds(summary["seconds"].get<double>()) : "";
}

// The recipe, and which matrices left it on the way.
std::string precision_rows(const ModelSource& source) {
  constexpr size_t most_named = 8;
  const RunConfig& c = source.config();
  if (!c.precision.on()) return row("compute type", c.train.dtype);
  std::string text = row("compute type", cat(c.train.dtype, ", matrix products in FP8"));
  append(text, row("precision recipe", c.precision.recipe));
  const std::vector<std::string> fallen = source.fallen_matrices();
  if (fallen.empty() && c.precision.watchdog.every == 0) return text;  // nobody looked
  std::string list = counted(static_cast<int64_t>(fallen.size()), "matrix", "matrices");
  for (size_t i = 0; i < std::min(fallen.size(), most_named); ++i) {
    append(list, i == 0 ? ": " : ", ", fallen[i]);
  }
  if (fallen.size() > most_named) append(list, " and ", fallen.size() - most_named, " more");
  append(text, row("put back to bf16 by the watchdog", list));
  return text;
}

std::string training_table(const ModelSource& source, const Json& summary) {
  const RunConfig& c = source.config();
  const StepShape shape = BatchSchedule(load_segments(c)).at(source.step());
  std::string text = "| training | |\n|---|---|\n";
  append(text, row("steps", cat(source.step())));
  append(text, row("tokens", cat(shape.first_token)));
  append(text, row("sequence length", cat(c.train.sequence_length)));
  append(text, precision_rows(source));
  append(text, row("optimiser", cat(c.optim.optimizer, ", learning rate ", c.optim.lr)));
  append(text, row("seed", cat(c.run.seed)));
  const std::pair<const char*, std::string> known[] = {
      {"validation loss, nats a token", figure(summary, "validation_loss", 4, "")},
      {"bits per byte", figure(summary, "bits_per_byte", 4, "")},
      {"a unigram model's loss", figure(summary, "unigram_loss", 4, "")},
      {"speed", figure(summary, "tokens_per_second", 0, " tokens/s")},
      {"time", time_of(summary)},
      {"cost", money_of(summary)}};
  for (const auto& [what, value] : known) {
    if (!value.empty()) append(text, row(what, value));
  }
  return text;
}

// The last figures of a run are those of its last step only.
Json summary_of(const ModelCard& card, int64_t step) {
  Json summary = Json::parse(card.summary, nullptr, false);
  const bool fits = summary.is_object() && summary.contains("steps") && summary["steps"] == step;
  return fits ? summary : Json();
}

}  // namespace

std::string model_card_text(const ModelSource& source, const ModelCard& card) {
  const RunConfig& c = source.config();
  std::string text = "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n";
  append(text, "# ", card.name, "\n\n");
  append(text, card_mark, "\n\n");
  append(text, model_table(source.model(), card.exported), "\n");
  if (source.step() > 0) {
    append(text, "## Training\n\n", training_table(source, summary_of(card, source.step())), "\n");
    if (!c.data.sources.empty()) append(text, "Data:\n\n", data_text(c), "\n");
    if (!c.train.init_from.empty()) {
      append(text, "The run began with the weights of ", c.train.init_from, ".\n\n");
    }
  } else {
    append(text, "The weights were converted and not trained further (", c.run.name, ").\n\n");
  }
  append(text, "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, ",
         "AutoTokenizer\n\nmodel = AutoModelForCausalLM.from_pretrained(\"PATH\")\n",
         "tokenizer = AutoTokenizer.from_pretrained(\"PATH\")\n```\n\n",
         "or, without a conversion: `shoestring generate --model PATH --prompt ...`\n");
  return text;
}

}  // namespace shoestring
