#pragma once
// Stages of exact arithmetic for tests of the pipeline engine: what they compute does not depend on
// the order of micro-batches, and tells whether each pass ran once, with its own values.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/pipeline_engine.h"

namespace shoestring {

// Stage s multiplies by s + 2; its one weight's gradient is the sum over micro-batches of x dy, in
// order. All numbers are small integers, exact in f32.
class Arithmetic : public StageWork {
 public:
  Arithmetic(Device& device, const Placement& where) : device_(device), where_(where) {}

  Boundary boundary(int, int micro) override { return {.shape = {1 + micro % 3}}; }
  Tensor forward(int stage, int micro, const Tensor& input) override {
    const float x = stage == 0 ? static_cast<float>(micro + 1) : value_of(input, micro);
    saved[{stage, micro}] = x;
    if (stage + 1 < where_.stages()) return made(micro, scale(x, stage));
    losses[micro] = scale(x, stage);
    return {};
  }
  Tensor backward_input(int stage, int micro, const Tensor& gradient) override {
    const float dy = stage + 1 == where_.stages() ? 1.0F : value_of(gradient, micro);
    owed[{stage, micro}] = {saved.at({stage, micro}), dy};
    saved.erase({stage, micro});
    return stage > 0 ? made(micro, modulo(dy * static_cast<float>(stage + 2))) : Tensor();
  }
  void backward_weight(int stage, int micro) override {
    const auto [x, dy] = owed.at({stage, micro});
    owed.erase({stage, micro});
    weights[stage] += modulo(x * dy);
    order[stage].push_back(micro);
  }

  // Parts with odd numbers travel; all is computed in part 0.
  void forward_parts(int stage, int micro, const Tensor& input, PartGate& gate) override {
    Tensor y;
    for (int k = 0; k < parts; ++k) {
      gate.enter(Do::F, k);
      if (k == 0) y = forward(stage, micro, input);
      if (k % 2 == 1) travel(gate);
    }
    gate.give(y);
  }
  void backward_parts(int stage, int micro, const Tensor& gradient, PartGate& gate) override {
    for (int k = parts; k-- > 0;) {
      gate.enter(Do::I, k);
      if (k % 2 == 1) {
        travel(gate);
        continue;
      }
      if (k == 0) gate.give(backward_input(stage, micro, gradient));
      gate.enter(Do::W, k);
      if (k == 0) backward_weight(stage, micro);
    }
  }
  static void travel(PartGate& gate) {
    gate.travel();
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    gate.leave();
  }
  int parts = 0;

  std::map<std::pair<int, int>, float> saved;
  std::map<std::pair<int, int>, std::pair<float, float>> owed;
  std::map<int, float> losses, weights;
  std::map<int, std::vector<int>> order;

 protected:
  static float modulo(float x) { return std::fmod(x, 8191.0F); }
  static float scale(float x, int stage) { return modulo(x * static_cast<float>(stage + 2)); }
  float value_of(const Tensor& t, int micro) {
    EXPECT_EQ(t.shape(), boundary(0, micro).shape);
    for (const float x : t.span<float>()) EXPECT_EQ(x, t.span<float>()[0]);
    return t.span<float>()[0];
  }
  Tensor made(int micro, float value) {
    Tensor t(device_, boundary(0, micro).shape, Dtype::f32);
    std::ranges::fill(t.span<float>(), value);
    return t;
  }
  Device& device_;
  const Placement& where_;
};

// What one rank computes that holds every stage.
inline void run_alone(const Schedule& s, Arithmetic& work) {
  for (int micro = 0; micro < s.where.micros; ++micro) {
    Tensor x;
    for (int stage = 0; stage < s.where.stages(); ++stage) x = work.forward(stage, micro, x);
    for (int stage = s.where.stages(); stage-- > 0;) x = work.backward(stage, micro, x);
  }
}

}  // namespace shoestring
