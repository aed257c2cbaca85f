// Bugs of other systems (tests/launcher/parity_test.cpp has more) that end a run with an error, or
// need a layout alone.

#include <gtest/gtest.h>

#include <regex>
#include <string>

#include "core/text.h"
#include "tests/launcher/faulty_communicator.h"
#include "tests/launcher/parity_fixture.h"

namespace shoestring {
namespace {

using What = PlantedFault::What;

// The first stage has no experts in a mesh that shares them out.
RunConfig with_dense_stage(const ScratchFolder& folder) {
  RunConfig config = parity_config(folder);
  config.model.moe.first_dense = 2;
  config.model.moe.balance.bias_speed = 0.01;
  config.mesh.pp = 2, config.mesh.ep = 2;
  config.parallel.data_parallel = 2;
  return config;
}

// T #1689, M #3401, M !2719: its ranks leave the sum of the experts' loads out, or sum another
// number of them. No figure can show these: the run ends, with the call and who is apart.
TEST(ParityMuseum, AStageWithoutExperts) {
  const ScratchFolder folder;
  const RunConfig config = with_dense_stage(folder);
  const ParityResult sound = parity_of(config);
  EXPECT_TRUE(sound.met()) << text_of(sound);
  for (const What what : {What::no_sum, What::shorter}) {
    const PlantedFault fault{.what = what, .alone = true, .dtype = Dtype::f64, .below = 2};
    try {
      parity_of(config, [&](Communicator& inner) {
        return std::make_unique<FaultyCommunicator>(inner, fault);
      });
      ADD_FAILURE() << "nothing was told of fault " << static_cast<int>(what);
    } catch (const Error& error) {
      const std::string text = error.what();
      const std::regex apart("rank \\d sends \\d+ bytes but rank \\d expects \\d+ in all_reduce #");
      EXPECT_TRUE(std::regex_search(text, apart)) << text;
    }
  }
}

// T #1136: a vocabulary that the ranks do not divide. Its bug was of a resumption, which parity has
// not (checkpoint_layouts_test.cpp); the step of such a layout is one rank's.
TEST(ParityMuseum, AnOddVocabulary) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.model.vocabulary = 201;  // 51 + 51 + 51 + 48
  config.mesh.tp = 4;
  const ParityResult r = parity_of(config);
  EXPECT_TRUE(r.met()) << text_of(r);
}

}  // namespace
}  // namespace shoestring
