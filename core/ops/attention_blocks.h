#pragma once
// Attention on a CPU, block by block: which blocks of scores there are, in which order their
// products are summed, and how the work is shared between threads. Memory is linear in S.

#include <cstdint>

#include "core/device.h"
#include "core/ops/attention.h"

namespace shoestring::attention {

// Shapes as in attention.h; Element is float or BFloat16.
template <class Element>
struct ForwardArrays {
  const Element *q, *k, *v;
  const int32_t* first_key;
  Element* o;
  float* log_sum_exp;
};
template <class Element>
struct BackwardArrays {
  const Element *q, *k, *v, *o, *dy;
  const int32_t* first_key;
  const float* log_sum_exp;
  Element *dq, *dk, *dv;
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
