#pragma once
// Attention on a CPU, block by block: which blocks of scores there are, in which order their
// products are summed, and how the work is shared between threads. Memory is linear in S.

#include <cstdint>

#include "core/device.h"
#include "core/ops/attention.h"

namespace shoestring::attention {

// Keys that are not the queries' own tokens (core/ops/attention_block.h): `keys` of them a row, of
// which query t sees first_key[t] <= u < end_key[t]; neither border decreases along a row, a query
// may see none, and the window is 0.
struct OtherKeys {
  int64_t keys = 0;
  const int32_t* end_key = nullptr;  // null: the queries' own tokens, first_key[t] <= u <= t
  int64_t count(const Attention::Attributes& a) const { return end_key ? keys : a.length; }
};

// Shapes as in attention.h; Element is float or BFloat16.
template <class Element>
struct ForwardArrays {
  const Element *q, *k, *v;
  const int32_t* first_key;
  Element* o;
  float* log_sum_exp;
  OtherKeys other = {};
  // In place of o: f32, into which the block is merged together with log_sum_exp.
  float* merged = nullptr;
};
template <class Element>
struct BackwardArrays {
  const Element *q, *k, *v, *o, *dy;
  const int32_t* first_key;
  const float* log_sum_exp;
  Element *dq, *dk, *dv;
  OtherKeys other = {};
  // In place of dq, dk, dv: f32, to which the block's gradients are added.
  float *dq_sum = nullptr, *dk_sum = nullptr, *dv_sum = nullptr;
};

// Sums run over key blocks in ascending order (o, dq), or over query blocks in ascending order and
// within one over the heads of the group (dk, dv), whichever thread does the work.
template <class Element>
void forward_blocks(Device& device, const Attention::Attributes& attributes,
                    const ForwardArrays<Element>& arrays);
template <class Element>
void backward_blocks(Device& device, const Attention::Attributes& attributes,
                     const BackwardArrays<Element>& arrays);

}  // namespace shoestring::attention
