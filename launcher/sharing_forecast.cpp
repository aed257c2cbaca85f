#include "launcher/sharing_forecast.h"

#include <algorithm>

#include "core/dtype.h"
#include "launcher/rank_state.h"
#include "parallel/data_parallel.h"

namespace shoestring {
namespace {

bool uses(const RankShare::Group& group, int stage) {
  return std::find(group.stages.begin(), group.stages.end(), stage) != group.stages.end();
}

// The largest sum of so many neighbours of a ring.
int64_t largest_run(const std::vector<int64_t>& sizes, int64_t count) {
  const size_t all = sizes.size(), run = std::min<size_t>(all, static_cast<size_t>(count));
  int64_t most = 0;
  for (size_t first = 0; first < all; ++first) {
    int64_t sum = 0;
    for (size_t k = 0; k < run; ++k) sum += sizes[(first + k) % all];
    most = std::max(most, sum);
  }
  return most;
}

}  // namespace

HeldGradients::HeldGradients(const RunConfig& config, const RankShare& share, size_t number)
    : share_(share), group_(share.groups[number]) {
  const FlatGroup flat = flat_group(config, share, group_);
  const DataParallelConfig sharing = sharing_of(config);
  each_slot_ = reduces_each_slot(sharing);
  held_ = flat.holds;
  all_ = flat.elements;
  const bool elsewhere = share.holds_shared && number == 0;
  waits_for_others_ = elsewhere && share.shared_slots > 0;
  // Stages that use one parameter add to a part each.
  apart_ = group_.stages.size() > 1 && each_slot_;
  // Without a pipeline one slot is made behind the other.
  closed_ = share.where.ranks > 1 ? 0 : share.micro_batches - 1;
  measure(flat, sharing, elsewhere);
  if (waits_for_others_) waiting_ = all_ * std::min(share.shared_slots, share.micro_batches);
  if (!each_slot_) waiting_ = all_;
}

void HeldGradients::measure(const FlatGroup& flat, const DataParallelConfig& config,
                            bool elsewhere) {
  const auto early = [&](const Param& p) {
    if (p.info.name == "head.weight" || elsewhere || apart_) return true;
    return std::any_of(flat.units.begin(), flat.units.end(), [&](const ParamUnit& unit) {
      return unit.held && p.offset >= unit.range.begin && p.offset < unit.range.end;
    });
  };
  std::vector<int64_t> sizes, others;
  for (const ShardLayout::Bucket& b : flat.layout.buckets()) {
    sizes.push_back(b.range.elements());
    const bool opens = std::any_of(flat.params.begin(), flat.params.end(), [&](const Param& p) {
      return p.offset >= b.range.begin && p.offset < b.range.end && early(p);
    });
    if (opens) head_ += sizes.back();
    if (!opens) others.push_back(sizes.back());
  }
  if (sizes.empty()) return;
  last_ = sizes.back();
  in_flight_ =
      group_.ranks() > 1 ? config.in_flight * *std::max_element(sizes.begin(), sizes.end()) : 0;
  // Where the next unit begins before the last gradient of the one before is made.
  const int64_t run = config.in_flight + 1;
  passing_ = std::min(all_, std::max(head_ + largest_run(others, run), largest_run(sizes, run)));
}

// What a slot has behind the instruction.
int64_t HeldGradients::opened_by(const Instruction& i) {
  // Gains and biases have their gradients with that of the input, experts have neither.
  const bool late = i.what == Do::W || (i.what == Do::I && !group_.routed);
  late_ |= late;
  if (late || (i.what == Do::B && apart_)) return all_;
  if (i.what == Do::B) return passing_;
  const bool head = share_.chunks[static_cast<size_t>(i.stage)].head && head_ > 0;
  return i.what == Do::F && head ? head_ + (closed_ > 0 ? last_ : 0) : 0;
}

// Memory is taken when gradients are first added to, and only then reductions are waited for:
// others go on meanwhile.
int64_t HeldGradients::at(const Instruction& i) {
  const auto bytes = [this] { return held_ ? waiting_ * group_.sources : 0; };
  if (!held_ || !is_compute(i.what) || !uses(group_, i.stage)) return bytes();
  const int half = share_.where.micros / 2;
  const bool second = share_.where.order == StageOrder::both_ways && i.micro >= half;
  const int slot = second ? i.micro - half : i.micro;
  const int64_t opened = opened_by(i);
  if (opened > 0) {
    int64_t& open = open_[slot];
    open = std::max(open, opened);
    note();
  }
  const bool ends = (i.what == Do::B || i.what == Do::W) && i.part <= 0;
  if (ends && ++ended_[slot] == group_.stages.size()) {
    open_.erase(slot);
    ++closed_;
  }
  return bytes();
}

int64_t HeldGradients::behind() const {
  if (!held_ || !waits_for_others_) return 0;
  return all_ * (share_.micro_batches - std::min(share_.shared_slots, share_.micro_batches));
}

void HeldGradients::note() {
  if (waits_for_others_ || !each_slot_) return;
  int64_t open = 0;
  for (const auto& [slot, elements] : open_) open += elements;
  // Both parts, and the sum of those that end.
  if (apart_) open = 2 * open + all_;
  waiting_ = open + (late_ || apart_ ? std::min(in_flight_, closed_ * all_) : 0);
}

GatheredForecast::GatheredForecast(const RunConfig& config, const RankShare& share, size_t number)
    : share_(share), group_(share.groups[number]) {
  const FlatGroup flat = flat_group(config, share, group_);
  all_ = flat.elements;
  int64_t held = 0;
  std::vector<int64_t> others;
  for (const ParamUnit& unit : flat.units) {
    if (unit.held) held += unit.range.elements();
    if (!unit.held) others.push_back(unit.range.elements());
  }
  passing_ = held + largest_run(others, 2);
}

int64_t GatheredForecast::at(const Instruction& i) {
  if (share_.where.ranks == 1) return passing_;
  if (!uses(group_, i.stage)) return gathered_ > 0 ? all_ : 0;
  gathered_ += i.what == Do::G ? 1 : 0;
  const int64_t now = gathered_ > 0 ? all_ : 0;
  gathered_ -= i.what == Do::R ? 1 : 0;
  return now;
}

SharingForecast::SharingForecast(const RunConfig& config, const RankShare& share)
    : width_(static_cast<int64_t>(size_of(dtype_from_name(config.train.dtype)))) {
  for (size_t g = 0; g < share.groups.size(); ++g) {
    gradients_.emplace_back(config, share, g);
    if (config.parallel.zero_stage == 3) weights_.emplace_back(config, share, g);
  }
}

SharingForecast::Bytes SharingForecast::at(const Instruction& i) {
  Bytes bytes;
  for (HeldGradients& group : gradients_) {
    bytes.gradients += 4 * group.at(i);
    bytes.behind += 4 * group.behind();
  }
  for (GatheredForecast& group : weights_) bytes.weights += width_ * group.at(i);
  return bytes;
}

}  // namespace shoestring
