#include "parallel/segment_passes.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "core/check.h"
#include "core/text.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

const StageSegments sparse = parse_segments("attention,dispatch,experts,combine");

StepTimes times_with(double way) {
  StepTimes times;
  for (size_t k = 0; k < segment_kinds; ++k) {
    const auto kind = static_cast<SegmentKind>(k);
    if (kind == SegmentKind::edge) continue;
    times.segments[k] = travels(kind) ? SegmentTimes{way, way, 0} : SegmentTimes{1, 1, 1};
  }
  return times;
}

Schedule split(const Schedule& s, const StageSegments& segments, const StepTimes& times) {
  const auto stages = static_cast<size_t>(s.where.stages());
  return split_segments(s, std::vector<StageSegments>(stages, segments), times);
}

TEST(PairOverlap, JoinsEachBackwardPassWithAForwardPassOfALaterMicroBatch) {
  const Schedule s = pair_overlap(make_schedule({.name = "1f1b", .ranks = 2, .micros = 4}));
  EXPECT_EQ(schedule_text(s),
            "0F0 0F1 0F2 0F3&0B0 0B1 0B2 0B3\n"
            "1F0 1B0&1F1 1B1&1F2 1B2&1F3 1B3\n");
  EXPECT_THROW(pair_overlap(make_schedule({.name = "zb-h1", .ranks = 2, .micros = 4})), Error);
  EXPECT_THROW(pair_overlap(make_schedule({.name = "dualpipe", .ranks = 2, .micros = 4})), Error);
}

// Pairs cost a bubble of their own at both ends, and none in between.
TEST(PairOverlap, RunsForAllSizes) {
  for (const char* name : {"1f1b", "interleaved-1f1b"}) {
    for (int ranks = 2; ranks <= 8; ++ranks) {
      double before = 0;
      for (int m = 3 * ranks; m <= 6 * ranks; m += ranks) {
        const Schedule plain = make_schedule({.name = name, .ranks = ranks, .micros = m});
        const Schedule pairs = pair_overlap(plain);
        EXPECT_EQ(complaints_of(add_transfers(pairs)), std::vector<std::string>()) << name << ranks;
        const Simulation s = simulate(pairs, {});
        if (before > 0) {
          EXPECT_NEAR(s.makespan - before, 3 * ranks, 1e-9) << name << ranks << m;
        }
        before = s.makespan;
        for (size_t r = 0; r < s.ranks.size(); ++r) {
          const double kept = pairs.where.chunks == 1
                                  ? 2 * (ranks - static_cast<double>(r))
                                  : simulate(plain, {}).ranks[r].peak_activations + 0.5;
          EXPECT_LE(s.ranks[r].peak_activations, kept) << name << ranks << " " << r;
        }
      }
    }
  }
}

// The order of Megatron's launches, which the sheet of DeepSeek-V3 quotes: combine(B) attention(F)
// experts dgrad(B) dispatch(F) experts wgrad(B) dispatch(B) experts(F) combine(F) attention(B).
TEST(SplitSegments, OnePairIsThePublishedOrder) {
  Schedule s{
      .name = "by hand", .where = {.micros = 2}, .ranks = parse_programs("0F0 0F1&0B0 0B1\n", "t")};
  EXPECT_EQ(schedule_text(split(s, sparse, times_with(0.5))),
            "0F0 0I0.3~ 0F1.0 0F1.1~ 0I0.2 0W0.2 0I0.1~ 0F1.2 0F1.3~ 0I0.0 0W0.0 0B1\n");
}

// Of a pair in which both may make gradients of the embedding's matrix, the first makes its own
// first: F of the last stage (the head) before B of stage 0 (the embedding).
TEST(SplitSegments, TheEmbeddingsGradientComesBehindTheHead) {
  StepTimes times = times_with(0);
  times.segments[static_cast<size_t>(SegmentKind::edge)] = {1, 10, 10};  // B has more to do
  const Schedule s = split_segments(
      make_schedule({.name = "dualpipe", .ranks = 2, .micros = 8}),
      {parse_segments("edge,attention,mlp"), parse_segments("attention,mlp,edge")}, times);
  int pairs = 0;
  for (const Program& program : s.ranks) {
    int open = 0;  // forward passes of the last stage that have begun and not ended
    for (const Instruction& i : program) {
      if (i.whole()) continue;
      if (i.what == Do::F && i.stage == 1 && i.part != 1) open += i.part == 0 ? 1 : -1;
      if (i.what == Do::I && i.stage == 0 && i.part == 0) {
        EXPECT_EQ(open, 0) << program_text(program);
        ++pairs;
      }
    }
  }
  EXPECT_GE(pairs, 4);
}

