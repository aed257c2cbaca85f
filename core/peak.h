#pragma once
// What this machine's cores can do at best, measured: the denominator of MFU.

#include "core/device.h"
#include "core/dtype.h"

namespace shoestring {

// FLOP/s of the best of a few matrix products of 1,024^3 and 2,048^3 on device.threads() cores, f32
// or bf16. Takes about half a second. `shoestring bench peak` measures more shapes and repeats.
double measured_peak_flops(Device& device, Dtype dtype);

}  // namespace shoestring
