#include "parallel/data_parallel.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

int64_t bucket_elements(const DataParallelConfig& config) {
  if (config.bucket_bytes < 1 || config.zero_stage < 0 || config.zero_stage > 3) {
    fail_usage(cat("data parallel with bucket_bytes = ", config.bucket_bytes, " and zero_stage = ",
                   config.zero_stage, "; buckets have bytes, and stages are 0 to 3"));
  }
  return std::max<int64_t>(config.bucket_bytes / static_cast<int64_t>(sizeof(float)), 1);
}

bool holds(const DataParallelConfig& config) {
  return config.zero_stage > 1 || (config.slots_overlap && reduces_each_slot(config));
}

// Buckets of whole parameters, with the padding behind them.
std::vector<FlatRange> whole_params(FlatRange range, const std::vector<ParamExtent>& params,
                                    int64_t elements) {
  std::vector<FlatRange> buckets;
  int64_t begin = range.begin;
  for (size_t i = 1; i < params.size(); ++i) {
    if (params[i].begin - begin < elements) continue;
    buckets.push_back({begin, params[i].begin});
    begin = params[i].begin;
  }
  if (begin < range.end) buckets.push_back({begin, range.end});
  return buckets;
}

}  // namespace

bool reduces_each_slot(const DataParallelConfig& config) {
  if (config.exact || config.gradients == GradientLife::slot) return true;
  return config.gradients == GradientLife::automatic && config.zero_stage > 1;
}

ShardLayout shards_of(const DataParallelConfig& config, const SharedRange& shared) {
  const int64_t elements = shared.sources > 1 ? 1 : bucket_elements(config);
  const auto& [range, params, units, sources, ranks] = shared;
  if (!units.empty()) return ShardLayout(units, params, ranks);
  if (!holds(config)) return ShardLayout(range, params, elements, ranks);
  return ShardLayout(whole_params(range, params, elements), params, ranks);
}

DataParallel::DataParallel(Communicator& communicator, Stream& stream,
                           const DataParallelConfig& config, int64_t elements,
                           std::vector<ParamExtent> params)
    : DataParallel({.shard = communicator,
                    .stream = stream,
                    .config = config,
                    .range = {0, elements},
                    .params = std::move(params)}) {}

DataParallel::DataParallel(const DataParallelPlan& plan)
    : shard_(plan.shard),
      replicate_(plan.replicate),
      stream_(plan.stream),
      config_(plan.config),
      range_(plan.range),
      first_param_(plan.first_param),
      last_param_(plan.first_param + static_cast<int>(plan.params.size())),
      sources_(plan.sources),
      each_slot_(reduces_each_slot(plan.config)),
      holds_(holds(plan.config)),
      host_(plan.host != nullptr),
      sums_(each_slot_ || holds_ || host_),
      layout_(shards_of(plan.config,
                        {plan.range, plan.params, plan.units, plan.sources, plan.shard.size()})),
      reduction_({.shard = plan.shard,
                  .replicate = plan.replicate,
                  .stream = plan.stream,
                  .layout = layout_,
                  .sums = sums_,
                  .exact = plan.config.exact,
                  .sources = plan.sources,
                  .host = plan.host,
                  .memory = plan.sums}),
      buckets_of_param_(plan.params.size()),
      params_in_bucket_(layout_.buckets().size()),
      last_added_(layout_.buckets().size(), -1) {
  data_ranks_ = plan.data_ranks > 0 ? plan.data_ranks : reduction_.ranks();
  data_rank_ = plan.data_ranks > 0 ? plan.data_rank : reduction_.rank();
  check(sources_ == 1 || (config_.exact && holds_ && sources_ * reduction_.ranks() == data_ranks_),
        "gradients of several sources are for exact sums of all data ranks");
  const std::vector<ShardLayout::Bucket>& buckets = layout_.buckets();
  if (host_ && config_.zero_stage == 0) {
    fail_usage(
        "offload keeps a rank's share of the optimiser on the host; choose zero_stage 1, 2 or 3");
  }
  check(buckets.empty() ||
            (buckets.back().range.begin == range_.begin && buckets.front().range.end == range_.end),
        "the units do not cover the range that is reduced");
  for (size_t b = 0; b < buckets.size(); ++b) {
    const FlatRange range = buckets[b].range;
    for (size_t p = 0; p < plan.params.size(); ++p) {
      const ParamExtent& extent = plan.params[p];
      if (extent.begin >= range.end || extent.end <= range.begin) continue;
      buckets_of_param_[p].push_back(b);
      ++params_in_bucket_[b];
      check(!holds_ || (extent.begin >= range.begin && extent.end <= range.end),
            "a parameter lies in two units");
    }
    check(sources_ == 1 || params_in_bucket_[b] == 1, "a unit of two parameters of many sources");
  }
}

