#include "core/tape_value.h"

#include "core/check.h"
#include "core/ops/convert.h"

namespace shoestring {

Value::Value(Tensor tensor, int id, bool wants_gradient)
    : state_(std::make_shared<State>(State{std::move(tensor), id, wants_gradient, {}, {}})) {}

const Tensor& Value::tensor() const {
  check(state_ != nullptr, "an empty value was used as a tensor");
  return state_->tensor;
}

const std::vector<Value>* Value::companions(uint64_t key) const {
  check(state_ != nullptr, "an empty value was asked for its encodings");
  for (const auto& [kept, values] : state_->companions) {
    if (kept == key) return &values;
  }
  return nullptr;
}

void Value::keep_companions(uint64_t key, std::vector<Value> values) const {
  state_->companions.emplace_back(key, std::move(values));
}

Tensor Value::encoded(Stream& stream, Dtype dtype) const {
  if (tensor().dtype() == dtype) return tensor();
  for (const Tensor& t : state_->encodings) {
    if (t.dtype() == dtype) return t;
  }
  state_->encodings.push_back(convert(stream, tensor(), dtype));
  return state_->encodings.back();
}

}  // namespace shoestring