// A prediction module reads the embedding at the end of the model: B, which is first, is through
// with all its edges before F comes to one.
TEST(SplitSegments, TheOrderOfThePairIsThatOfItsEdges) {
  const StageSegments predicting = parse_segments("attention,mlp,edge,edge,attention,mlp,edge");
  StepTimes times = times_with(0);
  times.segments[static_cast<size_t>(SegmentKind::edge)] = {10, 1, 1};  // F has more to do
  const Schedule s = split(pair_overlap(make_schedule({.name = "1f1b", .ranks = 2, .micros = 4})),
                           predicting, times);
  std::map<int, size_t> last_of_backward, first_of_forward;
  const Program& program = s.ranks[1];
  for (size_t k = 0; k < program.size(); ++k) {
    const Instruction& i = program[k];
    if (i.what == Do::F && i.part == 2) first_of_forward[i.micro - 1] = k;
    if (i.what == Do::W && i.part == 2) last_of_backward[i.micro] = k;
  }
  ASSERT_EQ(first_of_forward.size(), 3u);
  for (const auto& [micro, k] : first_of_forward) EXPECT_LT(last_of_backward.at(micro), k);
}

TEST(SplitSegments, SendsGoWhenTheirPassIsDone) {
  const Schedule s =
      split(add_transfers(make_schedule({.name = "dualpipe", .ranks = 4, .micros = 12})), sparse,
            times_with(0.5));
  const std::string text = program_text(s.ranks[1]);
  // The gradient goes in front of the last weight gradients, the activation behind its combine.
  EXPECT_NE(text.find(" 2F8.3~ 1I0.0 2SA8 1SG0 1W0.0 "), std::string::npos) << text;
  EXPECT_EQ(complaints_of(s), std::vector<std::string>());
}

// At every order with pairs: runs, reads back, hides what travels in pairs and takes no longer than
// what hides nothing.
TEST(SplitSegments, HidesWhatTravels) {
  for (const char* name : {"dualpipe", "dualpipev", "1f1b", "interleaved-1f1b"}) {
    for (const int ranks : {2, 4, 8}) {
      const bool pairs = std::string(name).find("1f1b") != std::string::npos;
      Schedule plain = make_schedule({.name = name, .ranks = ranks, .micros = 8 * ranks});
      if (pairs) plain = pair_overlap(plain);
      for (const bool transfers : {false, true}) {
        const Schedule s = transfers ? add_transfers(plain) : plain;
        for (const double way : {0.25, 1.0}) {
          const StepTimes times = times_with(way);
          const Schedule parts = split(s, sparse, times);
          EXPECT_EQ(parse_programs(schedule_text(parts), "text"), parts.ranks);
          Schedule whole = s;
          whole.segments = parts.segments;
          const Simulation a = simulate(whole, times), b = simulate(parts, times);
          EXPECT_LT(b.makespan, a.makespan) << name << ranks << " " << way;
          for (size_t r = 0; r < a.ranks.size(); ++r) {
            EXPECT_NEAR(b.ranks[r].busy, a.ranks[r].busy, 1e-9);
            EXPECT_LT(b.ranks[r].exposed, 0.7 * a.ranks[r].exposed) << name << ranks << " " << way;
            EXPECT_EQ(b.ranks[r].peak_activations, a.ranks[r].peak_activations);
          }
        }
      }
    }
  }
}

TEST(SplitSegments, MutantsAreCaught) {
  const Schedule good =
      split(make_schedule({.name = "dualpipe", .ranks = 4, .micros = 8}), sparse, times_with(0.5));
  std::mt19937 random(3);
  int parts = 0;
  for (int n = 0; n < 600; ++n) {
    Schedule s = good;
    Program& program = s.ranks[random() % 4];
    const size_t at = random() % program.size();
    parts += program[at].whole() ? 0 : 1;
    switch (random() % 4) {
      case 0:
        program.erase(program.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 1:
        program.insert(program.begin() + static_cast<std::ptrdiff_t>(at), program[at]);
        break;
      case 2:
        program[at].part = static_cast<int16_t>(program[at].part == 3 ? 0 : program[at].part + 1);
        break;
      default:
        program[at].travels = !program[at].travels;
        if (program[at].whole()) program[at].micro = static_cast<int16_t>(program[at].micro ^ 1);
    }
    EXPECT_FALSE(complaints_of(s).empty()) << program_text(program);
  }
  EXPECT_GT(parts, 100);
}

TEST(SplitSegments, RefusesWhatIsNoPair) {
  const Schedule s{
      .name = "by hand", .where = {.micros = 2}, .ranks = parse_programs("0F0&0F1 0B0 0B1\n", "t")};
  EXPECT_THROW(split(s, sparse, {}), Error);
  const Schedule fine = make_schedule({.name = "dualpipe", .ranks = 2, .micros = 4});
  EXPECT_THROW(split(fine, parse_segments("dispatch,experts"), {}), Error);
  EXPECT_THROW(split_segments(fine, {sparse}, {}), Error);
}

}  // namespace
}  // namespace shoestring
