#pragma once
// One FP8 layer with its store, for the tests of the ops that use it.

#include "core/fp8/layer.h"

namespace shoestring::testing {

class Fp8Case {
 public:
  Fp8Case(const std::string& name, Shape shape, PrecisionConfig config = v3())
      : store(device, {{.name = name, .shape = std::move(shape)}}, Dtype::bf16),
        plan(resolve(config), store, 1) {
    store.initialise(4);
  }
  static PrecisionConfig v3() {
    PrecisionConfig config;
    config.recipe = "deepseek_v3";
    return config;
  }
  const Param& param() { return store.params()[0]; }
  Fp8Layer& layer() { return *plan.layers()[0]; }
  Tensor weight() { return store.weight(param()); }

  Device device;
  Stream stream = Stream::immediate(device);
  ParamStore store;
  Fp8Plan plan;
};

}  // namespace shoestring::testing
