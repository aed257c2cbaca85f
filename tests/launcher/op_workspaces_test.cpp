#include "launcher/op_workspaces.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "core/device.h"
#include "core/ops/grouped_linear.h"
#include "core/text.h"
#include "tests/launcher/parity_fixture.h"

namespace shoestring {
namespace {

int64_t workspace_of(const ParityStep& step, bool forecast) {
  const MemoryFigure& f = step.memory[static_cast<size_t>(MemoryKind::workspace)];
  return forecast ? f.forecast : f.peak;
}

// Tensor ranks cut heads and the vocabulary, but not the experts, whose products need most then.
TEST(OpWorkspaces, OfExpertsAreNotCutByTensorRanks) {
  const ScratchFolder folder;
  RunConfig config = parity_config(folder);
  config.model.hidden = 128;
  config.model.moe = {.experts = 4, .chosen = 2, .ffn = 160};
  config.train.sequence_length = 64;
  config.train.micro_batch = 4;
  for (const int64_t tp : {1, 2, 4}) {
    config.mesh.tp = tp;
    const ParityStep step = run_parity_step(config);
    const int64_t peak = workspace_of(step, false), forecast = workspace_of(step, true);
    EXPECT_LE(peak, forecast) << tp;
    EXPECT_GE(static_cast<double>(peak), 0.8 * static_cast<double>(forecast)) << tp;
  }
}

// Whatever the routing is: all rows may be one expert's, and on several threads several experts'
// products run at once.
TEST(OpWorkspaces, OfExpertsBoundEveryRouting) {
  RunConfig config;
  config.model.hidden = 96;
  config.model.vocabulary = 64;
  config.model.moe = {.experts = 4, .chosen = 2, .ffn = 200};
  config.train.dtype = "f32";
  const int64_t tokens = 512;
  for (const int threads : {1, 2}) {
    const OpWorkspaces forecast =
        forecast_workspaces(config, {.sequences = 4, .length = tokens / 4, .threads = threads});
    int64_t most = 0;
    for (const int32_t longest : {128, 168, 256, 400, 512}) {
      Device device(DeviceKind::cpu, 0, threads);
      Stream stream = Stream::immediate(device);
      // Two experts have half of the rest each.
      const int32_t rest = (2 * static_cast<int32_t>(tokens) - longest) / 2, end = 2 * tokens;
      Tensor offsets(device, {5}, Dtype::i32, MemoryKind::data);
      const std::array<int32_t, 5> at = {0, longest, longest + rest, end, end};
      std::copy(at.begin(), at.end(), offsets.data<int32_t>());
      const Tensor x = Tensor::zeros(device, {end, 96}, Dtype::f32, MemoryKind::data);
      const Tensor w = Tensor::zeros(device, {4 * 400, 96}, Dtype::f32, MemoryKind::weights);
      const Tensor dw = Tensor::zeros(device, {4 * 400, 96}, Dtype::f32, MemoryKind::gradients);
      GroupedLinear::InputSaved input;
      GroupedLinear::WeightSaved weight;
      const auto y = GroupedLinear::forward(stream, {}, {x, offsets}, {w}, input, weight);
      GroupedLinear::grad_input(stream, {}, input, {w}, y);
      GroupedLinear::grad_weight(stream, {}, weight, y, {dw});
      most = std::max(most, device.ledger().peak(MemoryKind::workspace));
    }
    EXPECT_LE(most, forecast.experts) << threads;
    // Threads need not be at their products' worst at once.
    EXPECT_GE(3 * threads * most, 2 * forecast.experts) << threads;
  }
}

}  // namespace
}  // namespace shoestring