DataParallel::~DataParallel() {
  if (std::uncaught_exceptions() > exceptions_) {
    shard_.abort("it left a training step by an exception");
    if (replicate_ != nullptr) replicate_->abort("it left a training step by an exception");
  }
  try {  // work in flight uses our memory
    stream_.synchronize();
  } catch (const std::exception&) {
    // Whoever enqueued the work that failed was told, or is being told by the exception under way.
  }
}

int64_t DataParallel::slots(int64_t micro_batches) const {
  return (micro_batches + data_ranks_ - 1) / data_ranks_;
}

bool DataParallel::has_micro_batch(int64_t slot, int64_t micro_batches) const {
  return slot * data_ranks_ + data_rank_ < micro_batches;
}

// In which this rank has gradients: experts of several data ranks also where its own has none.
int64_t DataParallel::own_slots() const {
  int64_t count = 0;
  for (int64_t s = 0; s < slots(micro_batches_); ++s) count += reduction_.rank() < senders(s);
  return count;
}

// The data ranks below this number have a micro-batch in the slot.
int64_t DataParallel::active(int64_t slot) const {
  return std::min(data_ranks_, micro_batches_ - slot * data_ranks_);
}

// The ranks below this number have gradients of the slot.
int64_t DataParallel::senders(int64_t slot) const {
  return (active(slot) * reduction_.ranks() + data_ranks_ - 1) / data_ranks_;
}

void DataParallel::begin_slot(std::span<float> gradients, int64_t slot, int64_t micro_batches) {
  const bool open = std::any_of(slots_.begin(), slots_.end(),
                                [](const auto& entry) { return entry.second.open; });
  const bool ordered = (slot == 0 && (!config_.slots_overlap || slots_.empty())) ||
                       (slot == slot_ + 1 && micro_batches == micro_batches_);
  const bool unfinished = open && !config_.slots_overlap;
  if (unfinished || !ordered || slot >= slots(micro_batches)) {
    fail(cat("slot ", slot, " of a step of ", micro_batches, " micro-batches cannot begin after ",
             unfinished ? "the unfinished slot " : "slot ", slot_));
  }
  const bool none = gradients.empty() && holds_ && config_.zero_stage > 1;
  if (!none && static_cast<int64_t>(gradients.size()) != range_.elements()) {
    fail(cat("gradients of ", gradients.size(), " elements for a store of ", range_.elements()));
  }
  gradients_ = gradients;
  slot_ = slot;
  micro_batches_ = micro_batches;
  if (slot == 0) {
    slots_.clear();
    rounds_.clear();
    last_added_.assign(last_added_.size(), -1);
    if (sums_) reduction_.clear();
  }
  slots_[slot].announced.assign(buckets_of_param_.size(), false);
  if (slot > 0 && !each_slot_) return;
  Round& round = round_of(slot);
  round.slot = slot;
  round.missing = params_in_bucket_;
  if (!each_slot_) {
    for (int& missing : round.missing) missing *= static_cast<int>(own_slots());
  }
  if (holds_) round.gradients.resize(round.missing.size());
}

Tensor& DataParallel::held(Round& round, size_t bucket) {
  Tensor& gradients = round.gradients.at(bucket);
  if (gradients) return gradients;
  wait_for_room();
  gradients =
      Tensor::zeros(stream_.device(), {sources_, layout_.buckets()[bucket].range.elements()},
                    Dtype::f32, MemoryKind::gradients);
  return gradients;
}

