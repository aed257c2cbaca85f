#include "parallel/activation_offload.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/core/model/transformer_fixture.h"

namespace shoestring {
namespace {

struct Outcome {
  double loss = 0;
  std::vector<float> gradients;
  int64_t peak = 0, host_peak = 0, moved = 0;
};

// beside: copies on a thread of their own; told: and the backward pass is announced
enum class Way { here, host, host_beside, host_told };

Outcome run(const ModelConfig& model, Recompute recompute, Way way, bool in_phases) {
  Device device(DeviceKind::cpu, 0, 1), host(DeviceKind::cpu, 0, 1);
  Stream compute = Stream::immediate(device);
  Stream copies =
      way < Way::host_beside ? Stream::immediate(device) : Stream::worker(device, "copies");
  ParamStore store(device, parameters_of(model, whole_model(model)), Dtype::bf16);
  store.initialise(1);
  Transformer transformer(model, store, whole_model(model));
  const BatchTensors batch = to_device(device, some_rows(model.vocabulary, 40));
  StoreSource source(store);
  Outcome outcome;
  {
    ActivationOffload offload(source, host, copies);
    Tape tape(compute, way == Way::here ? static_cast<ParamSource&>(source) : offload,
              Tape::Mode::training);
    offload.attach(tape);
    LayerContext context{.tape = tape, .batch = batch, .recompute = recompute};
    std::vector<PredictionResult> predictions;
    outcome.loss =
        transformer.run(context, {.loss_scale = 0.1, .predictions = &predictions}).loss_sum;
    if (way == Way::host_told) {
      offload.offload();
      copies.synchronize();
      const int64_t before = device.ledger().current(MemoryKind::activations);
      offload.expect_backward();
      copies.synchronize();
      EXPECT_GT(device.ledger().current(MemoryKind::activations), before);
    }
    if (in_phases) {
      tape.backward_input();
      tape.backward_weight();
    } else {
      tape.backward();
    }
    outcome.moved = offload.bytes();
  }
  EXPECT_EQ(host.ledger().current_total(), 0);
  outcome.gradients.assign(store.gradients().begin(), store.gradients().end());
  outcome.peak = device.ledger().peak(MemoryKind::activations);
  outcome.host_peak = host.ledger().peak_total();
  return outcome;
}

TEST(ActivationOffload, ChangesNoBit) {
  for (const ModelConfig& model : families()) {
    for (const Recompute recompute : {Recompute::none, Recompute::norms, Recompute::block}) {
      for (const bool in_phases : {false, true}) {
        const Outcome want = run(model, recompute, Way::here, in_phases);
        for (const Way way : {Way::host, Way::host_beside, Way::host_told}) {
          const Outcome got = run(model, recompute, way, in_phases);
          EXPECT_EQ(got.loss, want.loss);
          EXPECT_EQ(std::memcmp(got.gradients.data(), want.gradients.data(),
                                want.gradients.size() * sizeof(float)),
                    0);
          EXPECT_GT(got.moved, 0);
        }
      }
    }
  }
}

// The device keeps what a few segments need, however deep the model is: what it keeps more or less
// of is copies under way, at most those of two segments.
TEST(ActivationOffload, TheDevicesPeakDoesNotGrowWithDepth) {
  ModelConfig model = small_model();
  std::array<Outcome, 2> here, there;
  for (const size_t deep : {0, 1}) {
    model.layers = deep == 0 ? 6 : 12;
    here[deep] = run(model, Recompute::none, Way::here, false);
    there[deep] = run(model, Recompute::none, Way::host_beside, false);
  }
  EXPECT_GT(here[1].peak, 1.7 * here[0].peak);
  const int64_t per_layer = (here[1].peak - here[0].peak) / 6;
  EXPECT_LT(there[1].peak, there[0].peak + 3 * per_layer);
  EXPECT_LT(there[1].peak, 0.5 * here[1].peak);
  EXPECT_GT(there[1].host_peak, 0.7 * here[1].peak);
}

}  // namespace
}  // namespace shoestring
