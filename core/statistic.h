#pragma once
// What a step tells of numbers too many to keep: how large they are.

#include "core/tensor.h"

namespace shoestring {

// Of a set of numbers; sets that are measured in parts add up.
struct Statistic {
  double squares = 0;  // their sum
  double count = 0;
  double largest = 0;  // absolute value

  double rms() const;  // 0 of an empty set
  void add(const Statistic& other);
};

// Of the elements of x + multiplier * delta (same shape and type as x, or empty), which is not
// made. One pass over both; the number of threads changes no bit.
Statistic statistic_of(Device& device, const Tensor& x, const Tensor& delta = {},
                       double multiplier = 1);

}  // namespace shoestring
