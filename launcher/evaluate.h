#pragma once
// Loss on held-out text: mean over labels in nats, and bits per byte of the text those labels
// spell.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/model/transformer.h"
#include "io/loader.h"
#include "io/tokenizer/tokenizer.h"
#include "parallel/communicator.h"

namespace shoestring {

// Bytes of text per token id; special tokens stand for no text. Empty without a tokenizer.
std::vector<int32_t> bytes_of_tokens(const Tokenizer& tokenizer);

struct EvalSums {
  double loss = 0;  // nats, summed over labels
  int64_t labels = 0, correct = 0, bytes = 0;
  double mean() const;           // nats a label
  double bits_per_byte() const;  // 0 when bytes are not known
  void add(const EvalSums& other);
};

// Who evaluates.
struct Evaluator {
  // Forward alone, of one micro-batch of whole rows.
  std::function<HeadLoss::Result(const MicroBatch&)> run;
  Stream& stream;
  Communicator* ranks = nullptr;  // null: alone
  int64_t share = 0, shares = 1;  // this rank's micro-batches: those with number % shares == share
  bool tells = true;              // whether the loss that `run` gives is this rank's to tell
  bool company = false;           // others wait for this rank where it has no micro-batch left
  bool counts_text = true;        // of ranks that share a sequence out one counts its bytes
  const std::vector<int32_t>* bytes = nullptr;  // of tokens; null: not known
  std::function<bool()> stop = {};              // whether to leave off; null: never
};
// All of a model on this rank; the arguments outlive the function.
std::function<HeadLoss::Result(const MicroBatch&)> run_whole(Stream& stream,
                                                             const Transformer& model,
                                                             ParamSource& source);

// Runs the micro-batches [0, count) that `make` gives, and sums in the order of the micro-batches,
// so that any number of ranks gives the same bits. With `who.company` ranks without a
// micro-batch of their own in the last round run the last one again and tell nothing of it.
// `who.stop` is asked before each round but the first; when all ranks hear yes the evaluation ends
// and has no result: no labels.
EvalSums evaluate_micro_batches(const Evaluator& who, int64_t count,
                                const std::function<MicroBatch(int64_t)>& make);

struct SourceLoss {
  std::string name;
  EvalSums sums;
};
EvalSums total_of_sources(const std::vector<SourceLoss>& losses);
// The held-out rows of every source, at most `sequences` each; nothing when it was stopped.
struct EvalRows {
  int64_t sequences = 0, micro_batch = 1, length = 0;
};
std::vector<SourceLoss> evaluate_sources(const Evaluator& who, const Loader& loader,
                                         const EvalRows& rows);

// Cross-entropy of the held-out labels under the training tokens' frequencies (add-one smoothed),
// nats a label; at most `limit` training tokens of each source are counted.
double unigram_loss(const Loader& loader, int64_t vocabulary, int64_t sequences, int64_t length,
                    int64_t limit);

}  // namespace shoestring
