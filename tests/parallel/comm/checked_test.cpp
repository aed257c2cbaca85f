#include "parallel/comm/checked.h"

#include <gtest/gtest.h>

#include "parallel/comm/in_process.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {
namespace {

struct Inline {
  Device device{DeviceKind::cpu, 0, 1};
  Stream stream = Stream::immediate(device);
};

std::string failure_of(int ranks, const std::function<void(Communicator&, Stream&)>& body) {
  try {
    run_ranks(ranks, [&](Communicator& world) {
      Inline here;
      const auto communicator = checked(world);
      body(*communicator, here.stream);
    });
  } catch (const RankError& error) {
    return error.what();
  }
  return "no failure";
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(Checked, TheMinorityIsNamed) {
  const std::string failure = failure_of(4, [](Communicator& c, Stream& stream) {
    std::vector<float> x(static_cast<size_t>(c.rank() == 0 ? 7 : 8));
    c.all_reduce(buffer_of(std::span(x)), Reduce::sum, stream);
  });
  EXPECT_TRUE(contains(failure,
                       "different calls: rank 0 calls all_reduce #0 of 7 x f32 (sum) where rank 1 "
                       "and 2 more call all_reduce #0 of 8 x f32 (sum)"))
      << failure;
}

TEST(Checked, OneCallTooManyIsSeenByItsNumber) {
  const std::string failure = failure_of(2, [](Communicator& c, Stream& stream) {
    std::vector<float> x(8);
    c.all_reduce(buffer_of(std::span(x)), Reduce::sum, stream);
    c.broadcast(buffer_of(std::span(x)), 0, stream);
    if (c.rank() == 1) c.all_reduce(buffer_of(std::span(x)), Reduce::sum, stream);
    auto child = c.split(0, 0);
  });
  EXPECT_TRUE(contains(failure,
                       "rank 1 calls all_reduce #2 of 8 x f32 (sum) where rank 0 calls "
                       "split #2"))
      << failure;
}

TEST(Checked, OtherPiecesOfTheSameWhole) {
  const std::string failure = failure_of(3, [](Communicator& c, Stream& stream) {
    std::vector<float> x(6), out(2);
    std::vector<int64_t> counts{2, 2, 2};
    if (c.rank() == 2) counts = {1, 3, 2};
    c.reduce_scatter(view_of(std::span(x)), counts, buffer_of(std::span(out)), Reduce::sum, stream);
  });
  EXPECT_TRUE(contains(failure,
                       "rank 2 calls reduce_scatter #0 of 6 x f32 (sum) (cut into other "
                       "pieces)"))
      << failure;
}

TEST(Checked, CountsOfAllToAllAreComparedPairwise) {
  const std::string failure = failure_of(3, [](Communicator& c, Stream& stream) {
    std::vector<int32_t> in(3), out(4);
    const std::vector<int64_t> ones{1, 1, 1};
    std::vector<int64_t> expected = ones;
    if (c.rank() == 1) expected[2] = 2;
    const Buffer to = buffer_of(std::span(out)).part(0, c.rank() == 1 ? 4 : 3);
    c.all_to_all(view_of(std::span(in)), ones, to, expected, stream);
  });
  EXPECT_TRUE(contains(failure, "rank 2 sends 1 elements to rank 1, which expects 2")) << failure;
}

TEST(Checked, MessagesAreComparedWithTheirReceivers) {
  const std::string failure = failure_of(2, [](Communicator& c, Stream& stream) {
    std::vector<float> x(4);
    std::vector<int32_t> y(4);
    const Transfer list[] = {c.rank() == 0 ? Transfer::send(1, view_of(std::span(x)))
                                           : Transfer::receive(0, buffer_of(std::span(y)))};
    c.exchange(list, stream);
  });
  EXPECT_TRUE(contains(failure,
                       "rank 0 calls exchange #0 of 4 x f32 where rank 1 expects exchange "
                       "#0 of 4 x i32"))
      << failure;
}

// Each way of a pair of calls to differ, found before a byte of the caller's moves, with where both
// calls are made.
TEST(Checked, SizeTypeOrderKindAndRootAreCompared) {
  struct Mismatch {
    const char* name;
    std::function<void(Communicator&, Stream&, std::vector<float>&)> odd;
    const char* told;
  };
  const Mismatch list[] = {
      {"size",
       [](Communicator& c, Stream& s, std::vector<float>& x) {
         c.all_reduce(buffer_of(std::span(x)).part(0, 3), Reduce::sum, s);
       },
       "calls all_reduce #0 of 3 x f32 (sum) (rank 3 of all, step 7, update)"},
      {"type",
       [](Communicator& c, Stream& s, std::vector<float>& x) {
         c.all_reduce({reinterpret_cast<std::byte*>(x.data()), 4, Dtype::i32}, Reduce::sum, s);
       },
       "calls all_reduce #0 of 4 x i32 (sum) (rank 3 of all, step 7, update)"},
      {"reduction",
       [](Communicator& c, Stream& s, std::vector<float>& x) {
         c.all_reduce(buffer_of(std::span(x)), Reduce::max, s);
       },
       "calls all_reduce #0 of 4 x f32 (max) (rank 3 of all, step 7, update)"},
      {"kind",
       [](Communicator& c, Stream& s, std::vector<float>& x) {
         c.broadcast(buffer_of(std::span(x)), 1, s);
       },
       "calls broadcast #0 of 4 x f32 from rank 1 (rank 3 of all, step 7, update)"},
      {"order",
       [](Communicator& c, Stream& s, std::vector<float>& x) {
         const std::vector<int64_t> counts{2, 2};
         c.reduce_scatter(view_of(std::span(x)), counts, buffer_of(std::span(x)).part(0, 2),
                          Reduce::sum, s);
         c.all_reduce(buffer_of(std::span(x)), Reduce::sum, s);
       },
       "calls reduce_scatter #0 of 4 x f32 (sum) (rank 3 of all, step 7, update)"},
  };
  for (const Mismatch& m : list) {
    const std::string failure = failure_of(4, [&](Communicator& world, Stream& stream) {
      const auto pair = world.split(world.rank() / 2, 0);
      enter_phase("update", 7);
      std::vector<float> x(4, static_cast<float>(world.rank()));
      try {
        if (world.rank() == 3) m.odd(*pair, stream, x);
        if (world.rank() != 3) pair->all_reduce(buffer_of(std::span(x)), Reduce::sum, stream);
      } catch (const Error&) {
        // Ranks 0 and 1 make equal calls, which the failure of the others may cut short anywhere.
        if (world.rank() < 2) throw;
        EXPECT_EQ(x, std::vector<float>(4, static_cast<float>(world.rank()))) << m.name;
        throw;
      }
    });
    EXPECT_TRUE(contains(failure, "the ranks of 'world/1' make different calls: rank 1 "))
        << m.name << ": " << failure;
    EXPECT_TRUE(contains(failure, m.told)) << m.name << ": " << failure;
    EXPECT_TRUE(contains(failure,
                         "where rank 0 calls all_reduce #0 of 4 x f32 (sum) (rank 2 of all, step "
                         "7, update)"))
        << m.name << ": " << failure;
  }
}

// Calls of different groups never meet: the ranks wait for one another, and the line has both.
TEST(Checked, AnotherGroupIsFoundAtTheDeadline) {
  std::string failure;
  try {
    run_ranks(
        4,
        [](Communicator& world) {
          Inline here;
          const auto all = checked(world);
          const auto row = all->split(world.rank() / 2, 0),
                     column = all->split(world.rank() % 2, 0);
          enter_phase("update", 7);
          std::vector<float> x(4, 1.0f);
          const bool odd = world.rank() == 1 || world.rank() == 2;
          (odd ? *column : *row).all_reduce(buffer_of(std::span(x)), Reduce::sum, here.stream);
          (odd ? *row : *column).all_reduce(buffer_of(std::span(x)), Reduce::sum, here.stream);
        },
        {.deadline = std::chrono::milliseconds(400), .name = "world"});
  } catch (const RankError& error) {
    failure = error.what();
  }
  EXPECT_TRUE(contains(failure, "ranks wait for one another: rank ")) << failure;
  EXPECT_TRUE(contains(failure, "of 'world/0'") && contains(failure, "of 'world/1'")) << failure;
}

TEST(Checked, SplitsAreCheckedToo) {
  const std::string failure = failure_of(4, [](Communicator& c, Stream& stream) {
    auto half = c.split(c.rank() % 2, 0);
    std::vector<float> x(static_cast<size_t>(c.rank() == 3 ? 2 : 1));
    half->all_reduce(buffer_of(std::span(x)), Reduce::sum, stream);
  });
  EXPECT_TRUE(contains(failure, "the ranks of 'world/1' make different calls: rank 1 calls"))
      << failure;
}

}  // namespace
}  // namespace shoestring
