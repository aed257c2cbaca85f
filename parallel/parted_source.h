#pragma once
// Tells a gate (parallel/lane.h) of the borders of a tape's segments: the tape asks its ParamSource
// for a segment's weights where the segment begins and gives them back where it ends.

#include "core/seams.h"
#include "parallel/lane.h"

namespace shoestring {

class PartedSource : public ParamSource {
 public:
  // Both outlive it.
  PartedSource(ParamSource& source, const StageSegments& segments)
      : source_(source), segments_(segments) {}
  // Null: the forward pass is over, and every call only goes on to the source.
  void set_gate(PartGate* gate) { gate_ = gate; }

  void acquire(int segment, Phase phase) override;
  void release(int segment, Phase phase) override;
  Tensor weight(const Param& p) override { return source_.weight(p); }
  Tensor gradient(const Param& p) override { return source_.gradient(p); }
  void gradient_ready(const Param& p) override { source_.gradient_ready(p); }

 private:
  bool is_travelling(int segment) const {
    return gate_ != nullptr && travels(segments_.at(static_cast<size_t>(segment)));
  }
  ParamSource& source_;
  const StageSegments& segments_;
  PartGate* gate_ = nullptr;
};

}  // namespace shoestring
