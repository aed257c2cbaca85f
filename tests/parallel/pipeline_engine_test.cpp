#include "parallel/pipeline_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/in_process.h"
#include "parallel/comm/whereabouts.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"
#include "parallel/segment_passes.h"
#include "tests/parallel/stage_arithmetic.h"

namespace shoestring {
namespace {

class EveryOrder : public testing::TestWithParam<std::string> {};

TEST_P(EveryOrder, ComputesWhatOneRankDoes) {
  for (const int ranks : {2, 4, 8}) {
    const Schedule s =
        add_transfers(make_schedule({.name = GetParam(), .ranks = ranks, .micros = 3 * ranks}));
    Device alone_device;
    Arithmetic alone(alone_device, s.where);
    run_alone(s, alone);
    std::mutex mutex;
    std::map<int, float> losses, weights;
    run_ranks(ranks, [&](Communicator& pipeline) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream compute = Stream::immediate(device);
      PipelineEngine engine(pipeline, compute, s);
      for (int step = 0; step < 2; ++step) {
        Arithmetic work(device, s.where);
        engine.run(work);
        EXPECT_TRUE(work.saved.empty() && work.owed.empty());
        const std::lock_guard lock(mutex);
        if (step == 0) losses.insert(work.losses.begin(), work.losses.end());
        if (step == 0) {
          for (const auto& [stage, dw] : work.weights) weights[stage] += dw;
        }
      }
      EXPECT_EQ(engine.stats().instructions,
                2 * static_cast<int64_t>(s.ranks[static_cast<size_t>(pipeline.rank())].size()));
    });
    EXPECT_EQ(losses, alone.losses) << GetParam() << ranks;
    EXPECT_EQ(weights, alone.weights) << GetParam() << ranks;
  }
}

std::vector<std::string> names() {
  std::vector<std::string> list;
  for (const ScheduleEntry& entry : schedule_entries()) list.push_back(entry.name);
  return list;
}
INSTANTIATE_TEST_SUITE_P(PipelineEngine, EveryOrder, testing::ValuesIn(names()),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(PipelineEngine, TellsAListenerOfEachInstructionInOrder) {
  const Schedule s = add_transfers(make_schedule({.name = "zb-h1", .ranks = 2, .micros = 4}));
  run_ranks(2, [&](Communicator& pipeline) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream compute = Stream::immediate(device);
    PipelineEngine engine(pipeline, compute, s);
    Program ran;
    std::chrono::steady_clock::time_point last;
    engine.listen([&](const InstructionSpan& span) {
      EXPECT_LE(last, span.begin);
      EXPECT_LE(span.begin, span.end);
      last = span.end;
      ran.push_back(span.what);
    });
    Arithmetic work(device, s.where);
    engine.run(work);
    EXPECT_EQ(ran, s.ranks[static_cast<size_t>(pipeline.rank())]);
    engine.listen({});
    Arithmetic again(device, s.where);
    engine.run(again);
    EXPECT_EQ(ran.size(), s.ranks[static_cast<size_t>(pipeline.rank())].size());
  });
}

class Expectant : public Arithmetic {
 public:
  using Arithmetic::Arithmetic;
  void expect_gradient(int stage, int micro) override {
    EXPECT_TRUE(expected.insert({stage, micro}).second) << stage << ", " << micro;
  }
  Tensor backward_input(int stage, int micro, const Tensor& gradient) override {
    came += expected.count({stage, micro});
    return Arithmetic::backward_input(stage, micro, gradient);
  }
  std::set<std::pair<int, int>> expected;
  size_t came = 0;
};

// Of every gradient that another rank sends, before the backward pass that takes it.
TEST(PipelineEngine, TellsWhichGradientsItExpects) {
  for (const char* name : {"1f1b", "zb-v", "dualpipe"}) {
    const Schedule s = add_transfers(make_schedule({.name = name, .ranks = 4, .micros = 8}));
    run_ranks(4, [&](Communicator& pipeline) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream compute = Stream::immediate(device);
      PipelineEngine engine(pipeline, compute, s);
      Expectant work(device, s.where);
      engine.run(work);
      const Program& program = s.ranks[static_cast<size_t>(pipeline.rank())];
      const auto receipts =
          std::ranges::count_if(program, [](const Instruction& i) { return i.what == Do::RG; });
      EXPECT_EQ(work.expected.size(), static_cast<size_t>(receipts)) << name;
      EXPECT_EQ(work.came, work.expected.size()) << name;
    });
  }
}