Tensor DataParallel::gradient(const Param& p, int64_t slot) {
  check(holds_ && has(p.index) && slots_.contains(slot), "a gradient of no slot in progress");
  Round& round = round_of(slot);
  const size_t bucket = buckets_of_param_[static_cast<size_t>(p.index - first_param_)].at(0);
  if (bucket < round.next) {
    fail(cat("the gradient of ", p.info.name, " in slot ", slot, " was reduced before this use"));
  }
  const int64_t begin = p.offset - layout_.buckets()[bucket].range.begin;
  if (sources_ > 1) return held(round, bucket);
  return Tensor(held(round, bucket).block(), static_cast<size_t>(begin) * sizeof(float),
                p.info.shape, Dtype::f32);
}

void DataParallel::gradient_ready(int param, int64_t slot, const Event& computed) {
  const auto at = slots_.find(slot);
  const bool open = at != slots_.end() && at->second.open;
  const auto index = static_cast<size_t>(param - first_param_);
  if (!open || !has(param) || at->second.announced[index]) {
    fail(cat("the gradient of parameter ", param, " was announced ",
             open ? "twice in a slot, or there is no such parameter" : "outside of a slot"));
  }
  at->second.announced[index] = true;
  if (!works()) return;
  if (!computed.happened()) stream_.wait(computed);
  Round& round = round_of(slot);
  for (size_t b : buckets_of_param_[index]) --round.missing[b];
  launch_ready(round);
}

// Over the step: not before the last slot, in which other ranks may be the only ones to work. To
// wait for their reductions earlier would be to wait for gathers that this rank is to take part in.
void DataParallel::launch_ready(Round& round) {
  if (!each_slot_ && static_cast<int64_t>(slots_.size()) < slots(micro_batches_)) return;
  while (round.next < round.missing.size() && round.missing[round.next] == 0) launch(round);
}

void DataParallel::launch_all(Round& round) {
  while (round.next < round.missing.size()) launch(round);
}

void DataParallel::end_slot(int64_t slot, const Event& computed) {
  const auto at = slots_.find(slot);
  check(at != slots_.end() && at->second.open, "end_slot() without begin_slot()");
  at->second.open = false;
  if (!works()) return;
  if (!computed.happened()) stream_.wait(computed);
  if (each_slot_) {
    launch_all(round_of(slot));
    if (!holds_) wait_exposed();  // the next slot writes over what is still being sent
    return;
  }
  const bool last = static_cast<int64_t>(slots_.size()) == slots(micro_batches_) &&
                    std::none_of(slots_.begin(), slots_.end(),
                                 [](const auto& entry) { return entry.second.open; });
  if (last) launch_all(round_of(slot));
}

void DataParallel::finish() {
  const bool open = std::any_of(slots_.begin(), slots_.end(),
                                [](const auto& entry) { return entry.second.open; });
  if (open || slot_ + 1 != slots(micro_batches_)) {
    fail(cat("a step of ", slots(micro_batches_), " slots ends after ",
             open ? "the unfinished slot " : "slot ", slot_));
  }
  const bool wanted = sums_ && !host_ && config_.zero_stage < 2;
  for (size_t b = 0; wanted && b < layout_.buckets().size(); ++b) {
    const Buffer whole = gradient_buffer(layout_.buckets()[b].range);
    timed([&] {
      reduction_.write_back(b, whole);
      if (config_.zero_stage == 0) reduction_.gather(b, whole);
    });
  }
  wait_exposed();
  slot_ = -1;
  micro_batches_ = 0;
  slots_.clear();
  rounds_.clear();
  in_flight_.clear();
  zeros_ = {};
}

void DataParallel::wait_exposed() {
  const auto begin = Clock::now();
  stream_.synchronize();
  stats_.exposed_seconds += seconds(Clock::now() - begin);
}

