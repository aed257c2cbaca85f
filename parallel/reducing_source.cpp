#include "parallel/reducing_source.h"

namespace shoestring {

void ReducingSource::gradient_ready(const Param& p) {
  data_parallel_->gradient_ready(p.index, compute_->record());
}

std::vector<ParamExtent> extents_of(const ParamStore& store,
                                    const std::function<bool(const Param&)>& whole) {
  std::vector<ParamExtent> result;
  for (const Param& p : store.params()) {
    result.push_back({p.offset, p.offset + p.elements, whole != nullptr && whole(p)});
  }
  return result;
}

}  // namespace shoestring
