#pragma once
// Tells a rank's whereabouts (comm/whereabouts.h) of the parameter that a tape works with, so that
// failures name layer and module.

#include <memory>
#include <utility>

#include "core/seams.h"
#include "parallel/comm/whereabouts.h"

namespace shoestring {

// Everything else goes on to `inner`, which outlives this or belongs to it. Of the rank of the
// thread that makes it.
class LocatedSource : public ParamSource {
 public:
  explicit LocatedSource(ParamSource& inner) : inner_(inner), rank_(whereabouts()) {}
  explicit LocatedSource(std::unique_ptr<ParamSource> inner)
      : owned_(std::move(inner)), inner_(*owned_), rank_(whereabouts()) {}

  void acquire(int segment, Phase phase) override { inner_.acquire(segment, phase); }
  void release(int segment, Phase phase) override { inner_.release(segment, phase); }
  Tensor weight(const Param& p) override;
  Tensor gradient(const Param& p) override;
  void gradient_ready(const Param& p) override { inner_.gradient_ready(p); }

 private:
  std::unique_ptr<ParamSource> owned_;  // or null
  ParamSource& inner_;
  Whereabouts* rank_;
};

}  // namespace shoestring
