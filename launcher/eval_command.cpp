#include "launcher/eval_command.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <numbers>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "io/text_source.h"
#include "io/tokenizer/encoder.h"
#include "launcher/eval_progress.h"
#include "launcher/measurement.h"
#include "launcher/memory_forecast.h"

namespace shoestring {
namespace {

// More rows than this do not fit into the machine: a token has at least three values a hidden unit
// and three an inner unit of its mlp or experts, in two bytes.
int64_t most_rows(const ModelConfig& model, int64_t length) {
  constexpr double most_tokens = 1 << 24;
  const MoeConfig& moe = model.moe;
  const double inner =
      moe.on() ? static_cast<double>(moe.chosen * moe.ffn) : static_cast<double>(model.ffn);
  const double bytes = 2 * (3 * static_cast<double>(model.hidden) + 3 * inner);
  const double tokens = std::min(most_tokens, static_cast<double>(memory_of_machine()) / bytes);
  return std::max<int64_t>(1, static_cast<int64_t>(tokens / static_cast<double>(length)));
}

// Cuts tokens into rows of `length` and runs them `micro_batch` at a time.
class RowRunner {
 public:
  RowRunner(LoadedModel& loaded, const EvalOptions& options)
      : loaded_(loaded),
        length_(options.length.value_or(loaded.config.train.sequence_length)),
        rows_(options.micro_batch) {
    if (length_ > loaded.config.model.max_positions) {
      fail_usage(cat("--length ", length_, " is more than the model's ",
                     loaded.config.model.max_positions, " positions"));
    }
    if (length_ < 1) fail_usage(cat("--length must be at least 1 but is ", length_));
    const int64_t most = most_rows(loaded.config.model, length_);
    if (rows_ < 1 || rows_ > most) {
      fail_usage(cat("--micro-batch must be from 1 to ", most, " on this machine for rows of ",
                     counted(length_, "token"), " but is ", rows_));
    }
  }

  // ids[0] is context only; the others are predicted. Takes the whole rows, at the document's end
  // the rest too, and leaves in `ids` what the next call begins with. Tells the part that is done.
  void add(std::vector<int32_t>& ids, bool end_of_document,
           const std::function<void(double)>& tell) {
    const auto row = static_cast<size_t>(length_);
    size_t at = 0;
    for (; at + (end_of_document ? 1 : row) < ids.size(); at += row) {
      for (int64_t t = 0; t < length_; ++t) {
        const size_t i = at + static_cast<size_t>(t);
        const bool inside = i + 1 < ids.size();
        batch_.tokens.push_back(inside ? ids[i] : ids.back());
        batch_.labels.push_back(inside ? ids[i + 1] : -1);
        batch_.positions.push_back(static_cast<int32_t>(t));
        batch_.first_key.push_back(0);
      }
      if (++batch_.sequences < rows_) continue;
      flush();
      tell(static_cast<double>(std::min(at + row, ids.size())) / static_cast<double>(ids.size()));
    }
    ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(std::min(at, ids.size())));
  }
  void flush() {
    if (batch_.sequences == 0) return;
    batch_.length = length_;
    const Evaluator alone{.run = run_whole(loaded_.stream, *loaded_.model, *loaded_.source),
                          .stream = loaded_.stream};
    sums_.add(evaluate_micro_batches(alone, 1, [&](int64_t) { return batch_; }));
    batch_ = {};
  }
  const EvalSums& sums() const { return sums_; }

 private:
  LoadedModel& loaded_;
  int64_t length_, rows_;
  MicroBatch batch_;
  EvalSums sums_;
};

FileLoss evaluate_file(LoadedModel& loaded, const EvalOptions& options, const TextInput& input,
                       EvalProgress& progress) {
  const Tokenizer& tokenizer = loaded.need_tokenizer();
  Encoder encoder(tokenizer);
  const auto first = tokenizer.end_of_text_id();
  if (!first) fail_usage("the tokenizer has no end-of-text token to begin documents with");
  RowRunner runner(loaded, options);
  FileLoss result{.path = input.path, .sums = {}};
  int64_t bytes = 0;
  std::vector<int32_t> ids = {*first};
  bool inside = false;  // a document: its earlier pieces are encoded
  auto sink = [&](TextPiece&& piece) {
    bytes += static_cast<int64_t>(piece.text.size());
    progress.piece(piece.text.size());
    encoder.encode(piece.text, ids, {.special_as_text = true, .continues = inside});
    inside = !piece.last;
    runner.add(ids, piece.last, [&](double part) { progress.done(part, runner.sums().labels); });
    if (!piece.last) return;
    ++result.documents;
    ids.assign(1, *first);
  };
  TextOptions text;
  text.format = input.format;
  read_documents(input, text, sink, [&](uint64_t raw) { progress.read(raw); });
  runner.flush();
  result.sums = runner.sums();
  result.sums.bytes = bytes;
  progress.end_of(input, result.sums.labels);
  return result;
}

}  // namespace

std::vector<FileLoss> evaluate_files(LoadedModel& loaded, const EvalOptions& options) {
  std::vector<FileLoss> list;
  const std::vector<TextInput> inputs = list_inputs(options.files, TextFormat::by_name, nullptr);
  ProgressLine line(stderr);
  EvalProgress progress(inputs, line);
  for (const TextInput& input : inputs) {
    list.push_back(evaluate_file(loaded, options, input, progress));
  }
  return list;
}

void run_eval(const EvalOptions& options) {
  LoadedModel loaded(options.model);
  std::vector<FileLoss> list = evaluate_files(loaded, options);
  FileLoss all{.path = "all", .sums = {}};
  for (const FileLoss& f : list) {
    all.documents += f.documents;
    all.sums.add(f.sums);
  }
  if (all.sums.labels == 0) {
    fail_data("the files hold no text to predict; name files with at least one word");
  }
  if (list.size() > 1) list.push_back(all);
  std::vector<Measurement> rows;
  for (const FileLoss& f : list) {
    const std::string at = list.size() > 1 ? cat(f.path, " ") : "";
    rows.push_back({cat(at, "loss"), f.sums.mean(), "nats/token"});
    rows.push_back({cat(at, "perplexity"), std::exp(f.sums.mean()), "per token"});
    rows.push_back({cat(at, "bits_per_byte"), f.sums.bits_per_byte(), "bits/byte"});
    rows.push_back({cat(at, "tokens"), static_cast<double>(f.sums.labels), "tokens"});
    rows.push_back({cat(at, "documents"), static_cast<double>(f.documents), "documents"});
  }
  print_measurements(rows, options.json, std::cout);
}

}  // namespace shoestring
