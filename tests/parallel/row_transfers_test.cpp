#include "parallel/row_transfers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "core/check.h"
#include "core/random.h"
#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "parallel/comm/throttled.h"
#include "parallel/row_ops.h"

namespace shoestring {
namespace {

Tensor random_rows(Device& device, int64_t rows, const std::string& name,
                   Dtype dtype = Dtype::bf16) {
  Tensor t(device, {rows, 3}, dtype);
  const RandomStream random(7, name);
  dispatch_float(dtype, [&]<class T>() {
    for (size_t i = 0; i < t.span<T>().size(); ++i) {
      t.span<T>()[i] = T(static_cast<float>(random.normal(i)));
    }
  });
  return t;
}

void expect_same(const Tensor& got, const Tensor& want, const std::string& what) {
  check(got.shape() == want.shape() && std::memcmp(got.raw(), want.raw(), want.bytes()) == 0,
        cat(what, " differs"));
}

// Counts what is asked for, and fills it from a tensor that is there.
struct Watch {
  std::vector<int> made, arrived;
  std::vector<int64_t> order;  // of arrivals, first rows
  RowWork work(const Tensor& source, int64_t rows_behind) {
    made.assign(static_cast<size_t>(source.rows()), 0);
    arrived.assign(static_cast<size_t>(rows_behind), 0);
    return {.make =
                [this, source](int64_t first, const Tensor& rows) {
                  const Tensor from = source.rows(first, first + rows.rows());
                  std::memcpy(rows.raw(), from.raw(), rows.bytes());
                  for (int64_t i = 0; i < rows.rows(); ++i) {
                    ++made[static_cast<size_t>(first + i)];
                  }
                },
            .arrived =
                [this](int64_t begin, int64_t end) {
                  order.push_back(begin);
                  for (int64_t i = begin; i < end; ++i) ++arrived[static_cast<size_t>(i)];
                }};
  }
  void check_once() const {
    for (const int n : made) check(n == 1, cat("a row was made ", n, " times"));
    for (const int n : arrived) check(n == 1, cat("a row arrived ", n, " times"));
  }
};

// Bits of the whole collectives, from rows that are there and from rows that are made.
TEST(RowTransfers, HaveTheBitsOfWholeTransfers) {
  for (const int ranks : {1, 2, 3, 4, 8}) {
    for (const int runs : {1, 2, 3, 9}) {
      run_ranks(ranks, [&](Communicator& group) {
        Device device(DeviceKind::cpu, 0, 1);
        Stream stream = Stream::immediate(device);
        RowTransfers transfers(group, device, runs);
        const int64_t n = 7, all = n * ranks;
        const Tensor own = random_rows(device, n, cat("own", group.rank()));
        const Tensor parts = random_rows(device, all, cat("parts", group.rank()));
        NothingSaved saved;
        const Tensor gathered = GatherRows::forward(stream, {.group = &group}, {own}, saved)[0];
        const Tensor summed = ScatterRows::forward(stream, {.group = &group}, {parts}, saved)[0];
        for (const bool made : {false, true}) {
          const auto run = [&](const Tensor& x, const Tensor& want, auto&& cross) {
            Watch watch;
            RowWork work = watch.work(x, want.rows());
            if (!made) work.make = nullptr, watch.made.clear();
            const Tensor y(device, want.shape(), want.dtype());
            cross(made ? Tensor() : x, y, work);
            stream.synchronize();
            expect_same(y, want, cat(runs, " runs"));
            watch.check_once();
          };
          run(own, gathered, [&](const Tensor& x, const Tensor& y, const RowWork& work) {
            transfers.gather().cross(stream, x, y, work);
          });
          run(parts, summed, [&](const Tensor& x, const Tensor& y, const RowWork& work) {
            transfers.gather().cross_back(stream, x, y, work);
          });
          run(parts, summed, [&](const Tensor& x, const Tensor& y, const RowWork& work) {
            transfers.scatter().cross(stream, x, y, work);
          });
          run(own, gathered, [&](const Tensor& x, const Tensor& y, const RowWork& work) {
            transfers.scatter().cross_back(stream, x, y, work);
          });
        }
      });
    }
  }
}

TEST(RowTransfers, OwnRowsComeFirst) {
  run_ranks(3, [&](Communicator& group) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream stream = Stream::immediate(device);
    RowTransfers transfers(group, device, 2);
    const Tensor own = random_rows(device, 4, "own"), y(device, {12, 3}, own.dtype());
    Watch watch;
    RowWork work = watch.work(own, 12);
    work.make = nullptr;
    transfers.gather().cross(stream, own, y, work);
    check(watch.order.front() == 4 * group.rank(), "another rank's rows are multiplied first");
    check(watch.order.size() == 5, "4 rows of each of 2 others come in 2 runs");
  });
}

// Links that take as long as the products: of 4 runs beside their products, at most one is waited
// for; one after the other they take twice as long.
TEST(RowTransfers, TravelWhileOthersAreMultiplied) {
  const auto seconds = [](int runs, bool gathers) {
    double longest = 0;
    run_ranks(2, [&](Communicator& world) {
      constexpr int64_t rows = 64;
      constexpr double whole = 0.2;  // seconds of all transfers, and of all products
      const auto link = throttled(world, {.bytes_per_second = rows / 2 * 3 * 2 / whole});
      Device device(DeviceKind::cpu, 0, 1);
      Stream stream = Stream::immediate(device);
      RowTransfers transfers(*link, device, runs);
      const Tensor own = random_rows(device, rows / 2, "own"), all = random_rows(device, rows, "x");
      const auto multiply = [&](int64_t count) {
        stream.run([count] {
          std::this_thread::sleep_for(std::chrono::duration<double>(whole * double(count) / rows));
        });
      };
      const auto begin = std::chrono::steady_clock::now();
      if (gathers) {
        transfers.gather().cross(
            stream, own, all,
            {.make = {}, .arrived = [&](int64_t b, int64_t e) { multiply(e - b); }});
      } else {
        transfers.scatter().cross(
            stream, {}, own,
            {.make = [&](int64_t, const Tensor& part) { multiply(part.rows()); }, .arrived = {}});
      }
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
      barrier(world, stream);
      if (world.rank() == 0) longest = taken.count();
    });
    return longest;
  };
  for (const bool gathers : {true, false}) {
    const double one = seconds(1, gathers), four = seconds(4, gathers);
    // gather: half of the products beside the transfer, and half behind it; scatter: one behind
    // the other.
    EXPECT_GT(one, gathers ? 0.29 : 0.39);
    EXPECT_LT(four, (gathers ? 0.9 : 0.8) * one) << gathers << " " << one;
  }
}

// While the product throws, runs are still on their way: the other rank is told, and nobody touches
// memory that is gone.
TEST(RowTransfers, AProductThatThrowsEndsBothRanks) {
  for (const bool gathers : {true, false}) {
    std::atomic<int> told = 0;
    try {
      run_ranks(2, [&](Communicator& world) {
        const auto link = throttled(world, {.bytes_per_second = 5000});
        Device device(DeviceKind::cpu, 0, 1);
        Stream stream = Stream::immediate(device);
        try {
          RowTransfers transfers(*link, device, 4);
          const auto work = [&] {
            if (world.rank() == 1) throw std::runtime_error("planted");
          };
          const Tensor own = random_rows(device, 32, "own"), all = random_rows(device, 64, "all");
          if (gathers) {
            transfers.gather().cross(stream, own, all,
                                     {.make = {}, .arrived = [&](int64_t, int64_t) { work(); }});
          } else {
            int64_t rows = 0;
            transfers.scatter().cross(stream, {}, own,
                                      {.make =
                                           [&](int64_t, const Tensor& part) {
                                             rows += part.rows();
                                             if (rows > 32) work();
                                           },
                                       .arrived = {}});
          }
          barrier(world, stream);
          stream.synchronize();
        } catch (const PeerFailure&) {
          told += 1;
          throw;
        }
      });
      ADD_FAILURE() << "nobody failed";
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find("planted"), std::string::npos) << error.what();
    }
    EXPECT_EQ(told, 1) << gathers;
  }
}

TEST(RowTransfers, RowsThatCannotBeSharedOutAreRefused) {
  EXPECT_THROW(run_ranks(2,
                         [&](Communicator& group) {
                           Device device(DeviceKind::cpu, 0, 1);
                           RowTransfers transfers(group, device, 2);
                           transfers.scatter().rows_beyond(5);
                         }),
               Error);
}

}  // namespace
}  // namespace shoestring
