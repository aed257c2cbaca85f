// A rank of a mesh of 2 x 2 x 2 threads throws, or stops answering, at each place of a step: the
// others end within the deadline and the patience of run_ranks, and one line tells it. Each rank in
// turn in the dense mesh, three in the sparse ones.

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "parallel/comm/run_ranks.h"
#include "tests/equivalence/planted_failure.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds usual_deadline{1500}, patience{200};
// What a busy machine may add.
constexpr std::chrono::seconds slack{8};

struct Told {
  std::string line;
  milliseconds after{0};  // the failure
  int calls = 0;          // of Patience::over
  bool happened = false;
};

// `answers`: false, and the rank hangs until the line was told; true, and it throws.
Told line_of(const FailurePlace& place, int victim, bool answers, milliseconds deadline) {
  const ScratchFolder folder;
  const RunConfig config =
      failing_config(SHOESTRING_SOURCE_DIR "/tests", folder / "run", place.mesh);
  std::atomic<bool> released = false, happened = false;
  Clock::time_point begin, told;
  PlantedFailure failure(place, answers, [&] {
    begin = Clock::now();
    happened = true;
    if (answers) fail("planted");
    while (!released) std::this_thread::sleep_for(milliseconds(2));
  });
  Told result;
  try {
    run_ranks(
        failure_ranks,
        [&](Communicator& world) {
          train_to_failure(config, world, world, world.rank() == victim ? &failure : nullptr);
        },
        {.deadline = deadline, .name = "world"},
        {.time = answers ? milliseconds(60000) : patience, .over = [&](const RankError& error) {
           result.line = error.what();
           told = Clock::now();
           ++result.calls;
           released = true;
         }});
  } catch (const RankError& error) {
    if (answers) {
      result.line = error.what();
      told = Clock::now();
    }
    if (happened) {
      EXPECT_EQ(error.rank(), victim) << error.what();
    }
  }
  result.happened = happened;
  result.after = std::chrono::duration_cast<milliseconds>(told - begin);
  return result;
}

void try_all_ranks(bool answers, size_t first, size_t end) {
  for (size_t p = first; p < end; ++p) {
    const FailurePlace& place = failure_places()[p];
    const bool sparse = place.mesh != FailureMesh::dense;
    for (int i = 0; i < (sparse ? 3 : failure_ranks); ++i) {
      const int victim = sparse ? (static_cast<int>(p) + 3 * i) % failure_ranks : i;
      SCOPED_TRACE(cat(place.name, ", rank ", victim));
      milliseconds deadline = answers ? milliseconds(30000) : usual_deadline;
      Told told = line_of(place, victim, answers, deadline);
      // On a busy machine a deadline may pass before the step with the failure begins.
      for (int again = 0; again < 3 && !told.happened; ++again) {
        deadline *= 3;
        told = line_of(place, victim, answers, deadline);
      }
      ASSERT_TRUE(told.happened) << told.line;
      const std::string said =
          cat("rank ", victim, answers ? ": planted" : " does not answer: rank ");
      EXPECT_EQ(missing_in(told.line, place, victim, said, !answers), "") << told.line;
      EXPECT_EQ(told.line.find('\n'), std::string::npos);
      EXPECT_EQ(told.calls, answers ? 0 : 1);
      EXPECT_LT(told.after, (answers ? milliseconds(0) : deadline + patience) + slack);
    }
  }
}

TEST(RankFailures, ARankThatThrowsInComputeIsTold) { try_all_ranks(true, 0, 3); }
TEST(RankFailures, ARankThatThrowsInACallIsTold) { try_all_ranks(true, 3, 6); }
TEST(RankFailures, ARankThatThrowsBehindAStepIsTold) { try_all_ranks(true, 6, 9); }
TEST(RankFailures, ARankThatHangsInComputeIsTold) { try_all_ranks(false, 0, 3); }
TEST(RankFailures, ARankThatHangsInACallIsTold) { try_all_ranks(false, 3, 6); }
TEST(RankFailures, ARankThatHangsBehindAStepIsTold) { try_all_ranks(false, 6, 9); }
TEST(RankFailures, ARankThatThrowsOnTheWayOfExpertsRowsIsTold) { try_all_ranks(true, 9, 12); }
TEST(RankFailures, ARankThatThrowsInTheRingOrBetweenNodesIsTold) { try_all_ranks(true, 12, 15); }
TEST(RankFailures, ARankThatHangsOnTheWayOfExpertsRowsIsTold) { try_all_ranks(false, 9, 12); }
TEST(RankFailures, ARankThatHangsInTheRingOrBetweenNodesIsTold) { try_all_ranks(false, 12, 15); }

}  // namespace
}  // namespace shoestring
