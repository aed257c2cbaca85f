#include "parallel/located_source.h"

namespace shoestring {

Tensor LocatedSource::weight(const Param& p) {
  if (rank_ != nullptr) rank_->set_parameter(p.info.name);
  return inner_.weight(p);
}

Tensor LocatedSource::gradient(const Param& p) {
  if (rank_ != nullptr) rank_->set_parameter(p.info.name);
  return inner_.gradient(p);
}

}  // namespace shoestring
