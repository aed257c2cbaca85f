#include "optim/ema.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel_for.h"
#include "core/text.h"

namespace shoestring {
namespace {
constexpr int64_t grain = 65536;  // elements of one thread's piece
}  // namespace

WeightAverage::WeightAverage(Device& device, std::span<const Param> params,
                             std::span<const FlatRange> owned, FlatSpan<const float> master,
                             double decay)
    : device_(&device),
      params_(params),
      slices_(slices_of(params, owned)),
      rest_(static_cast<float>(1 - decay)) {
  if (!(decay > 0 && decay < 1)) {
    fail_usage(cat("optim.ema_decay must lie between 0 and 1, not ", decay));
  }
  for (const Slice& slice : slices_) {
    averages_.emplace_back(device, Shape{slice.flat.elements()}, Dtype::f32, MemoryKind::moments);
    std::copy_n(master.at(slice.flat), slice.flat.elements(), averages_.back().data<float>());
  }
}

void WeightAverage::update(FlatSpan<const float> master) {
  check(!swapped_, "the weight average cannot be updated while it is swapped in");
  for (size_t s = 0; s < slices_.size(); ++s) {
    const float* p = master.at(slices_[s].flat);
    float* average = averages_[s].data<float>();
    parallel_for(*device_, slices_[s].flat.elements(), grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) average[i] += rest_ * (p[i] - average[i]);
    });
  }
}

void WeightAverage::swap(FlatSpan<float> master) {
  for (size_t s = 0; s < slices_.size(); ++s) {
    float* p = master.at(slices_[s].flat);
    std::swap_ranges(p, p + slices_[s].flat.elements(), averages_[s].data<float>());
  }
  swapped_ = !swapped_;
}

std::vector<StateTensor> WeightAverage::state() const {
  check(!swapped_, "the weight average cannot be saved while it is swapped in");
  std::vector<StateTensor> all;
  for (size_t s = 0; s < slices_.size(); ++s) {
    const Param& p = params_[static_cast<size_t>(slices_[s].param)];
    all.push_back({p.info.name, "ema", slices_[s].begin, slices_[s].end, averages_[s]});
  }
  return all;
}

}  // namespace shoestring
