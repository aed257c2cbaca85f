#include "parallel/comm/checked.h"

#include <gtest/gtest.h>

#include "parallel/comm/in_process.h"

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
