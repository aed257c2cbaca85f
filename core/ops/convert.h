#pragma once
// Element-wise plumbing between ops: change of type, sums of gradients, scaling, filling. Every
// result element depends on its own operands alone, so threads and vector widths change no bit.

#include "core/device.h"
#include "core/tensor.h"

namespace shoestring {

// The same values in another float type (f32, bf16, f64); rounds to nearest even, NaN stays NaN.
// The same type is a copy.
Tensor convert(Stream& stream, const Tensor& x, Dtype to,
               MemoryKind kind = MemoryKind::activations);
// Into existing memory of the same number of elements.
void convert_into(Stream& stream, const Tensor& out, const Tensor& x);

// into += x, in the type of `into`: equal types, or f32 += bf16. bf16 adds in f32 and rounds once.
void accumulate(Stream& stream, const Tensor& into, const Tensor& x);

// x *= factor; the factor is rounded to f32 first unless x is f64.
void scale(Stream& stream, const Tensor& x, double factor);

// Every element becomes value, rounded to the type of x.
void fill(Stream& stream, const Tensor& x, double value);

}  // namespace shoestring
