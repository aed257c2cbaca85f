#include "parallel/row_ops.h"

#include <gtest/gtest.h>

#include <mutex>

#include "core/random.h"
#include "core/text.h"
#include "parallel/comm/in_process.h"

namespace shoestring {
namespace {

Tensor random_rows(Device& device, int64_t rows, const std::string& name) {
  Tensor t(device, {rows, 3}, Dtype::f64);
  const RandomStream random(7, name);
  for (size_t i = 0; i < t.span<double>().size(); ++i) t.span<double>()[i] = random.normal(i);
  return t;
}

double dot(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  double sum = 0;
  for (size_t i = 0; i < a.span<double>().size(); ++i) {
    sum += a.span<double>()[i] * b.span<double>()[i];
  }
  return sum;
}

// <A x, y> = <x, A' y>, both summed over the ranks.
template <class Op>
void expect_adjoint(int ranks, int64_t rows_in, int64_t rows_out) {
  double left = 0, right = 0;
  std::mutex mutex;
  run_ranks(ranks, [&](Communicator& group) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    const std::string rank = cat(group.rank());
    const Tensor x = random_rows(device, rows_in, "x" + rank);
    const Tensor y = random_rows(device, rows_out, "y" + rank);
    typename Op::Saved saved;
    const Tensor ax = Op::forward(stream, {.group = &group}, {x}, saved)[0];
    const Tensor ay = Op::grad_input(stream, {.group = &group}, saved, {y})[0];
    const double l = dot(ax, y), r = dot(x, ay);
    const std::lock_guard lock(mutex);
    left += l, right += r;
  });
  EXPECT_NEAR(left, right, 1e-12 * std::abs(left)) << Op::name << " " << ranks;
  EXPECT_NE(left, 0);
}

TEST(RowOps, BackwardIsTheAdjoint) {
  for (const int ranks : {1, 2, 3, 4, 8}) {
    expect_adjoint<GatherRows>(ranks, 5, 5 * ranks);
    expect_adjoint<ScatterRows>(ranks, 4 * ranks, 4);
    expect_adjoint<KeepRows>(ranks, 2 * ranks, 2);
  }
}

// Its own adjoint would add up what every rank computes alike: a rank's share is its own rows.
TEST(RowOps, GatherAlikeGivesEachRankItsOwnRows) {
  run_ranks(3, [&](Communicator& group) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    const Tensor x = random_rows(device, 2, cat("x", group.rank()));
    NothingSaved saved;
    const Tensor all = GatherAlike::forward(stream, {.group = &group}, {x}, saved)[0];
    ASSERT_EQ(all.shape(), (Shape{6, 3}));
    EXPECT_EQ(dot(all.rows(2 * group.rank(), 2 * group.rank() + 2), x), dot(x, x));
    const Tensor dy = random_rows(device, 6, "alike");
    const Tensor dx = GatherAlike::grad_input(stream, {.group = &group}, saved, {dy})[0];
    const Tensor own = dy.rows(2 * group.rank(), 2 * group.rank() + 2);
    EXPECT_EQ(dot(dx, own), dot(own, own));
  });
}

TEST(RowOps, RowsThatCannotBeSharedOutAreRefused) {
  try {
    run_ranks(2, [&](Communicator& group) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream stream = Stream::immediate(device);
      NothingSaved saved;
      ScatterRows::forward(stream, {.group = &group}, {random_rows(device, 5, "x")}, saved);
    });
    FAIL() << "five rows were shared out among two ranks";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    EXPECT_NE(std::string(e.what()).find("5 rows of a micro-batch cannot be shared out"),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace shoestring
