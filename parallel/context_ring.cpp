#include "parallel/context_ring.h"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "core/ops/attention_block.h"
#include "core/ops/convert.h"
#include "core/tape.h"
#include "parallel/comm/whereabouts.h"
#include "parallel/context_cut.h"

namespace shoestring {
namespace {

using Attributes = RingAttentionOp::Attributes;

// Keys and values of one rank, or their gradients.
struct Pair {
  Tensor k, v;
};

AttentionBlock block_of(const AttentionShape& s) {
  return {.batch = s.batch,
          .queries = s.length,
          .keys = s.length,
          .q_heads = s.q_heads,
          .kv_heads = s.kv_heads,
          .head_dim = s.head_dim,
          .v_head_dim = s.v_head_dim,
          .scale = s.scale};
}

// What each query sees of a source's keys.
struct Borders {
  ContextShare own, source;
  int64_t window;
  Tensor first_key, low, high;  // i32 [B, L]
};

void find_borders(Stream& stream, const Borders& b) {
  stream.run([b] {
    const int64_t length = b.own.tokens();
    const auto first = b.first_key.span<int32_t>();
    for (size_t i = 0; i < first.size(); ++i) {
      const int64_t column = b.own.column(static_cast<int64_t>(i) % length);
      int64_t from = first[i];
      if (b.window > 0) from = std::max(from, column - b.window + 1);
      b.low.data<int32_t>()[i] = static_cast<int32_t>(b.source.count_before(from));
      b.high.data<int32_t>()[i] = static_cast<int32_t>(b.source.count_before(column + 1));
    }
  });
}
constexpr decltype(&find_borders) no_borders = nullptr;

// One pass round the ring. Buffers are few and fixed; events order their uses on both streams.
class Round {
 public:
  Round(Stream& stream, const Attributes& a, const Tensor& first_key)
      : stream_(stream),
        a_(a),
        block_(block_of(a.shape)),
        own_(context_share(a.shape.length * a.ring->size(), a.ring->rank(), a.ring->size())),
        first_key_(first_key),
        low_(stream.device(), {block_.batch, block_.queries}, Dtype::i32, MemoryKind::workspace),
        high_(stream.device(), {block_.batch, block_.queries}, Dtype::i32, MemoryKind::workspace) {}

  int steps() const { return a_.ring->size(); }
  const AttentionBlock& block() const { return block_; }

  // Keys and values of `dtype` that may be on the way, or sums of their gradients.
  Pair buffer(Dtype dtype) const {
    Device& device = stream_.device();
    return {Tensor(device, block_.k_shape(), dtype, MemoryKind::communication),
            Tensor(device, block_.v_shape(), dtype, MemoryKind::communication)};
  }
  void send(const Pair& x) { add(Transfer::Kind::send, next(), x); }
  void receive(const Pair& x) { add(Transfer::Kind::receive, previous(), x); }
  // Starts what was asked for, after all earlier work of the stream.
  void start() {
    if (transfers_.empty()) return;
    a_.transfers->wait(stream_.record());
    a_.ring->exchange(transfers_, *a_.transfers);
    a_.transfers->run([held = held_] {});  // memory lives at least until here
    arrived_ = a_.transfers->record();
    transfers_.clear();
    held_.clear();
  }
  // Later work of the stream finds what start() has received.
  void finish() {
    const Awaiting waits("keys and values");
    stream_.wait(arrived_);
  }

  // The operands of a step whose keys are those of rank - step.
  BlockOperands operands(const Tensor& q, const Pair& keys, int step) {
    ContextShare source = own_;
    source.rank = (own_.rank - step + steps()) % steps();
    on(stream_, RingAttentionOp::name, find_borders, no_borders,
       Borders{own_, source, a_.shape.window, first_key_, low_, high_});
    return {.q = q, .k = keys.k, .v = keys.v, .low = low_, .high = high_};
  }

 private:
  int next() const { return (own_.rank + 1) % steps(); }
  int previous() const { return (own_.rank + steps() - 1) % steps(); }
  void add(Transfer::Kind kind, int peer, const Pair& x) {
    for (const Tensor& t : {x.k, x.v}) {
      const Buffer buffer{t.raw(), t.elements(), t.dtype()};
      transfers_.push_back(kind == Transfer::Kind::send ? Transfer::send(peer, buffer)
                                                        : Transfer::receive(peer, buffer));
      held_.push_back(t);
    }
  }

