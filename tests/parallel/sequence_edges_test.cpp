#include "parallel/sequence_edges.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "core/tape.h"
#include "parallel/comm/in_process.h"
#include "parallel/context_cut.h"

namespace shoestring {
namespace {

constexpr int ranks = 3;
constexpr int64_t sequences = 2, length = 4, width = 3;  // of one rank

// Of column t of a whole row.
double value_of(int64_t b, int64_t t, int64_t i) {
  return 1000 * static_cast<double>(b) + 10 * static_cast<double>(t) + static_cast<double>(i);
}

Tensor own_rows(Device& device, int rank) {
  Tensor x(device, {sequences * length, width}, Dtype::f64);
  const ContextShare share = context_share(length * ranks, rank, ranks);
  for (int64_t i = 0; i < x.elements(); ++i) {
    const int64_t row = i / width;
    x.data<double>()[i] = value_of(row / length, share.column(row % length), i % width);
  }
  return x;
}

TEST(SequenceEdges, WholeSequencesStandInTheirOwnOrder) {
  run_ranks(ranks, [](Communicator& context) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    const SequenceAttributes a{.group = &context, .sequences = sequences};
    NothingSaved saved;
    const Tensor x = own_rows(device, context.rank());
    const Tensor all = GatherSequences::forward(stream, a, {x}, saved)[0];
    ASSERT_EQ(all.shape(), (Shape{sequences * ranks * length, width}));
    for (int64_t row = 0; row < all.rows(); ++row) {
      const int64_t b = row / (ranks * length), t = row % (ranks * length);
      EXPECT_EQ(all.data<double>()[row * width], value_of(b, t, 0));
    }
    const Tensor back = KeepSequences::forward(stream, a, {all}, saved)[0];
    for (int64_t i = 0; i < x.elements(); ++i) {
      EXPECT_EQ(back.data<double>()[i], x.data<double>()[i]);
    }
  });
}

// <keep x, y> = <x, keep' y>; a gather whose results all ranks use alike has its own rows' part.
TEST(SequenceEdges, GradientsAreThoseOfTheRowsHere) {
  run_ranks(ranks, [](Communicator& context) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    const SequenceAttributes a{.group = &context, .sequences = sequences};
    NothingSaved saved;
    const Tensor y = own_rows(device, context.rank());
    const Tensor spread = KeepSequences::grad_input(stream, a, saved, {y})[0];
    const Tensor again = KeepSequences::forward(stream, a, {spread}, saved)[0];
    double sum = 0, own = 0;
    for (int64_t i = 0; i < spread.elements(); ++i) sum += spread.data<double>()[i];
    for (int64_t i = 0; i < y.elements(); ++i) {
      EXPECT_EQ(again.data<double>()[i], y.data<double>()[i]);
      own += y.data<double>()[i];
    }
    EXPECT_EQ(sum, own) << "zeros elsewhere";
    const Tensor dy = GatherSequences::forward(stream, a, {y}, saved)[0];
    const Tensor dx = GatherSequences::grad_input(stream, a, saved, {dy})[0];
    for (int64_t i = 0; i < y.elements(); ++i) {
      EXPECT_EQ(dx.data<double>()[i], y.data<double>()[i]);
    }
  });
}

TEST(SequenceEdges, CrossesOnATapeAndRefusesRowsOfOtherSequences) {
  run_ranks(ranks, [](Communicator& context) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    ParamStore store(device, {}, Dtype::f64);
    StoreSource source(store);
    Tape tape(stream, source, Tape::Mode::training);
    SequenceEdges edges(context, nullptr, nullptr);
    edges.set_sequences(sequences);
    const Value x = tape.leaf(own_rows(device, context.rank()), true);
    const Value own = edges.keep()->cross(tape, edges.gather()->cross(tape, x));
    EXPECT_EQ(own.tensor().data<double>()[3], x.tensor().data<double>()[3]);
    edges.set_sequences(3);
    EXPECT_THROW(edges.gather()->cross(tape, x), Error);
  });
}

}  // namespace
}  // namespace shoestring
