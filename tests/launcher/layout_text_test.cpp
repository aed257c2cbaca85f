#include "launcher/layout_text.h"

#include <gtest/gtest.h>

#include "tests/launcher/training_fixture.h"

namespace shoestring {
namespace {

TEST(LayoutText, OfManyRanksIsFoldedUnlessAllAreWanted) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.model.vocabulary = small_vocabulary;
  config.mesh.pp = 2;
  config.parallel.zero_stage = 2;
  config.train.batch = 40;
  const std::string folded = layout_text(config, 20, false), all = layout_text(config, 20, true);
  EXPECT_NE(folded.find("\n  0-9     0   0 "), std::string::npos) << folded;
  EXPECT_NE(all.find("\n  19     0   1 "), std::string::npos) << all;
  for (const std::string& text : {folded, all}) {
    EXPECT_NE(text.find("\n20 micro-batches a step, 2 a data rank\n"
                        "ZeRO stage 2: data ranks share out masters, optimiser state and "
                        "gradients\n"),
              std::string::npos)
        << text;
  }
}

// The lines that a run begins with.
TEST(LayoutText, TrainTellsItsLayout) {
  const ScratchFolder folder;
  RunConfig config = small_config(folder);
  config.mesh.pp = 2;
  config.pipeline.schedule = "zb-h1";
  config.train.steps = 1;
  testing::internal::CaptureStdout();
  EXPECT_EQ(train(config, {}), ExitCode::done);
  const std::string told = testing::internal::GetCapturedStdout();
  EXPECT_NE(told.find("2 ranks: tp 1 x cp 1 x dp_shard 1 x dp_replicate 1 x pp 2\n"),
            std::string::npos)
      << told;
  EXPECT_NE(told.find("schedule zb-h1:\n  pp 0: stage 0 (1 block)\n  pp 1: stage 1 (1 block)\n"),
            std::string::npos)
      << told;
  config.mesh.pp = 1;
  config.run.directory = folder / "alone";
  testing::internal::CaptureStdout();
  EXPECT_EQ(train(config, {}), ExitCode::done);
  EXPECT_EQ(testing::internal::GetCapturedStdout().find("dp_replicate"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
