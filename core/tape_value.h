#pragma once
// A value on the tape: a tensor, possibly in several encodings, and the number under which its
// gradient is collected. Values are handles; the memory goes when neither a handle nor a saved
// struct refers to it any more, so a layer's temporaries end with the layer's scope.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/tensor.h"

namespace shoestring {

class Value {
 public:
  Value() = default;
  explicit Value(Tensor tensor, int id = -1, bool wants_gradient = false);

  explicit operator bool() const { return state_ != nullptr; }
  const Tensor& tensor() const;
  // The same numbers in another element type, made on first request and shared by all consumers.
  // Rounds to nearest even when narrowing.
  Tensor encoded(Stream& stream, Dtype dtype) const;
  // Encodings that an op made of this value, as values of their own: made once, shared by all
  // consumers. Null while nothing is kept under the key.
  const std::vector<Value>* companions(uint64_t key) const;
  void keep_companions(uint64_t key, std::vector<Value> values) const;
  int id() const { return state_ ? state_->id : -1; }  // -1: not on a tape
  bool wants_gradient() const { return state_ && state_->wants_gradient; }

 private:
  struct State {
    Tensor tensor;
    int id;
    bool wants_gradient;
    std::vector<Tensor> encodings;
    std::vector<std::pair<uint64_t, std::vector<Value>>> companions;
  };
  std::shared_ptr<State> state_;
};

}  // namespace shoestring
