#include "launcher/parity.h"

#include <gtest/gtest.h>

#include "core/text.h"
#include "tests/launcher/parity_fixture.h"

namespace shoestring {
namespace {

TEST(Parity, LayoutsHoldIt) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.mesh.tp = 2, config.mesh.pp = 2;
  const ParityResult wide = parity_of(config);
  EXPECT_TRUE(wide.met()) << text_of(wide);
  EXPECT_GT(wide.error, 0);
  config.mesh.tp = 1;
  config.parallel.data_parallel = 2;
  config.mesh.ep = 2;
  config.pipeline.schedule = "dualpipe";
  const ParityResult deep = parity_of(config);
  EXPECT_TRUE(deep.met()) << text_of(deep);
}

TEST(Parity, OfDataRanksInExactModeIsEquality) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.train.exact = true;
  config.parallel.data_parallel = 3;
  for (const int64_t zero : {0, 1}) {
    config.parallel.zero_stage = zero;
    const ParityResult r = parity_of(config);
    EXPECT_TRUE(r.met()) << text_of(r);
    EXPECT_EQ(r.error_limit, 0);
  }
}

TEST(Parity, OfNarrowTypesIsTheDistanceToTheTruth) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.model.moe = {};
  config.train.dtype = "bf16";
  config.mesh.tp = 2;
  const ParityResult r = parity_of(config);
  EXPECT_TRUE(r.met()) << text_of(r);
  EXPECT_GT(r.error, 0.5);
  EXPECT_EQ(r.error_limit, 1.5);
}

TEST(Parity, BytesAreThoseOfTheFormula) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.model.vocabulary = 256;
  config.model.moe = {};
  config.model.tied_embeddings = false;
  config.mesh.pp = 2;
  const ParityStep step = run_parity_step(config);
  // Activations one way, gradients the other: 8 micro-batches of 32 tokens.
  EXPECT_EQ(step.sent[static_cast<size_t>(Call::Op::exchange)],
            4 * 2 * 8 * 32 * config.model.hidden);
  EXPECT_EQ(step.sent, step.formula);
  EXPECT_EQ(run_parity_step(on_one_rank(config)).sent, (decltype(step.sent){}));
}

}  // namespace
}  // namespace shoestring
