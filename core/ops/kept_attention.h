#pragma once
// Attention of single tokens over rows that were kept: what a decode step of generation does.
//
//   out[j] = sum over t of softmax_t(scale * q[j] . k[t]) * v[t]
//
// for queries that share keys and values: the heads of a group, or all heads of absorbed latent
// attention. k and v may overlap. f32 arithmetic on f32 and bf16 rows, f64 on f64 ones.

#include "core/thin_product.h"

namespace shoestring {

template <class T>
struct KeptRows {
  MatrixRows<T> k, v;  // as many rows each, at least one
  double scale;
};

// On the calling thread.
void attend_kept(const KeptRows<float>& rows, const Vectors<const float>& q,
                 const Vectors<float>& out);
void attend_kept(const KeptRows<BFloat16>& rows, const Vectors<const float>& q,
                 const Vectors<float>& out);
void attend_kept(const KeptRows<double>& rows, const Vectors<const double>& q,
                 const Vectors<double>& out);

}  // namespace shoestring
