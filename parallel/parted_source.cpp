#include "parallel/parted_source.h"

namespace shoestring {

void PartedSource::acquire(int segment, Phase phase) {
  if (gate_ != nullptr) gate_->enter(Do::F, segment);
  source_.acquire(segment, phase);
  if (is_travelling(segment)) gate_->travel();
}

void PartedSource::release(int segment, Phase phase) {
  if (is_travelling(segment)) gate_->leave();
  source_.release(segment, phase);
}

}  // namespace shoestring
