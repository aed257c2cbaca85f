#include "parallel/data_parallel.h"

#include <algorithm>
#include <cstring>

#include "core/text.h"
#include "parallel/comm/collectives.h"
#include "parallel/comm/fold.h"

namespace shoestring {
namespace {

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

int64_t bucket_elements(const DataParallelConfig& config) {
  if (config.bucket_bytes < 1 || config.zero_stage < 0 || config.zero_stage > 1) {
    fail_usage(cat("data parallel with bucket_bytes = ", config.bucket_bytes, " and zero_stage = ",
                   config.zero_stage, "; buckets have bytes, and stages are 0 and 1"));
  }
  return std::max<int64_t>(config.bucket_bytes / static_cast<int64_t>(sizeof(float)), 1);
}

}  // namespace

DataParallel::DataParallel(Communicator& communicator, Stream& stream,
                           const DataParallelConfig& config, int64_t elements,
                           std::vector<ParamExtent> params)
    : communicator_(communicator),
      stream_(stream),
      config_(config),
      elements_(elements),
      layout_(elements, params, bucket_elements(config), communicator.size()),
      buckets_of_param_(params.size()),
      params_in_bucket_(layout_.buckets().size()),
      announced_(params.size()) {
  const std::vector<Bucket>& buckets = layout_.buckets();
  int64_t owned = 0, largest = 0;
  for (size_t b = 0; b < buckets.size(); ++b) {
    const FlatRange range = buckets[b].range;
    for (size_t p = 0; p < params.size(); ++p) {
      if (params[p].begin < range.end && params[p].end > range.begin) {
        buckets_of_param_[p].push_back(b);
        ++params_in_bucket_[b];
      }
    }
    const int64_t piece = layout_.piece(buckets[b], communicator.rank()).elements();
    accumulator_begin_.push_back(owned);
    owned += piece;
    largest = std::max(largest, piece);
  }
  accumulator_begin_.push_back(owned);
  if (!config.exact) return;
  Device& device = stream.device();
  accumulators_ = Tensor::zeros(device, {owned}, Dtype::f32, MemoryKind::gradients);
  if (communicator.size() > 1) {
    staging_ =
        Tensor(device, {communicator.size(), largest}, Dtype::f32, MemoryKind::communication);
  }
}

DataParallel::~DataParallel() {
  if (std::uncaught_exceptions() > exceptions_) {
    communicator_.abort("it left a training step by an exception");
  }
  try {  // work in flight uses our memory
    stream_.synchronize();
  } catch (const std::exception&) {
    // Whoever enqueued the work that failed was told, or is being told by the exception under way.
  }
}

int64_t DataParallel::slots(int64_t micro_batches) const {
  return (micro_batches + communicator_.size() - 1) / communicator_.size();
}

bool DataParallel::has_micro_batch(int64_t slot, int64_t micro_batches) const {
  return slot * communicator_.size() + communicator_.rank() < micro_batches;
}

// Plain mode sums locally until the last slot; alone there is nothing to do at all.
bool DataParallel::reduces_in_slot() const {
  if (config_.exact) return true;
  return communicator_.size() > 1 && slot_ + 1 == slots(micro_batches_);
}

void DataParallel::begin_slot(std::span<float> gradients, int64_t slot, int64_t micro_batches) {
  const bool ordered = slot == 0 || (slot == slot_ + 1 && micro_batches == micro_batches_);
  if (in_slot_ || !ordered || slot >= slots(micro_batches)) {
    fail(cat("slot ", slot, " of a step of ", micro_batches, " micro-batches cannot begin after ",
             in_slot_ ? "the unfinished slot " : "slot ", slot_));
  }
  if (static_cast<int64_t>(gradients.size()) != elements_) {
    fail(cat("gradients of ", gradients.size(), " elements for a store of ", elements_));
  }
  gradients_ = gradients;
  slot_ = slot;
  micro_batches_ = micro_batches;
  in_slot_ = true;
  missing_ = params_in_bucket_;
  announced_.assign(announced_.size(), false);
  next_ = 0;
  if (config_.exact && slot == 0) {
    stream_.run([this] {
      if (accumulators_.bytes() > 0) std::memset(accumulators_.raw(), 0, accumulators_.bytes());
    });
  }
}

void DataParallel::gradient_ready(int param, const Event& computed) {
  if (!in_slot_ || param < 0 || static_cast<size_t>(param) >= announced_.size() ||
      announced_[static_cast<size_t>(param)]) {
    fail(cat("the gradient of parameter ", param, " was announced ",
             in_slot_ ? "twice in a slot, or there is no such parameter" : "outside of a slot"));
  }
  announced_[static_cast<size_t>(param)] = true;
  if (!reduces_in_slot()) return;
  if (!computed.happened()) stream_.wait(computed);
  for (size_t b : buckets_of_param_[static_cast<size_t>(param)]) --missing_[b];
  launch_ready();
}

void DataParallel::launch_ready() {
  while (next_ < missing_.size() && missing_[next_] == 0) launch(next_++);
}

void DataParallel::end_slot() {
  check(in_slot_, "end_slot() without begin_slot()");
  in_slot_ = false;
  if (!reduces_in_slot()) return;
  while (next_ < missing_.size()) launch(next_++);
  // The next slot writes over what exact mode is still sending.
  if (config_.exact) wait_exposed();
}

void DataParallel::finish() {
  if (in_slot_ || slot_ + 1 != slots(micro_batches_)) {
    fail(cat("a step of ", slots(micro_batches_), " slots ends after slot ", slot_));
  }
  if (config_.exact) {
    for (size_t b = 0; b < layout_.buckets().size(); ++b) write_back_exact(b);
  }
  wait_exposed();
  slot_ = -1;
  micro_batches_ = 0;
}

void DataParallel::wait_exposed() {
  const auto begin = Clock::now();
  stream_.synchronize();
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

void DataParallel::launch(size_t index) {
  timed([&] {
    if (config_.exact) {
      accumulate_exact(index);
    } else {
      reduce_plain(layout_.buckets()[index]);
    }
  });
  ++stats_.reductions;
}

Buffer DataParallel::gradient_buffer(FlatRange range) const {
  return buffer_of(gradients_).part(range.begin, range.elements());
}

std::span<float> DataParallel::accumulated(size_t index) const {
  const int64_t begin = accumulator_begin_[index], end = accumulator_begin_[index + 1];
  return accumulators_.span<float>().subspan(static_cast<size_t>(begin),
                                             static_cast<size_t>(end - begin));
}

void DataParallel::reduce_plain(const Bucket& bucket) {
  const Buffer whole = gradient_buffer(bucket.range);
  const Buffer own = gradient_buffer(layout_.piece(bucket, communicator_.rank()));
  Call call;
  call.in = whole;
  call.out = own;
  call.in_counts = bucket.counts;
  call.op = Call::Op::reduce_scatter;
  stats_.bytes_sent += bytes_sent(call, communicator_.rank(), communicator_.size());
  communicator_.reduce_scatter(whole, bucket.counts, own, Reduce::sum, stream_);
  if (config_.zero_stage > 0) return;
  stats_.bytes_sent += static_cast<int64_t>(own.bytes()) * (communicator_.size() - 1);
  communicator_.all_gather(own, bucket.counts, whole, stream_);
}

// Owners get this slot's micro-batches from the ranks that have one and add them one by one, in
// the order of their index. A rank without one sends nothing: adding its zeros could change -0.
void DataParallel::accumulate_exact(size_t index) {
  const Bucket& bucket = layout_.buckets()[index];
  const int n = communicator_.size(), rank = communicator_.rank();
  const std::span<float> sums = accumulated(index);
  if (n == 1) {
    const std::span<const float> x =
        gradients_.subspan(static_cast<size_t>(bucket.range.begin), sums.size());
    stream_.run([sums, x] { add_into(sums, x); });
    return;
  }
  const int64_t senders = std::min<int64_t>(n, micro_batches_ - slot_ * n);
  const auto own = static_cast<int64_t>(sums.size());
  std::vector<int64_t> out_counts(static_cast<size_t>(n));
  std::fill_n(out_counts.begin(), senders, own);
  std::vector<int64_t> in_counts(static_cast<size_t>(n));
  View in = gradient_buffer(bucket.range);
  if (rank < senders) {
    in_counts = bucket.counts;
    stats_.bytes_sent += (in.count - own) * static_cast<int64_t>(sizeof(float));
  } else {
    in.count = 0;
  }
  const Buffer received{staging_.raw(), own * senders, Dtype::f32};
  communicator_.all_to_all(in, in_counts, received, out_counts, stream_);
  stream_.run([this, sums, senders] {
    for (size_t r = 0; r < static_cast<size_t>(senders); ++r) {
      add_into(sums, staging_.span<float>().subspan(r * sums.size(), sums.size()));
    }
  });
}

void DataParallel::write_back_exact(size_t index) {
  const Bucket& bucket = layout_.buckets()[index];
  const Buffer own = gradient_buffer(layout_.piece(bucket, communicator_.rank()));
  timed([&] {
    stream_.run([own, sums = accumulated(index)] {
      std::copy(sums.begin(), sums.end(), reinterpret_cast<float*>(own.data));
    });
    if (config_.zero_stage > 0 || communicator_.size() == 1) return;
    stats_.bytes_sent += static_cast<int64_t>(own.bytes()) * (communicator_.size() - 1);
    communicator_.all_gather(own, bucket.counts, gradient_buffer(bucket.range), stream_);
  });
}

std::vector<FlatRange> DataParallel::owned_ranges() const {
  if (config_.zero_stage == 0) return {{0, elements_}};
  return layout_.owned(communicator_.rank());
}

Event DataParallel::gather_parameters(Buffer store) {
  if (store.count != elements_) {
    fail(cat("parameters of ", store.count, " elements for a store of ", elements_));
  }
  if (config_.zero_stage == 0 || communicator_.size() == 1) return {};
  const std::vector<Bucket>& buckets = layout_.buckets();
  for (auto bucket = buckets.rbegin(); bucket != buckets.rend(); ++bucket) {
    const FlatRange piece = layout_.piece(*bucket, communicator_.rank());
    const Buffer own = store.part(piece.begin, piece.elements());
    stats_.bytes_sent += static_cast<int64_t>(own.bytes()) * (communicator_.size() - 1);
    communicator_.all_gather(own, bucket->counts,
                             store.part(bucket->range.begin, bucket->range.elements()), stream_);
  }
  return stream_.record();
}

}  // namespace shoestring