  Stream& stream_;
  const Attributes& a_;
  AttentionBlock block_;
  ContextShare own_;
  Tensor first_key_, low_, high_;
  std::vector<Transfer> transfers_;
  std::vector<Tensor> held_;
  Event arrived_;
};

// Keys and values on their way: two buffers in turn, one to compute on and to send, one to receive.
class TravellingKeys {
 public:
  TravellingKeys(Round& round, const Pair& own) : round_(round), now_(own) {
    for (int i = 0; i < std::min(2, round.steps() - 1); ++i) {
      buffers_[static_cast<size_t>(i)] = round.buffer(own.k.dtype());
    }
  }
  const Pair& now() const { return now_; }
  void ask_for_next(int step) {
    if (step + 1 == round_.steps()) return;
    round_.send(now_);
    round_.receive(buffers_[static_cast<size_t>(step % 2)]);
  }
  void move_on(int step) { now_ = buffers_[static_cast<size_t>(step % 2)]; }

 private:
  Round& round_;
  Pair now_;
  std::array<Pair, 2> buffers_;
};

}  // namespace

RingAttention::RingAttention(Communicator& ring, Device& device)
    : ring_(ring), transfers_(Stream::worker(device, "ring attention")), abort_(ring) {}

Value RingAttention::run(Tape& tape, const AttentionShape& shape, const Value& q, const Value& k,
                         const Value& v, const Tensor& first_key) {
  return apply<RingAttentionOp>(tape, {.shape = shape, .ring = &ring_, .transfers = &transfers_},
                                {q, k, v, Value(first_key)});
}

Tensors<1> RingAttentionOp::forward(Stream& stream, const Attributes& a, const Tensors<4>& x,
                                    Saved& saved) {
  const auto& [q, k, v, first_key] = x;
  check_tensor(name, "first_key", first_key, {a.shape.batch, a.shape.length}, Dtype::i32);
  Device& device = stream.device();
  Round round(stream, a, first_key);
  const AttentionBlock& block = round.block();
  const Dtype dtype = q.dtype(), sums = AttentionBlock::sum_type(dtype);
  saved = {.q = q,
           .k = k,
           .v = v,
           .first_key = first_key,
           .o = Tensor(device, block.o_shape(), dtype),
           .log_sum_exp = Tensor(device, block.log_sum_exp_shape(), sums)};
  const Tensor o =
      dtype == sums ? saved.o : Tensor(device, block.o_shape(), sums, MemoryKind::workspace);
  fill(stream, o, 0);
  fill(stream, saved.log_sum_exp, -std::numeric_limits<double>::infinity());
  TravellingKeys keys(round, {k, v});
  for (int step = 0; step < round.steps(); ++step) {
    keys.ask_for_next(step);
    round.start();
    merge_attention_block(stream, block, round.operands(q, keys.now(), step), o, saved.log_sum_exp);
    round.finish();
    keys.move_on(step);
  }
  if (dtype != sums) convert_into(stream, saved.o, o);
  return {saved.o};
}

Tensors<4> RingAttentionOp::grad_input(Stream& stream, const Attributes& a, const Saved& saved,
                                       const Tensors<1>& dy) {
  if (!dy[0]) return {};
  Device& device = stream.device();
  Round round(stream, a, saved.first_key);
  const AttentionBlock& block = round.block();
  const Dtype dtype = saved.q.dtype(), sums = AttentionBlock::sum_type(dtype);
  const Tensor dq(device, block.q_shape(), sums,
                  dtype == sums ? MemoryKind::activations : MemoryKind::workspace);
  fill(stream, dq, 0);
  // Three buffers of sums in turn: the block's own, the earlier ranks' that arrive meanwhile, and
  // those of the step before on their way to the next rank.
  std::array<Pair, 3> sums_of;
  for (int i = 0; i < (round.steps() == 1 ? 1 : 3); ++i) {
    sums_of[static_cast<size_t>(i)] = round.buffer(sums);
  }
  const auto turn = [&](int step) -> const Pair& { return sums_of[static_cast<size_t>(step) % 3]; };
  TravellingKeys keys(round, {saved.k, saved.v});
  for (int step = 0; step < round.steps(); ++step) {
    keys.ask_for_next(step);
    if (step > 0) {
      round.send(turn(step - 1));
      round.receive(turn(step + 1));
    }
    round.start();
    const Pair& own = turn(step);
    fill(stream, own.k, 0);
    fill(stream, own.v, 0);
    add_attention_block_gradients(stream, block, round.operands(saved.q, keys.now(), step),
                                  {.o = saved.o,
                                   .dy = dy[0],
                                   .log_sum_exp = saved.log_sum_exp,
                                   .dq = dq,
                                   .dk = own.k,
                                   .dv = own.v});
    round.finish();
    if (step > 0) {
      accumulate(stream, own.k, turn(step + 1).k);
      accumulate(stream, own.v, turn(step + 1).v);
    }
    keys.move_on(step);
  }
  int home = 0;
  if (round.steps() > 1) {
    home = round.steps() + 1;
    round.send(turn(round.steps() - 1));
    round.receive(turn(home));
    round.start();
    round.finish();
  }
  return {dtype == sums ? dq : convert(stream, dq, dtype), convert(stream, turn(home).k, dtype),
          convert(stream, turn(home).v, dtype), Tensor()};
}

}  // namespace shoestring
