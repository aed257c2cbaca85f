#pragma once
// Copies between the memories of two devices: what is offloaded to the host and fetched again. On a
// CPU the host's memory is a Device of its own, so that its ledger says what lies there.

#include "core/tensor.h"

namespace shoestring {

// Copies the bytes of `from` to `to` on the stream, which is one of either device; both have the
// same type and as many elements. The caller keeps the memory alive until it has happened.
void transfer(Stream& stream, const Tensor& to, const Tensor& from);

}  // namespace shoestring
