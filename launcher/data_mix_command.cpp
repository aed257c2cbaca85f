#include "launcher/data_mix_command.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "io/loader.h"
#include "launcher/config.h"
#include "launcher/plan.h"
#include "launcher/run_config.h"

namespace shoestring {
namespace {

using Json = nlohmann::ordered_json;

struct SourceRow {
  std::string name;
  int64_t train_tokens = 0, held_out_tokens = 0, held_out_documents = 0;
  double share = 0, tokens_drawn = 0, epochs = 0;
};

// Tokens and epochs of each source over the steps [0, steps), stage by stage.
std::vector<SourceRow> rows_of(const Loader& loader, int64_t steps) {
  std::vector<SourceRow> rows;
  const StepShape end = loader.schedule().at(steps);
  const std::vector<double> epochs = loader.epochs(end.first_sample);
  const std::vector<int64_t> drawn = loader.tokens_drawn(end.first_sample);
  for (int64_t s = 0; s < loader.sources(); ++s) {
    const size_t i = static_cast<size_t>(s);
    rows.push_back({.name = loader.source_name(s),
                    .train_tokens = loader.train_stream(s).tokens(),
                    .held_out_tokens = loader.held_out_stream(s).tokens(),
                    .held_out_documents = loader.held_out_stream(s).documents(),
                    .share = end.first_token == 0 ? 0
                                                  : static_cast<double>(drawn[i]) /
                                                        static_cast<double>(end.first_token),
                    .tokens_drawn = static_cast<double>(drawn[i]),
                    .epochs = epochs[i]});
  }
  return rows;
}

std::string table(const std::vector<SourceRow>& rows, int64_t steps, int64_t tokens) {
  std::string text = cat(counted(steps, "step"), ", ", counted(tokens, "token"), "\n");
  size_t width = 6;
  for (const SourceRow& row : rows) width = std::max(width, row.name.size());
  char line[256];
  const int name_width = static_cast<int>(std::min<size_t>(width, 60));
  std::snprintf(line, sizeof line, "%-*s %14s %14s %8s %14s %8s\n", name_width, "source",
                "train tokens", "held out", "share", "tokens drawn", "epochs");
  text += line;
  for (const SourceRow& row : rows) {
    std::snprintf(line, sizeof line, "%-*.60s %14lld %14lld %7.2f%% %14.0f %8.2f\n", name_width,
                  row.name.c_str(), static_cast<long long>(row.train_tokens),
                  static_cast<long long>(row.held_out_tokens), 100 * row.share, row.tokens_drawn,
                  row.epochs);
    text += line;
  }
  return text;
}

std::string as_json(const std::vector<SourceRow>& rows, int64_t steps, int64_t tokens) {
  Json json{{"steps", steps}, {"tokens", tokens}, {"sources", Json::array()}};
  for (const SourceRow& row : rows) {
    json["sources"].push_back({{"name", row.name},
                               {"train_tokens", row.train_tokens},
                               {"held_out_tokens", row.held_out_tokens},
                               {"held_out_documents", row.held_out_documents},
                               {"share", row.share},
                               {"tokens_drawn", row.tokens_drawn},
                               {"epochs", row.epochs}});
  }
  return json.dump(2) + "\n";
}

}  // namespace

int64_t parse_tokens(const std::string& text) {
  constexpr double most = 1e18;
  const char* end = text.data() + text.size();
  int64_t whole = 0;
  if (const auto read = std::from_chars(text.data(), end, whole);
      read.ec == std::errc() && read.ptr == end && whole > 0) {
    return whole;
  }
  double number = 0;
  const auto read = std::from_chars(text.data(), end, number);
  if (read.ec != std::errc() || read.ptr != end || !(number >= 1 && number <= most) ||
      number != std::floor(number)) {
    fail_usage(cat("--tokens ", text, ": give a whole number above 0, for example 1000000000, 1e9 ",
                   "or 2.5e9"));
  }
  return static_cast<int64_t>(number);
}

std::string data_mix(const DataMixOptions& options) {
  const auto config =
      read_config<RunConfig>({.file = options.config, .overrides = options.overrides},
                             [](const RunConfig& run, Complaints& c) { run.validate_data(c); });
  if (options.tokens && *options.tokens < 1) {
    fail_usage(cat("--tokens ", *options.tokens, ": give a number of tokens above 0"));
  }
  const Loader loader(config.data, open_sources(config.data), load_segments(config),
                      static_cast<uint64_t>(config.run.seed));
  const int64_t steps =
      options.tokens ? loader.schedule().steps_for_tokens(*options.tokens) : config.train.steps;
  const int64_t tokens = loader.schedule().at(steps).first_token;
  const std::vector<SourceRow> rows = rows_of(loader, steps);
  return options.json ? as_json(rows, steps, tokens) : table(rows, steps, tokens);
}

}  // namespace shoestring
