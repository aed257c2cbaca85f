#include "core/tensor.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_join.h"
#include "core/check.h"
#include "core/text.h"

namespace shoestring {

Shape::Shape(std::span<const int64_t> dims) : rank_(dims.size()) {
  if (rank_ > max_rank) fail(cat("a shape of ", rank_, " dims; ours have at most ", max_rank));
  std::copy(dims.begin(), dims.end(), dims_.begin());
}

int64_t Shape::operator[](int dim) const {
  const int index = dim < 0 ? dim + rank() : dim;
  if (index < 0 || index >= rank()) {
    fail(cat("dim ", dim, " of a tensor of shape ", text()));
  }
  return dims_[static_cast<size_t>(index)];
}

namespace {

// So many elements of the widest type still have a byte count that 64 bits hold.
constexpr int64_t most_elements = int64_t{1} << 59;

int64_t product_of(const Shape& shape, std::span<const int64_t> dims) {
  int64_t product = 1;
  bool fits = true;
  for (int64_t d : dims) fits = !__builtin_mul_overflow(product, d, &product) && fits;
  if (fits && product <= most_elements) return product;
  if (std::find(dims.begin(), dims.end(), 0) != dims.end()) return 0;
  fail_usage(cat("a tensor of shape ", shape.text(),
                 " has more elements than can be counted; choose a smaller model or batch"));
}

}  // namespace

int64_t Shape::elements() const { return product_of(*this, dims()); }

int64_t Shape::rows() const { return product_of(*this, dims().first(rank_ > 0 ? rank_ - 1 : 0)); }

std::string Shape::text() const { return cat("[", absl::StrJoin(dims(), ", "), "]"); }

Tensor::Tensor(Device& device, Shape shape, Dtype dtype, MemoryKind kind)
    : shape_(std::move(shape)), dtype_(dtype) {
  block_ = device.allocate(bytes(), kind);
}

Tensor::Tensor(BlockPtr block, size_t offset, Shape shape, Dtype dtype)
    : block_(std::move(block)), offset_(offset), shape_(std::move(shape)), dtype_(dtype) {
  if (offset_ + bytes() > block_->bytes()) {
    fail(cat("a view of ", text(), " at byte ", offset_, " does not fit a block of ",
             block_->bytes(), " bytes"));
  }
}

Tensor Tensor::zeros(Device& device, Shape shape, Dtype dtype, MemoryKind kind) {
  Tensor result(device, std::move(shape), dtype, kind);
  if (result.bytes() > 0) std::memset(result.raw(), 0, result.bytes());
  return result;
}

Tensor Tensor::reshape(Shape shape) const {
  if (shape.elements() != elements()) {
    fail(cat("cannot view ", text(), " as ", shape.text()));
  }
  return Tensor(block_, offset_, std::move(shape), dtype_);
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  if (shape_.rank() == 0 || begin < 0 || begin > end || end > shape_[0]) {
    fail(cat("rows ", begin, " to ", end, " of ", text()));
  }
  Shape shape = shape_;
  shape.set(0, end - begin);
  const size_t row_bytes = shape_[0] == 0 ? 0 : bytes() / static_cast<size_t>(shape_[0]);
  return Tensor(block_, offset_ + static_cast<size_t>(begin) * row_bytes, std::move(shape), dtype_);
}

std::string Tensor::text() const { return cat(name_of(dtype_), " ", shape_.text()); }

void Tensor::fail_dtype(Dtype wanted) const {
  fail(cat("tensor ", text(), " used as ", name_of(wanted)));
}

void check_tensor(std::string_view op, std::string_view name, const Tensor& tensor,
                  const Shape& shape, Dtype dtype) {
  if (tensor && tensor.shape() == shape && tensor.dtype() == dtype) return;
  fail(cat("[", op, "] ", name, " must be ", name_of(dtype), " ", shape.text(), " but is ",
           tensor ? tensor.text() : "missing"));
}

}  // namespace shoestring
