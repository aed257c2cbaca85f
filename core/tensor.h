#pragma once
// A tensor is a typed, contiguous, row-major view on a block of device memory.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/memory.h"

namespace shoestring {

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims)
      : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims);  // at most max_rank
  static constexpr size_t max_rank = 6;
  int rank() const { return static_cast<int>(rank_); }
  // Negative dims count from the end. Out of range is an error.
  int64_t operator[](int dim) const;
  void set(int dim, int64_t size) { dims_.at(static_cast<size_t>(dim)) = size; }
  int64_t elements() const;  // 1 for rank 0
  int64_t rows() const;      // all dims but the last, multiplied
  int64_t columns() const { return (*this)[-1]; }
  std::span<const int64_t> dims() const { return {dims_.data(), rank_}; }
  std::string text() const;                                      // "[4, 512]"
  friend bool operator==(const Shape&, const Shape&) = default;  // unused dims are 0

 private:
  std::array<int64_t, max_rank> dims_{};
  size_t rank_ = 0;
};

class Tensor {
 public:
  Tensor() = default;
  // Contents undefined.
  Tensor(Device& device, Shape shape, Dtype dtype, MemoryKind kind = MemoryKind::activations);
  // A view on part of a block; `offset` in bytes.
  Tensor(BlockPtr block, size_t offset, Shape shape, Dtype dtype);
  static Tensor zeros(Device& device, Shape shape, Dtype dtype,
                      MemoryKind kind = MemoryKind::activations);
  // A copy of host values, for tests and small tables.
  template <class T>
  static Tensor from(Device& device, Shape shape, std::span<const T> values);

  explicit operator bool() const { return block_ != nullptr; }
  const Shape& shape() const { return shape_; }
  Dtype dtype() const { return dtype_; }
  int64_t elements() const { return shape_.elements(); }
  int64_t rows() const { return shape_.rows(); }
  int64_t columns() const { return shape_.columns(); }
  size_t bytes() const { return static_cast<size_t>(elements()) * size_of(dtype_); }
  Device& device() const { return block_->device(); }
  const BlockPtr& block() const { return block_; }

  std::byte* raw() const { return block_->data() + offset_; }
  template <class T>
  T* data() const {
    if (dtype_of<T> != dtype_) fail_dtype(dtype_of<T>);
    return reinterpret_cast<T*>(raw());
  }
  template <class T>
  std::span<T> span() const {
    return {data<T>(), static_cast<size_t>(elements())};
  }

  Tensor reshape(Shape shape) const;              // same elements, same memory
  Tensor rows(int64_t begin, int64_t end) const;  // slice of the first dim, same memory
  std::string text() const;                       // "bf16 [4, 512]"

 private:
  [[noreturn]] void fail_dtype(Dtype wanted) const;
  BlockPtr block_;
  size_t offset_ = 0;
  Shape shape_;
  Dtype dtype_ = Dtype::f32;
};

// Throws with "[op] name must be bf16 [4, 512] but is f32 [4, 256]" when they differ.
void check_tensor(std::string_view op, std::string_view name, const Tensor& tensor,
                  const Shape& shape, Dtype dtype);

template <class T>
Tensor Tensor::from(Device& device, Shape shape, std::span<const T> values) {
  Tensor result(device, std::move(shape), dtype_of<T>);
  if (static_cast<int64_t>(values.size()) != result.elements()) result.fail_dtype(dtype_of<T>);
  std::copy(values.begin(), values.end(), result.data<T>());
  return result;
}

}  // namespace shoestring