class SlowFirst : public Arithmetic {
 public:
  using Arithmetic::Arithmetic;
  Tensor forward(int stage, int micro, const Tensor& input) override {
    if (stage == 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return Arithmetic::forward(stage, micro, input);
  }
};

// The second rank waits for the slow first one; its spans begin behind that.
TEST(PipelineEngine, WaitsAreToldApartFromTheInstructionsBehindThem) {
  const Schedule s = add_transfers(make_schedule({.name = "gpipe", .ranks = 2, .micros = 2}));
  run_ranks(2, [&](Communicator& pipeline) {
    Device device(DeviceKind::cpu, 0, 1);
    Stream compute = Stream::immediate(device);
    PipelineEngine engine(pipeline, compute, s);
    std::map<std::string, std::chrono::steady_clock::time_point> ended;
    const WaitListener waits = [&](std::string_view what, auto, auto end) {
      ended[std::string(what)] = end;
    };
    listen_to_waits(&waits);
    int behind = 0;
    engine.listen([&](const InstructionSpan& span) {
      const auto wait = ended.find(awaited_by(span.what));
      if (wait == ended.end() || !is_compute(span.what.what)) return;
      EXPECT_LE(wait->second, span.begin);
      ++behind;
    });
    SlowFirst work(device, s.where);
    engine.run(work);
    listen_to_waits(nullptr);
    if (pipeline.rank() == 0) return;
    EXPECT_TRUE(ended.contains("input of 1F1"));  // made 100 ms behind 1F0, which takes none
    EXPECT_GE(behind, 1);
  });
}

class FailsAt : public Arithmetic {
 public:
  using Arithmetic::Arithmetic;
  Tensor forward(int stage, int micro, const Tensor& input) override {
    if (stage == 2 && micro == 3) fail_data("the disk is full");
    return Arithmetic::forward(stage, micro, input);
  }
};

TEST(PipelineEngine, AFailureEndsAllRanksAndNamesTheInstruction) {
  const Schedule s = add_transfers(make_schedule({.name = "zb-h1", .ranks = 4, .micros = 8}));
  const auto begin = std::chrono::steady_clock::now();
  std::mutex mutex;
  std::vector<std::string> consequences;
  try {
    run_ranks(4, [&](Communicator& pipeline) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream compute = Stream::immediate(device);
      PipelineEngine engine(pipeline, compute, s);
      FailsAt work(device, s.where);
      try {
        engine.run(work);
      } catch (const PeerFailure& e) {
        const std::lock_guard lock(mutex);
        consequences.emplace_back(e.what());
        throw;
      }
    });
    FAIL() << "the error was lost";
  } catch (const RankError& e) {
    EXPECT_EQ(e.rank(), 2);
    EXPECT_EQ(e.code(), ExitCode::data);
    EXPECT_NE(std::string(e.what()).find("the disk is full"), std::string::npos) << e.what();
  }
  ASSERT_EQ(consequences.size(), 3u);
  int named = 0;
  for (const std::string& text : consequences) {
    EXPECT_TRUE(text.starts_with("pipeline rank ")) << text;
    named += text.find("2F3") != std::string::npos ? 1 : 0;
  }
  EXPECT_GE(named, 1);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

Schedule parts_of(const Schedule& plain) {
  const auto stages = static_cast<size_t>(plain.where.stages());
  StepTimes times;
  for (SegmentTimes& t : times.segments) t = {1, 1, 1};
  return split_segments(
      add_transfers(plain),
      std::vector<StageSegments>(stages, parse_segments("attention,dispatch,experts,combine")),
      times);
}

TEST(PipelineEngine, PartsComputeWhatWholePassesDo) {
  for (const char* name : {"dualpipe", "dualpipev", "1f1b"}) {
    Schedule plain = make_schedule({.name = name, .ranks = 4, .micros = 12});
    if (plain.name == "1f1b") plain = pair_overlap(plain);
    const Schedule s = parts_of(plain);
    std::mutex mutex;
    std::map<int, float> losses[2], weights[2];
    for (const bool parts : {false, true}) {
      const Schedule& run = parts ? s : add_transfers(plain);
      run_ranks(4, [&](Communicator& pipeline) {
        Device device(DeviceKind::cpu, 0, 1);
        Stream compute = Stream::immediate(device);
        PipelineEngine engine(pipeline, compute, run);
        EXPECT_EQ(engine.backward_stream() != nullptr, parts);
        Arithmetic work(device, run.where);
        work.parts = parts ? 4 : 0;
        engine.run(work);
        EXPECT_TRUE(work.saved.empty() && work.owed.empty());
        EXPECT_EQ(engine.stats().travel_seconds > 0, parts);
        const std::lock_guard lock(mutex);
        losses[parts].insert(work.losses.begin(), work.losses.end());
        for (const auto& [stage, dw] : work.weights) weights[parts][stage] += dw;
      });
    }
    EXPECT_EQ(losses[0], losses[1]) << name;
    EXPECT_EQ(weights[0], weights[1]) << name;
  }
}

// A pass of a pair fails, and the other pass waits for rows of a rank that has gone: all end.
TEST(PipelineEngine, AFailureInAPartEndsAllRanks) {
  class Fails : public Arithmetic {
   public:
    using Arithmetic::Arithmetic;
    void backward_parts(int stage, int micro, const Tensor& gradient, PartGate& gate) override {
      if (stage == 2 && micro == 1) fail_data("the disk is full");
      Arithmetic::backward_parts(stage, micro, gradient, gate);
    }
    void forward_parts(int stage, int micro, const Tensor& input, PartGate& gate) override {
      if (stage != 1 || micro < 8) return Arithmetic::forward_parts(stage, micro, input, gate);
      gate.enter(Do::F, 0);
      gate.enter(Do::F, 1);
      gate.travel();
      barrier(*rows, gate.stream());  // its peer never comes
      gate.leave();
    }
    Communicator* rows = nullptr;
  };
  const Schedule s = parts_of(make_schedule({.name = "dualpipe", .ranks = 4, .micros = 12}));
  const auto begin = std::chrono::steady_clock::now();
  try {
    run_ranks(4, [&](Communicator& pipeline) {
      Device device(DeviceKind::cpu, 0, 1);
      Stream compute = Stream::immediate(device);
      const auto rows = pipeline.split(0, pipeline.rank());
      PipelineEngine engine(pipeline, compute, s);
      Fails work(device, s.where);
      work.parts = 4;
      work.rows = rows.get();
      engine.run(work);
    });
    FAIL() << "the error was lost";
  } catch (const RankError& e) {
    EXPECT_NE(std::string(e.what()).find("the disk is full"), std::string::npos) << e.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(PipelineEngine, OneRankNeedsNoLinks) {
  const Schedule s = add_transfers(make_schedule({.name = "1f1b", .ranks = 1, .micros = 3}));
  run_ranks(1, [&](Communicator& pipeline) {
    Device device;
    Stream compute = Stream::immediate(device);
    PipelineEngine engine(pipeline, compute, s);
    Arithmetic work(device, s.where);
    engine.run(work);
    EXPECT_EQ(work.losses.size(), 3u);
    EXPECT_EQ(engine.stats().bytes_sent, 0);
  });
}

}  // namespace
}  // namespace shoestring