// Gradients that are held here live until they are reduced: backward must not run away from links
// that are slower.
void DataParallel::wait_for_room() {
  const auto room = static_cast<size_t>(config_.in_flight);
  const auto begin = Clock::now();
  const Awaiting waits("room for gradients");
  for (; room > 0 && in_flight_.size() >= room; in_flight_.pop_front()) in_flight_.front().wait();
  stats_.exposed_seconds += seconds(Clock::now() - begin);
}

// What the calling thread spends here is exposed too: everything, on an immediate stream.
template <class F>
void DataParallel::timed(F&& enqueue) {
  const auto begin = Clock::now();
  stream_.run([this] { reduction_begin_ = Clock::now(); });
  enqueue();
  stream_.run([this] { stats_.reduction_seconds += seconds(Clock::now() - reduction_begin_); });
  stats_.exposed_seconds += seconds(Clock::now() - begin);
}

void DataParallel::launch(Round& round) {
  const size_t b = round.next;
  if (each_slot_ && last_added_[b] + 1 != round.slot) {
    fail(cat("the gradients of slot ", round.slot, " are complete before those of slot ",
             last_added_[b] + 1, "; a stage's micro-batches must end in their order"));
  }
  last_added_[b] = round.slot;
  Tensor own = holds_ ? std::exchange(round.gradients[b], {}) : Tensor();
  ++round.next;
  const FlatRange range = layout_.buckets()[b].range;
  const Buffer whole = !holds_ ? gradient_buffer(range)
                       : own   ? buffer_of(own.span<float>())
                               : zeros(sources_ * range.elements());
  timed([&] {
    if (config_.exact) {
      reduction_.add_each(b, whole, sources_ == 1 ? senders(round.slot) : active(round.slot));
    } else {
      reduction_.reduce(b, whole);
      if (sums_) {
        reduction_.add_own(b, whole);
      } else if (config_.zero_stage == 0) {
        reduction_.gather(b, whole);
      }
    }
  });
  ++stats_.reductions;
  if (!own) return;
  in_flight_.push_back(stream_.record());
  // The last reference, on the stream that reads it.
  stream_.run([own = std::move(own)]() mutable { own = {}; });
}

// For a unit without gradients here. Waits for nothing: others may be waiting for this rank's next
// reduction. The stream has one at a time in use, so one piece of memory does for all.
Buffer DataParallel::zeros(int64_t elements) {
  if (!zeros_) {
    int64_t largest = 0;
    for (const auto& bucket : layout_.buckets()) {
      largest = std::max(largest, bucket.range.elements());
    }
    zeros_ = Tensor(stream_.device(), {sources_ * largest}, Dtype::f32, MemoryKind::gradients);
  }
  const Buffer part = buffer_of(zeros_.span<float>()).part(0, elements);
  stream_.run([part] { std::memset(part.data, 0, part.bytes()); });
  return part;
}

Buffer DataParallel::gradient_buffer(FlatRange range) const {
  return buffer_of(gradients_).part(range.begin - range_.begin, range.elements());
}

std::vector<FlatRange> DataParallel::owned_ranges() const {
  if (config_.zero_stage == 0) return {range_};
  return layout_.owned(shard_.rank());
}

Event DataParallel::gather_parameters(Buffer store) {
  if (store.count != range_.elements()) {
    fail(cat("parameters of ", store.count, " elements for a store of ", range_.elements()));
  }
  check(config_.zero_stage < 3, "in stage 3 nobody holds all parameters");
  if (config_.zero_stage == 0 || shard_.size() == 1) return {};
  for (size_t b = layout_.buckets().size(); b-- > 0;) {
    const FlatRange range = layout_.buckets()[b].range;
    reduction_.gather(b, store.part(range.begin - range_.begin, range.elements()));
  }
  return stream_.record();
}

DataParallelStats DataParallel::stats() const {
  DataParallelStats stats = stats_;
  stats.bytes_sent = reduction_.bytes_sent();
  return stats;
}

void DataParallel::reset_stats() {
  stats_ = {};
  reduction_.reset_bytes();
}

}  // namespace shoestring
