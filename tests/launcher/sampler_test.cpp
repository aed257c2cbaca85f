#include "launcher/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>

#include "core/check.h"

namespace shoestring {
namespace {

const std::vector<float> logits = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f};

std::map<int32_t, double> frequencies(const SamplerOptions& options,
                                      const std::vector<int32_t>& seen = {}) {
  Sampler sampler(options, 0);
  std::map<int32_t, double> counts;
  const int draws = 20000;
  for (int i = 0; i < draws; ++i) counts[sampler.next(logits, seen)] += 1.0 / draws;
  return counts;
}

TEST(Sampler, GreedyTakesTheLikeliestAndTheSmallerIdOfTwo) {
  Sampler sampler({.temperature = 0}, 0);
  EXPECT_EQ(sampler.next(logits, {}), 1);
  Sampler penalised({.temperature = 0, .repetition_penalty = 2}, 0);
  EXPECT_EQ(penalised.next(logits, std::vector<int32_t>{1, 1}), 3);  // counted once, not twice
}

TEST(Sampler, DrawsFollowTheSoftmax) {
  double total = 0;
  for (float x : logits) total += std::exp(x / 0.7);
  const auto got = frequencies({.temperature = 0.7});
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto it = got.find(static_cast<int32_t>(i));
    EXPECT_NEAR(it == got.end() ? 0 : it->second, std::exp(logits[i] / 0.7) / total, 0.015) << i;
  }
}

TEST(Sampler, CutsKeepWhatTheySay) {
  EXPECT_EQ(frequencies({.temperature = 1, .top_k = 2}).size(), 2u);
  EXPECT_EQ(frequencies({.temperature = 1, .top_p = 0.5}).size(), 2u);  // 0.41 + 0.41
  EXPECT_EQ(frequencies({.temperature = 1, .top_p = 0.3}).size(), 1u);
  EXPECT_EQ(frequencies({.temperature = 1, .min_p = 0.3}).size(), 3u);  // e^-1 = 0.37 stays
  EXPECT_EQ(frequencies({.temperature = 1, .min_p = 0.4}).size(), 2u);
}

// Penalty, temperature and cuts together give the probabilities of transformers' generation
// (tests/data/make_formula_goldens.py), and what it cuts is never drawn.
TEST(Sampler, CombinationsAreThoseOfTransformers) {
  std::ifstream file(SHOESTRING_SOURCE_DIR "/tests/data/sampling.txt");
  SamplerOptions o;
  int cases = 0;
  while (file >> o.repetition_penalty >> o.temperature >> o.top_k >> o.top_p >> o.min_p) {
    std::vector<int32_t> seen(6);
    std::vector<float> row(16);
    std::vector<double> want(16);
    for (int32_t& id : seen) file >> id;
    for (float& x : row) file >> x;
    for (double& p : want) file >> p;
    Sampler sampler(o, 0);
    std::vector<double> got(16, 0);
    const int draws = 20000;
    for (int i = 0; i < draws; ++i)
      got[static_cast<size_t>(sampler.next(row, seen))] += 1.0 / draws;
    for (size_t i = 0; i < want.size(); ++i) {
      // Four deviations of a share of so many draws.
      EXPECT_NEAR(got[i], want[i], 4 * std::sqrt(want[i] * (1 - want[i]) / draws) + 1e-6)
          << "case " << cases << ", token " << i;
    }
    ++cases;
  }
  EXPECT_EQ(cases, 9);
}

TEST(Sampler, SeedAndSequenceFixTheDraws) {
  auto draw = [](uint64_t seed, uint64_t sequence) {
    Sampler sampler({.temperature = 1, .seed = seed}, sequence);
    std::vector<int32_t> ids;
    for (int i = 0; i < 40; ++i) ids.push_back(sampler.next(logits, {}));
    return ids;
  };
  EXPECT_EQ(draw(3, 0), draw(3, 0));
  EXPECT_NE(draw(3, 0), draw(4, 0));
  EXPECT_NE(draw(3, 0), draw(3, 1));
}

TEST(Sampler, ImpossibleOptionsAreUsageErrors) {
  EXPECT_THROW(Sampler({.temperature = -1}, 0), Error);
  EXPECT_THROW(Sampler({.top_p = 0}, 0), Error);
  EXPECT_THROW(Sampler({.repetition_penalty = 0}, 0), Error);
  EXPECT_THROW(Sampler({.temperature = NAN}, 0), Error);
  EXPECT_THROW(Sampler({.top_p = NAN}, 0), Error);
  EXPECT_THROW(Sampler({.repetition_penalty = NAN}, 0), Error);
  try {
    Sampler({.top_p = 1.5}, 0);
    ADD_FAILURE() << "took a probability of 1.5";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "--top-p must be above 0 and at most 1 but is 1.5");
  }
  Sampler sampler({}, 0);
  EXPECT_THROW(sampler.next(std::vector<float>{1, NAN}, {}), Error);
}

}  // namespace
}  // namespace shoestring
