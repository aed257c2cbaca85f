#pragma once
// `shoestring eval`: how well a model predicts text files: loss, perplexity, bits per byte.

#include <optional>
#include <string>
#include <vector>

#include "launcher/evaluate.h"
#include "launcher/loaded_model.h"

namespace shoestring {

struct EvalOptions {
  ModelRequest model;
  std::vector<std::string> files;      // read as `data pack` reads them
  std::optional<int64_t> length = {};  // tokens of a row; none: the run's sequence length
  int64_t micro_batch = 4;             // rows at once
  bool json = false;
};

// Every token of every document is predicted once, from the tokens before it in its row; the first
// one from the end-of-text token.
struct FileLoss {
  std::string path;
  int64_t documents = 0;
  EvalSums sums;  // bytes: of the text itself
};
std::vector<FileLoss> evaluate_files(LoadedModel& loaded, const EvalOptions& options);

// Prints a table, or one JSON list of {name, value, unit, goal, met}.
void run_eval(const EvalOptions& options);

}  // namespace shoestring
