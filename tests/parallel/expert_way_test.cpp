#include "parallel/expert_way.h"

#include "tests/parallel/expert_case.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

Tensor index_of(Device& device, const std::vector<int32_t>& list) {
  return Tensor::from(device, {static_cast<int64_t>(list.size())}, std::span<const int32_t>(list));
}

TEST(ExpertWay, TakesRowsOfAnyType) {
  Device device(DeviceKind::cpu, 0, 2);
  Stream stream = Stream::immediate(device);
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16}) {
    const Tensor x = normal_tensor(device, {5, 3}, dtype, "x");
    const Tensor y = take_rows(stream, x, index_of(device, {4, -1, 0, 0}), MemoryKind::workspace);
    EXPECT_EQ(y.shape(), Shape({4, 3}));
    const size_t row = 3 * size_of(dtype);
    for (size_t i : {size_t{2}, size_t{3}})
      EXPECT_EQ(0, std::memcmp(y.raw() + i * row, x.raw(), row));
    EXPECT_EQ(0, std::memcmp(y.raw(), x.raw() + 4 * row, row));
    for (size_t i = row; i < 2 * row; ++i) EXPECT_EQ(y.raw()[i], std::byte{0});
  }
  const Tensor x = normal_tensor(device, {5, 3}, Dtype::f32, "x");
  EXPECT_THROW(take_rows(stream, x, index_of(device, {5}), MemoryKind::workspace), Error);
  EXPECT_EQ(take_rows(stream, x, index_of(device, {}), MemoryKind::workspace).rows(), 0);
}

// Three ranks: rank r keeps r rows and sends one to each other rank; the last stays at home unsent.
ExpertWay way_of(Device& device, Communicator& ranks, bool identity) {
  const int r = ranks.rank();
  ExpertWay way;
  ExpertLeg leg{.ranks = &ranks, .order = {}, .sent = {1, 1, 1}, .received = {1, 1, 1}};
  leg.sent[static_cast<size_t>(r)] = leg.received[static_cast<size_t>(r)] = r;
  const int32_t rows = r + 2;
  leg.order.from = rows + 1;
  leg.order.to = rows;
  std::vector<int32_t> reversed, back(static_cast<size_t>(rows) + 1, -1);
  for (int32_t i = 0; i < rows; ++i) {
    reversed.push_back(rows - 1 - i);
    back[static_cast<size_t>(rows - 1 - i)] = i;
  }
  way.order = {.there = {}, .back = {}, .from = rows, .to = rows};
  if (!identity) {
    leg.order.there = index_of(device, reversed);
    leg.order.back = index_of(device, back);
    // The end has one row more than arrives.
    reversed.push_back(-1);
    way.order.there = index_of(device, reversed);
    way.order.back = index_of(device, {back.begin(), back.end() - 1});
    way.order.to = rows + 1;
  }
  way.legs = {leg};
  return way;
}

TEST(ExpertWay, BackIsTheInverseAndTheAdjoint) {
  for (bool identity : {false, true}) {
    std::vector<double> products(6);
    run_ranks(3, [&](Communicator& world) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream stream = Stream::worker(device, "rows");
      AbortOnUnwind guard(world);
      const ExpertWay way = way_of(device, world, identity);
      const std::string name = cat("rank ", world.rank());
      const Tensor x = normal_tensor(device, {way.legs[0].order.from, 4}, Dtype::f64, name);
      const Tensor there = travel(stream, way, x);
      const Tensor back = travel_back(stream, way, there);
      const Tensor y = normal_tensor(device, there.shape(), Dtype::f64, name + " y");
      const Tensor adjoint = travel_back(stream, way, y);
      stream.synchronize();
      const int64_t sent = way.legs[0].order.to;
      check_same_bits(back.rows(0, sent), x.rows(0, sent), "there and back");
      for (int64_t i = 0; i < 4; ++i) {
        check(back.data<double>()[sent * 4 + i] == 0,
              "rows that did not travel come back as zeros");
      }
      auto dot = [](const Tensor& a, const Tensor& b) {
        double sum = 0;
        for (int64_t i = 0; i < a.elements(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
        return sum;
      };
      products[static_cast<size_t>(world.rank())] = dot(there, y);
      products[static_cast<size_t>(world.rank()) + 3] = dot(x, adjoint);
      check(bytes_there(way, 10) == 20 && bytes_back(way, 10) == 20, "two rows go to others");
    });
    EXPECT_NEAR(products[0] + products[1] + products[2], products[3] + products[4] + products[5],
                1e-12);
  }
}

// Two ranks that keep two and three rows each, and read all five in reverse.
TEST(ExpertWay, SlicesGatherRowsAndAddTheirParts) {
  run_ranks(2, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::worker(device, "rows");
    AbortOnUnwind guard(world);
    const auto alone = world.split(world.rank(), 0);
    const int64_t rows = world.rank() + 2;
    ExpertWay way;
    way.legs = {{.ranks = alone.get(),
                 .order = {.there = {}, .back = {}, .from = rows, .to = rows},
                 .sent = {rows},
                 .received = {rows}}};
    way.slices = {.ranks = &world, .rows = {2, 3}};
    const Tensor reverse = index_of(device, {4, 3, 2, 1, 0});
    way.order = {.there = reverse, .back = reverse, .from = 5, .to = 5};
    const auto number = [](int64_t rank, int64_t row) {
      return static_cast<double>(10 * rank + row);
    };
    Tensor x(device, {rows, 1}, Dtype::f64);
    for (int64_t i = 0; i < rows; ++i) x.data<double>()[i] = number(world.rank(), i);
    const Tensor there = travel(stream, way, x);
    stream.synchronize();
    const double wanted[] = {12, 11, 10, 1, 0};
    check(std::equal(wanted, wanted + 5, there.data<double>()), "all rows, in reverse");
    // Rank r gives (r + 1) times what it has read: three times home together.
    for (int64_t i = 0; i < 5; ++i) there.data<double>()[i] *= world.rank() + 1;
    const Tensor home = travel_back(stream, way, there);
    stream.synchronize();
    check(home.rows() == rows, "own rows come home");
    for (int64_t i = 0; i < rows; ++i) {
      check(home.data<double>()[i] == 3 * number(world.rank(), i), "the sum of both parts");
    }
    check(rows_given(way) == rows && bytes_there(way, 10) == 10 * rows &&
              bytes_back(way, 10) == 10 * (5 - rows),
          "own rows there, the other's back");
  });
}

TEST(ExpertWay, RefusesOtherRows) {
  run_ranks(3, [](Communicator& world) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    const ExpertWay way = way_of(device, world, false);
    const Tensor x = normal_tensor(device, {9, 4}, Dtype::f32, "x");
    for (auto* go : {&travel, &travel_back}) {
      bool refused = false;
      try {
        (*go)(stream, way, x);
      } catch (const Error&) {
        refused = true;
      }
      check(refused, "nine rows are not those of the plan");
    }
  });
}

}  // namespace
}  // namespace shoestring
