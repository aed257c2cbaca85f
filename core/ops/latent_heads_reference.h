#pragma once
// latent_heads in plain loops on any scalar: the oracle of the tests.

#include <cstdint>

#include "core/ops/latent_heads.h"

namespace shoestring::reference {

// One row; shapes as in core/ops/latent_heads.h.
template <class S>
void latent_heads_row(const LatentHeads::Attributes& a, const S* up, const S* key, S* k, S* v) {
  for (int64_t h = 0; h < a.heads; ++h) {
    for (int64_t i = 0; i < a.nope; ++i) *k++ = *up++;
    for (int64_t i = 0; i < a.rope; ++i) *k++ = key[i];
    for (int64_t i = 0; i < a.value; ++i) *v++ = *up++;
  }
}

template <class S>
void latent_heads_row_gradient(const LatentHeads::Attributes& a, const S* dk, const S* dv, S* dup,
                               S* dkey) {
  for (int64_t i = 0; i < a.rope; ++i) dkey[i] = 0;
  for (int64_t h = 0; h < a.heads; ++h) {
    for (int64_t i = 0; i < a.nope; ++i) *dup++ = *dk++;
    for (int64_t i = 0; i < a.rope; ++i) dkey[i] += *dk++;
    for (int64_t i = 0; i < a.value; ++i) *dup++ = *dv++;
  }
}

}  // namespace shoestring::reference
