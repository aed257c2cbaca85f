#include "launcher/parity_compare.h"

#include <gtest/gtest.h>

#include "tests/launcher/parity_fixture.h"

namespace shoestring {
namespace {

// Noise is a draw: a distance a little beyond that of some seeds is held against more of them.
TEST(ParityCompare, ADistanceNearItsLimitIsHeldAgainstMoreSeeds) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.train.dtype = "bf16";
  config.mesh.tp = 2;
  const ParityStep one = run_parity_step(on_one_rank(config));
  const ParityTruth truth = run_truth(config, one);
  const auto moved = [&](double limits) {
    ParityStep step = truth.step;
    const auto& [name, noise] = *truth.noise.gradients.begin();
    for (double& g : step.gradients.at(name)) g *= 1 + limits * 1.5 * noise;
    return step;
  };
  const auto seeds_for = [&](double limits) {
    ParityTruth own = truth;
    const ParityResult r = compare_steps(config, moved(limits), one, &own);
    EXPECT_EQ(r.numbers_met(), r.error <= 1.5) << text_of(r);
    EXPECT_EQ(r.error > 1.5, limits > 1 && own.seeds == most_noise_seeds) << text_of(r);
    for (const auto& [name, noise] : truth.noise.gradients) {
      EXPECT_GE(own.noise.gradients.at(name), noise) << name;
    }
    return own.seeds;
  };
  EXPECT_EQ(seeds_for(0.9), least_noise_seeds);
  EXPECT_GT(seeds_for(1.02), least_noise_seeds);
  EXPECT_EQ(seeds_for(3.9), most_noise_seeds);
  ParityTruth own = truth;
  EXPECT_FALSE(compare_steps(config, moved(4.1), one, &own).numbers_met());
  EXPECT_EQ(own.seeds, least_noise_seeds) << "a fault is no draw of noise";
}

}  // namespace
}  // namespace shoestring
