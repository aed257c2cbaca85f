#include "parallel/comm/decorator.h"

namespace shoestring {

void Decorator::all_reduce(Buffer inout, Reduce reduce, Stream& stream) {
  Call call;
  call.op = Call::Op::all_reduce;
  call.in = inout;
  call.out = inout;
  call.reduce = reduce;
  before(call, stream);
  inner_->all_reduce(inout, reduce, stream);
  after(call, stream);
}

void Decorator::reduce_scatter(View in, std::span<const int64_t> counts, Buffer out, Reduce reduce,
                               Stream& stream) {
  Call call;
  call.op = Call::Op::reduce_scatter;
  call.in = in;
  call.out = out;
  call.reduce = reduce;
  call.in_counts = counts;
  before(call, stream);
  inner_->reduce_scatter(in, counts, out, reduce, stream);
  after(call, stream);
}

void Decorator::all_gather(View in, std::span<const int64_t> counts, Buffer out, Stream& stream) {
  Call call;
  call.op = Call::Op::all_gather;
  call.in = in;
  call.out = out;
  call.out_counts = counts;
  before(call, stream);
  inner_->all_gather(in, counts, out, stream);
  after(call, stream);
}

void Decorator::all_to_all(View in, std::span<const int64_t> in_counts, Buffer out,
                           std::span<const int64_t> out_counts, Stream& stream) {
  Call call;
  call.op = Call::Op::all_to_all;
  call.in = in;
  call.out = out;
  call.in_counts = in_counts;
  call.out_counts = out_counts;
  before(call, stream);
  inner_->all_to_all(in, in_counts, out, out_counts, stream);
  after(call, stream);
}

void Decorator::broadcast(Buffer inout, int root, Stream& stream) {
  Call call;
  call.op = Call::Op::broadcast;
  call.in = inout;
  call.out = inout;
  call.root = root;
  before(call, stream);
  inner_->broadcast(inout, root, stream);
  after(call, stream);
}

void Decorator::exchange(std::span<const Transfer> transfers, Stream& stream) {
  Call call;
  call.op = Call::Op::exchange;
  call.transfers = transfers;
  before(call, stream);
  inner_->exchange(transfers, stream);
  after(call, stream);
}

std::unique_ptr<Communicator> Decorator::split(int color, int key) {
  before_split();
  auto child = inner_->split(color, key);
  return child == nullptr ? nullptr : wrap(std::move(child));
}

}  // namespace shoestring
