#include "optim/state.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

template <class From, class To>
void convert(const Tensor& from, int64_t from_begin, const Tensor& to, int64_t to_begin,
             int64_t count) {
  const From* source = from.data<From>() + from_begin;
  To* target = to.data<To>() + to_begin;
  for (int64_t i = 0; i < count; ++i) target[i] = To(static_cast<float>(source[i]));
}

void copy_elements(const Tensor& from, int64_t from_begin, const Tensor& to, int64_t to_begin,
                   int64_t count) {
  if (from.dtype() == to.dtype()) {
    const int64_t size = static_cast<int64_t>(size_of(to.dtype()));
    std::memcpy(to.raw() + to_begin * size, from.raw() + from_begin * size,
                static_cast<size_t>(count * size));
  } else if (from.dtype() == Dtype::f32 && to.dtype() == Dtype::bf16) {
    convert<float, BFloat16>(from, from_begin, to, to_begin, count);
  } else if (from.dtype() == Dtype::bf16 && to.dtype() == Dtype::f32) {
    convert<BFloat16, float>(from, from_begin, to, to_begin, count);
  } else {
    fail_data(
        cat("optimiser state must be f32 or bf16, but the saved one is ", name_of(from.dtype())));
  }
}

}  // namespace

int64_t load_state(const StateTensor& saved, std::span<const StateTensor> own) {
  if (saved.end - saved.begin != saved.values.elements()) {
    fail_data(cat("optimiser state '", saved.kind, "' of ", saved.name, ": [", saved.begin, ", ",
                  saved.end, ") does not match its ", saved.values.elements(), " values"));
  }
  int64_t copied = 0;
  for (const StateTensor& piece : own) {
    if (piece.name != saved.name || piece.kind != saved.kind) continue;
    const int64_t begin = std::max(piece.begin, saved.begin);
    const int64_t end = std::min(piece.end, saved.end);
    if (begin >= end) continue;
    copy_elements(saved.values, begin - saved.begin, piece.values, begin - piece.begin,
                  end - begin);
    copied += end - begin;
  }
  return copied;
}

}  // namespace shoestring
