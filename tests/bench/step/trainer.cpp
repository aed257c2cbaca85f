#include "tests/bench/step/trainer.h"

#include <algorithm>

#include "core/parallel_for.h"
#include "core/random.h"
#include "tests/bench/step/llama_files.h"

namespace shoestring {
namespace {

MicroBatch random_rows(const StepOptions& options) {
  const RandomStream random(1, "tokens");
  std::vector<int32_t> ids;
  const auto vocabulary = static_cast<uint64_t>(options.model.vocabulary);
  for (int64_t i = 0; i < options.rows * (options.length + 1); ++i) {
    ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(i), vocabulary)));
  }
  return whole_rows(ids, options.rows, options.length);
}

MicroBatch rows_of(const MicroBatch& whole, int64_t begin, int64_t end) {
  const int64_t length = whole.length;
  MicroBatch m{.sequences = end - begin, .length = length, .valid_labels = (end - begin) * length};
  auto take = [&](const std::vector<int32_t>& from) {
    return std::vector<int32_t>(from.begin() + begin * length, from.begin() + end * length);
  };
  m.tokens = take(whole.tokens);
  m.labels = take(whole.labels);
  m.positions = take(whole.positions);
  m.first_key = take(whole.first_key);
  m.sample_ids.assign(whole.sample_ids.begin() + begin, whole.sample_ids.begin() + end);
  return m;
}

int threads_of_rank(const StepOptions& options) {
  const int all = options.threads > 0 ? options.threads : hardware_threads();
  return std::max(1, all / options.ranks);
}

// This rank's micro-batches: number g of the step runs on rank g % n.
Batch part_of(const std::vector<MicroBatch>& all, int64_t step, const Communicator& ranks) {
  Batch batch{.step = step,
              .global_micro_batches = static_cast<int64_t>(all.size()),
              .global_valid_labels = 0,
              .global_tokens = tokens_of(all)};
  for (size_t g = 0; g < all.size(); ++g) {
    batch.global_valid_labels += all[g].valid_labels;
    if (static_cast<int>(g) % ranks.size() != ranks.rank()) continue;
    batch.global_indices.push_back(static_cast<int64_t>(g));
    batch.micro.push_back(all[g]);
  }
  return batch;
}

}  // namespace

std::vector<MicroBatch> batch_of(const StepOptions& options) {
  std::vector<MicroBatch> whole;
  if (options.batch.empty()) {
    whole.push_back(random_rows(options));
  } else {
    whole = load_token_rows(options.batch);
  }
  std::vector<MicroBatch> parts;
  for (const MicroBatch& m : whole) {
    for (int64_t r = 0; r < options.ranks; ++r) {
      parts.push_back(
          rows_of(m, m.sequences * r / options.ranks, m.sequences * (r + 1) / options.ranks));
    }
  }
  return parts;
}

int64_t tokens_of(const std::vector<MicroBatch>& batch) {
  int64_t sum = 0;
  for (const MicroBatch& m : batch) sum += m.sequences * m.length;
  return sum;
}

RunConfig config_of(const StepOptions& options, int64_t length, const ScratchFolder& folder) {
  const std::string store = folder / "tokens.h5";
  const std::vector<int32_t> document(static_cast<size_t>(4 * length));
  make_store(store, {document}, plain_facts(options.model.vocabulary));
  RunConfig c;
  c.run.directory = folder / "run";
  c.model = options.model;
  c.model.max_positions = length;
  c.train.dtype = options.dtype;
  c.train.batch = 1;
  c.train.micro_batch = 1;
  c.train.sequence_length = length;
  c.train.recompute = options.recompute;
  c.train.exact = options.exact;
  c.precision = options.precision;
  c.train.statistics_every = options.statistics ? 1 : 0;
  c.optim = options.optim;
  c.optim.schedule.kind = "constant";
  c.data.held_out = 0;
  c.data.sources = {{.name = "none", .path = store, .weight = 1, .held_out = {}}};
  return c;
}

StepTrainer::StepTrainer(const RunConfig& config, const StepOptions& options, TraceRange traced,
                         Communicator& ranks)
    : ranks_(ranks),
      trace_(traced, ranks.rank()),
      rank_(config, ranks, threads_of_rank(options)),
      runner_(rank_, trace_) {
  if (!options.weights.empty()) load_llama_weights(options.weights, *rank_.store);
}

StepReport StepTrainer::step(const std::vector<MicroBatch>& batch) {
  trace_.at_step(rank_.step + 1, ranks_, "");
  return runner_.run(part_of(batch, rank_.step, ranks_));
}

}  // namespace shoestring
