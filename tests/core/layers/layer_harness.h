#pragma once
// A tape, a store in f64 and one micro-batch, for tests of single layers.

#include <gtest/gtest.h>

#include "core/layers/context.h"
#include "core/random.h"

namespace shoestring {

class LayerHarness {
 public:
  LayerHarness(std::vector<ParamInfo> infos, int64_t length)
      : store_(device_, std::move(infos), Dtype::f64), source_(store_) {
    store_.initialise(6);
    MicroBatch m{.sequences = 1, .length = length};
    for (int64_t t = 0; t < length; ++t) {
      m.tokens.push_back(0);
      m.labels.push_back(-1);
      m.positions.push_back(static_cast<int32_t>(t));
      m.first_key.push_back(0);
    }
    batch_ = to_device(device_, m);
  }
  Tensor values(Shape shape, std::string_view name) {
    Tensor t(device_, std::move(shape), Dtype::f64);
    const RandomStream random(2, name);
    for (int64_t i = 0; i < t.elements(); ++i) {
      t.data<double>()[i] = random.normal(static_cast<uint64_t>(i));
    }
    return t;
  }
  const Param* param(std::string_view name) { return &store_.param(name); }
  const double* weight(std::string_view name) {
    return store_.weight(store_.param(name)).data<double>();
  }
  Tape tape(Tape::Mode mode = Tape::Mode::training) { return {stream_, source_, mode}; }
  const BatchTensors& batch() const { return batch_; }
  Device& device() { return device_; }
  ParamStore& store() { return store_; }

 private:
  Device device_;
  Stream stream_ = Stream::immediate(device_);
  ParamStore store_;
  StoreSource source_;
  BatchTensors batch_;
};

}  // namespace shoestring
