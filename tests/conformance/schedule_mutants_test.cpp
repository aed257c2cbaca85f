// Programs with an instruction swapped, dropped or doubled, thousands of them: the validator finds
// what is wrong and names rank and instruction, or the program does the same work in another order,
// and then the engine runs it to the same result.

#include <gtest/gtest.h>

#include <cctype>
#include <mutex>
#include <random>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/segment_passes.h"
#include "parallel/sharding_pass.h"
#include "tests/parallel/stage_arithmetic.h"

namespace shoestring {
namespace {

enum class Form { plain, transfers, sharded, parts };
enum class Change { swap, drop, duplicate };
constexpr const char* names_of_changes[] = {"swap", "drop", "duplicate"};

// Empty where the order has no such form.
Schedule made(const std::string& name, int ranks, int micros, Form form) {
  Schedule s = make_schedule({.name = name, .ranks = ranks, .micros = micros});
  if (form == Form::plain) return s;
  if (form == Form::transfers) return add_transfers(s);
  if (form == Form::sharded) return add_sharding(add_transfers(s), {.ahead = 1, .hold = 2});
  if (name.find("1f1b") != std::string::npos) {
    s = pair_overlap(s);
  } else if (name.find("dualpipe") == std::string::npos) {
    return {};
  }
  StepTimes times;
  for (SegmentTimes& t : times.segments) t = {1, 1, 1};
  return split_segments(
      add_transfers(s),
      std::vector<StageSegments>(static_cast<size_t>(s.where.stages()),
                                 parse_segments("attention,dispatch,experts,combine")),
      times);
}

Schedule changed(Schedule s, Change change, std::mt19937_64& random) {
  const auto draw = [&](size_t n) { return static_cast<size_t>(random() % n); };
  Program& program = s.ranks[draw(s.ranks.size())];
  const size_t at = draw(program.size());
  const auto place = [&](size_t k) { return program.begin() + static_cast<std::ptrdiff_t>(k); };
  switch (change) {
    case Change::swap: {
      // Half of them neighbours, where other orders of the same work are.
      const size_t other = random() % 2 == 0 ? (at + 1) % program.size() : draw(program.size());
      std::swap(program[at], program[other]);
      break;
    }
    case Change::drop:
      program.erase(place(at));
      break;
    case Change::duplicate: {
      const Instruction again = program[at];
      program.insert(place(draw(program.size() + 1)), again);
      break;
    }
  }
  return s;
}

// "rank 2" and an instruction such as "3F1", "0SG4" or "1W0.2".
bool names_rank_and_instruction(const std::string& complaint) {
  const size_t rank = complaint.find("rank ");
  if (rank == std::string::npos) return false;
  std::string word;
  for (const char c : complaint.substr(rank + 5) + " ") {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '~') {
      word += c;
      continue;
    }
    while (!word.empty() && word.back() == '.') word.pop_back();
    try {
      if (!word.empty() && parse_programs(word + "\n", "complaint").size() == 1) return true;
    } catch (const Error&) {
      // a word of the sentence
    }
    word.clear();
  }
  return false;
}

struct Computed {
  std::map<int, float> losses, weights;
  bool operator==(const Computed&) const = default;
};

Computed alone(const Schedule& s) {
  Device device(DeviceKind::cpu, 0, 1);
  Arithmetic work(device, s.where);
  run_alone(s, work);
  return {work.losses, work.weights};
}

Computed on_engine(const Schedule& s) {
  Computed all;
  std::mutex mutex;
  run_ranks(s.where.ranks,
            [&](Communicator& pipeline) {
              Device device(DeviceKind::cpu, 0, 1);
              Stream compute = Stream::immediate(device);
              PipelineEngine engine(pipeline, compute, s);
              Arithmetic work(device, s.where);
              work.parts = s.segments.empty() ? 0 : 4;
              engine.run(work);
              const std::lock_guard lock(mutex);
              EXPECT_TRUE(work.saved.empty() && work.owed.empty());
              all.losses.insert(work.losses.begin(), work.losses.end());
              for (const auto& [stage, dw] : work.weights) all.weights[stage] += dw;
            },
            {.deadline = std::chrono::seconds(30)});
  return all;
}

struct Count {
  int tried = 0, caught = 0, ran = 0;
};

class ScheduleMutants : public testing::TestWithParam<std::string> {
 protected:
  void try_mutants(const Schedule& good, Form form, std::mt19937_64& random) {
    ASSERT_EQ(complaints_of(good), std::vector<std::string>());
    const Computed wanted = alone(good);
    for (int n = 0; n < mutants; ++n) {
      const auto change = static_cast<Change>(n % 3);
      const Schedule mutant = changed(good, change, random);
      const std::string what = cat(names_of_changes[n % 3], " in ", good.name, ", ",
                                   good.where.ranks, " ranks:\n", schedule_text(mutant));
      ++count_.tried;
      const std::vector<std::string> complaints = complaints_of(mutant);
      if (!complaints.empty()) {
        ++count_.caught;
        for (const std::string& complaint : complaints) {
          EXPECT_TRUE(names_rank_and_instruction(complaint)) << complaint << "\n" << what;
        }
        continue;
      }
      EXPECT_EQ(change, Change::swap) << what;
      ++count_.ran;
      try {
        const Schedule runs = form == Form::plain ? add_transfers(mutant) : mutant;
        EXPECT_TRUE(on_engine(runs) == wanted) << what;
      } catch (const Error& e) {
        ADD_FAILURE() << e.what() << "\n" << what;
      }
    }
  }
  static constexpr int mutants = 48;
  Count count_;
};

TEST_P(ScheduleMutants, AreCaughtOrRun) {
  std::mt19937_64 random(1);
  for (const int ranks : {2, 3, 4, 8}) {
    if (GetParam() == "dualpipe" && ranks % 2 == 1) continue;
    for (const int micros : {2 * ranks, 3 * ranks + ranks % 2 * ranks}) {
      for (const Form form : {Form::plain, Form::transfers, Form::sharded, Form::parts}) {
        const Schedule good = made(GetParam(), ranks, micros, form);
        if (!good.ranks.empty()) try_mutants(good, form, random);
        if (HasFatalFailure()) return;
      }
    }
  }
  EXPECT_GE(count_.tried, 800);
  EXPECT_GT(count_.ran, 10);
  EXPECT_GT(count_.caught, count_.tried * 2 / 3);
  RecordProperty("tried", count_.tried);
  RecordProperty("ran", count_.ran);
}

std::vector<std::string> names() {
  std::vector<std::string> list;
  for (const ScheduleEntry& entry : schedule_entries()) list.push_back(entry.name);
  return list;
}
INSTANTIATE_TEST_SUITE_P(Orders, ScheduleMutants, testing::ValuesIn(names()), [](const auto& info) {
  std::string name = info.param;
  std::erase(name, '-');
  return name;
});

}  // namespace
}  // namespace shoestring
