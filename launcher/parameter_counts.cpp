#include "launcher/parameter_counts.h"

#include <algorithm>
#include <cmath>

#include "core/counted.h"
#include "core/model/parameters.h"
#include "core/text.h"
#include "launcher/progress.h"

namespace shoestring {
namespace {

void add_chunk(const ModelConfig& model, const Chunk& chunk, double times, ParameterCounts& sum) {
  for (const ParamInfo& p : parameters_of(model, chunk)) {
    double n = times;
    for (int64_t dim : p.shape.dims()) n *= static_cast<double>(dim);
    if (p.name.starts_with("mtp.")) {
      sum.prediction += n;
      continue;
    }
    sum.total += n;
    const bool routed = p.name.find(".moe.experts.") != std::string::npos;
    sum.active +=
        routed ? n / static_cast<double>(model.moe.experts) * static_cast<double>(model.moe.chosen)
               : n;
  }
}

// "671,026,404,352"; what f64 does not hold exactly in six digits.
std::string grouped(double n) {
  if (!(n < 0x1p53)) return cat("about ", n);
  const std::string digits = cat(static_cast<int64_t>(std::llround(n)));
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text.push_back(',');
    text.push_back(digits[i]);
  }
  return text;
}

}  // namespace

ParameterCounts parameter_counts(const ModelConfig& model) {
  ParameterCounts counts;
  int64_t blocks[2] = {}, example[2] = {};  // dense, sparse
  for (int64_t i = 0; i < model.layers; ++i) {
    const int kind = model.moe.sparse(i) ? 1 : 0;
    ++blocks[kind];
    example[kind] = i;
  }
  for (int kind = 0; kind < 2; ++kind) {
    if (blocks[kind] == 0) continue;
    const Chunk block{.first_block = example[kind],
                      .last_block = example[kind] + 1,
                      .embedding = false,
                      .head = false};
    add_chunk(model, block, static_cast<double>(blocks[kind]), counts);
  }
  ModelConfig ends = model;
  ends.mtp.depth = std::min<int64_t>(1, model.mtp.depth);
  add_chunk(ends, {.first_block = 0, .last_block = 0, .embedding = true, .head = true}, 1, counts);
  counts.prediction *= static_cast<double>(model.mtp.depth);
  counts.sparse_layers = static_cast<double>(blocks[1]);
  return counts;
}

std::string comment_of_parameters(const ModelConfig& model) {
  const ParameterCounts counts = parameter_counts(model);
  std::string text = cat("# parameters: ", grouped(counts.total), " in all, ",
                         grouped(counts.active), " active for a token\n");
  std::string apart;
  auto add = [&apart](const std::string& what) { append(apart, apart.empty() ? "" : "; ", what); };
  if (model.vocabulary == 0) {
    add("embedding and head, whose model.vocabulary = 0 stands for the token store's");
  }
  if (model.mtp.depth > 0) {
    add(cat(grouped(counts.prediction), " of ", counted(model.mtp.depth, "prediction module")));
  }
  if (counts.sparse_layers > 0 && model.moe.balance.bias_speed > 0) {
    const auto experts = static_cast<double>(model.moe.experts);
    add(cat(grouped(counts.sparse_layers * experts), " selection biases (", counts.sparse_layers,
            " x ", experts, ")"));
  }
  if (!apart.empty()) append(text, "# not counted: ", apart, "\n");
  return text;
}

std::string text_of_parameters(const ModelConfig& model) {
  const ParameterCounts counts = parameter_counts(model);
  std::string text = cat(text_of_count(counts.total + counts.prediction), " parameters");
  if (model.mtp.depth > 0) {
    append(text, " (", text_of_count(counts.prediction), " of them in ",
           counted(model.mtp.depth, "prediction module"), ")");
  }
  if (counts.active < counts.total) {
    append(text, ", ", text_of_count(counts.active), " active for a token");
  }
  return text;
}

}  // namespace shoestring
