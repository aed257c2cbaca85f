#pragma once
// The norm of the whole gradient, wherever its parts are: each element counted once, squares summed
// in blocks of parameters (optim/norm.h) whose order does not depend on the layout. Parts cut by
// rows of whole units, as experts are, give the bits of one rank.

#include <array>
#include <vector>

#include "core/param.h"
#include "optim/norm.h"
#include "parallel/step_gradients.h"

namespace shoestring {

class GradientNorm {
 public:
  // All outlive this. `gradients` says what this rank counts.
  GradientNorm(const ModelPart& part, const ParamStore& store, const StepGradients& gradients);

  // Every rank calls; waits. A fault where elements are missing or counted twice.
  double norm(Communicator& world, Stream& stream) const;
  // Sums of squares by class of parameter, likewise.
  std::array<double, num_param_classes> class_squares(Communicator& world, Stream& stream) const;

 private:
  struct Run {
    FlatRange flat;      // in the store
    FlatRange position;  // in the order of the whole model's parameters
    int param = 0;
  };
  std::vector<double> terms_of(const Run& run) const;

  const ParamStore& store_;
  const StepGradients& gradients_;
  std::vector<Run> runs_;
  int64_t elements_ = 0;  // of the whole model
};

}  // namespace shoestring
