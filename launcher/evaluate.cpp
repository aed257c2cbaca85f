#include "launcher/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/check.h"
#include "core/text.h"
#include "parallel/ordered_sums.h"

namespace shoestring {
namespace {

int64_t bytes_of(const Evaluator& who, const MicroBatch& micro) {
  if (who.bytes == nullptr || !who.counts_text) return 0;
  int64_t bytes = 0;
  for (int32_t label : micro.labels) {
    if (label >= 0 && static_cast<size_t>(label) < who.bytes->size()) {
      bytes += (*who.bytes)[static_cast<size_t>(label)];
    }
  }
  return bytes;
}

}  // namespace

std::vector<int32_t> bytes_of_tokens(const Tokenizer& tokenizer) {
  std::vector<int32_t> bytes(static_cast<size_t>(tokenizer.vocabulary_size()), 0);
  for (int32_t id = 0; id < tokenizer.vocabulary_size(); ++id) {
    if (!tokenizer.has_id(id) || tokenizer.is_special(id)) continue;
    bytes[static_cast<size_t>(id)] = static_cast<int32_t>(tokenizer.id_to_bytes(id).size());
  }
  return bytes;
}

double EvalSums::mean() const { return labels == 0 ? 0 : loss / static_cast<double>(labels); }

double EvalSums::bits_per_byte() const {
  return bytes == 0 ? 0 : loss / std::numbers::ln2 / static_cast<double>(bytes);
}

void EvalSums::add(const EvalSums& other) {
  loss += other.loss;
  labels += other.labels;
  correct += other.correct;
  bytes += other.bytes;
}

std::function<HeadLoss::Result(const MicroBatch&)> run_whole(Stream& stream,
                                                             const Transformer& model,
                                                             ParamSource& source) {
  return [&](const MicroBatch& micro) {
    const BatchTensors tensors = to_device(stream.device(), micro);
    Tape tape(stream, source, Tape::Mode::inference);
    LayerContext context{.tape = tape, .batch = tensors};
    return model.run(context, {});
  };
}

EvalSums evaluate_micro_batches(const Evaluator& who, int64_t count,
                                const std::function<MicroBatch(int64_t)>& make) {
  MicroBatchRows own{.width = 4};
  for (int64_t first = 0; first < count; first += who.shares) {
    if (first > 0 && who.stop && who.stop()) return {};
    const int64_t i = first + who.share;
    if (i >= count && !who.company) continue;
    const MicroBatch micro = make(std::min(i, count - 1));
    const HeadLoss::Result r = who.run(micro);
    if (i >= count || !who.tells) continue;
    own.add(i, {r.loss_sum, static_cast<double>(r.count), static_cast<double>(r.correct),
                static_cast<double>(bytes_of(who, micro))});
  }
  const MicroBatchRows all = who.ranks ? gather_rows(*who.ranks, who.stream, own) : own;
  EvalSums sums;
  for (size_t i = 0; i < all.micro.size(); ++i) {
    const std::span<const double> row = all.row(i);
    sums.add({.loss = row[0],
              .labels = static_cast<int64_t>(row[1]),
              .correct = static_cast<int64_t>(row[2]),
              .bytes = static_cast<int64_t>(row[3])});
  }
  return sums;
}

std::vector<SourceLoss> evaluate_sources(const Evaluator& who, const Loader& loader,
                                         const EvalRows& wanted) {
  std::vector<SourceLoss> losses;
  bool stopped = false;
  const auto ask = [&] { return stopped = stopped || (who.stop && who.stop()); };
  Evaluator asking = who;
  asking.stop = ask;
  for (int64_t i = 0; i < loader.sources(); ++i) {
    if (i > 0 && ask()) return {};
    const int64_t rows = std::min(wanted.sequences, loader.eval_rows(i, wanted.length));
    if (rows == 0) continue;
    const int64_t count = (rows + wanted.micro_batch - 1) / wanted.micro_batch;
    auto make = [&](int64_t m) {
      const int64_t first = m * wanted.micro_batch, n = std::min(wanted.micro_batch, rows - first);
      return loader.eval_micro_batch(i, first, n, wanted.length);
    };
    const EvalSums sums = evaluate_micro_batches(asking, count, make);
    if (stopped) return {};
    losses.push_back({loader.source_name(i), sums});
  }
  return losses;
}

EvalSums total_of_sources(const std::vector<SourceLoss>& losses) {
  EvalSums sums;
  for (const SourceLoss& s : losses) sums.add(s.sums);
  return sums;
}

double unigram_loss(const Loader& loader, int64_t vocabulary, int64_t sequences, int64_t length,
                    int64_t limit) {
  std::vector<double> counts(static_cast<size_t>(vocabulary), 1.0);
  auto total = static_cast<double>(vocabulary);
  constexpr int64_t piece = int64_t{1} << 20;
  std::vector<int32_t> tokens(static_cast<size_t>(piece));
  for (int64_t i = 0; i < loader.sources(); ++i) {
    const DocumentStream& stream = loader.train_stream(i);
    const int64_t wanted = std::min(limit, stream.tokens());
    for (int64_t at = 0; at < wanted; at += piece) {
      const int64_t n = std::min(piece, wanted - at);
      stream.read(at, n, tokens.data());
      for (int64_t t = 0; t < n; ++t) {
        counts.at(static_cast<size_t>(tokens[static_cast<size_t>(t)])) += 1;
      }
      total += static_cast<double>(n);
    }
  }
  double loss = 0;
  int64_t labels = 0;
  for (int64_t i = 0; i < loader.sources(); ++i) {
    const int64_t rows = std::min(sequences, loader.eval_rows(i, length));
    for (int64_t row = 0; row < rows; ++row) {
      for (int32_t label : loader.eval_micro_batch(i, row, 1, length).labels) {
        if (label < 0) continue;
        loss -= std::log(counts.at(static_cast<size_t>(label)) / total);
        ++labels;
      }
    }
  }
  return labels == 0 ? 0 : loss / static_cast<double>(labels);
}

}  // namespace shoestring
