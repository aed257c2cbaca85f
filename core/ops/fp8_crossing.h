#pragma once
// The products of an FP8 layer beside boundaries, with rows that travel while others are quantised
// and multiplied (core/row_travel.h): for the ops fp8_linear and fp8_swiglu_linear. Without edges
// they are the layer's own products. So they are, made of all rows at once, where a tile's scale
// spans several rows, and while a probe compares; what travels is the same then.

#include "core/fp8/layer.h"
#include "core/row_travel.h"

namespace shoestring {

struct Fp8Argument {
  Tensor x;
  Fp8Tensor x8;  // its codes; read only without an edge in front
};
struct Fp8Crossed {
  Tensor y;      // out(in(x) w^T)
  Tensor x;      // in(x)
  Fp8Tensor x8;  // of in(x), where the layer wants codes
};
Fp8Crossed fp8_cross(Stream& stream, Fp8Layer& layer, const Edges& edges, const Fp8Argument& a,
                     const Tensor& w);
struct Fp8CrossedBack {
  Tensor dx;     // in*(out*(dy) w)
  Fp8Kept owed;  // what the weight gradient reads of out*(dy)
};
Fp8CrossedBack fp8_cross_back(Stream& stream, Fp8Layer& layer, const Edges& edges, const Tensor& dy,
                              const Tensor& w);

}  // namespace shoestring
