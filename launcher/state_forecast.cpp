#include "launcher/state_forecast.h"

#include <algorithm>
#include <map>
#include <vector>

#include "launcher/rank_state.h"
#include "optim/muon.h"
#include "optim/shard.h"
#include "parallel/data_parallel.h"
#include "parallel/instruction.h"

namespace shoestring {
namespace {

int64_t whole_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }  // as buffers are made

// Of what this rank updates of the group.
int64_t moment_bytes(const OptimConfig& optim, const std::vector<Param>& params,
                     const std::vector<FlatRange>& owned) {
  const int64_t width = optim.moments.value_or("f32") == "f32" ? 4 : 2;
  int64_t bytes = 0;
  for (const Slice& slice : slices_of(params, owned)) {
    const int64_t n = slice.flat.elements();
    if (optim.ema_decay > 0) bytes += whole_lines(4 * n);
    if (updated_by_muon(params[static_cast<size_t>(slice.param)].info, optim)) continue;
    bytes += 2 * whole_lines(width * n);
  }
  for (const MuonMatrix& matrix : muon_matrices(params, optim, owned)) {
    bytes += whole_lines(width * matrix.elements());
  }
  return bytes;
}

int64_t elements_of(const std::vector<FlatRange>& ranges) {
  int64_t elements = 0;
  for (const FlatRange& r : ranges) elements += r.elements();
  return elements;
}

// Gradients of a group that are held until they are reduced: a slot's from the first instruction
// that adds to them to the last, and of reductions behind it as many as may be in flight
// (parallel/data_parallel.h).
class HeldGradients {
 public:
  HeldGradients(const RunConfig& config, const RankShare& share, size_t number)
      : share_(share), group_(share.groups[number]) {
    const FlatGroup flat = flat_group(config, share, group_);
    each_slot_ = reduces_each_slot(sharing_of(config));
    held_ = flat.holds;
    all_ = flat.elements;
    const bool pipeline = share.where.ranks > 1;
    const bool elsewhere = share.holds_shared && number == 0;
    waits_for_others_ = elsewhere || share.where.order == StageOrder::both_ways;
    // Stages that use one parameter add to a part each.
    apart_ = group_.stages.size() > 1 && each_slot_;
    closed_ = pipeline ? 0 : share.micro_batches - 1;  // one slot is made behind the other
    int64_t largest = 0;
    for (const ShardLayout::Bucket& b : flat.layout.buckets()) {
      largest = std::max(largest, b.range.elements());
      for (const Param& p : flat.params) {
        const bool inside = p.offset >= b.range.begin && p.offset < b.range.end;
        const bool read = p.info.name == "head.weight" || elsewhere || apart_;
        if (inside && read) head_ += b.range.elements();
      }
    }
    in_flight_ = group_.ranks() > 1 ? largest * DataParallelConfig().in_flight : 0;
    if (waits_for_others_) waiting_ = all_ * (apart_ ? 3 : 1) * share.micro_batches;
    if (!each_slot_) waiting_ = all_;
  }

  // What there is at most behind the instruction, in bytes. Memory is taken when gradients are
  // first added to, and only then reductions are waited for: others go on meanwhile.
  int64_t after(const Instruction& i) {
    const auto used = std::find(group_.stages.begin(), group_.stages.end(), i.stage);
    if (!held_ || used == group_.stages.end()) return bytes();
    const bool computes_head = share_.chunks[static_cast<size_t>(i.stage)].head && head_ > 0;
    // Gains and biases have their gradients with that of the input, experts have neither.
    const bool adds = i.what == Do::B || i.what == Do::W || (i.what == Do::I && !group_.routed);
    if (adds || (i.what == Do::F && computes_head)) {
      int64_t& slot = open_[i.micro];
      slot = std::max(slot, adds ? all_ : head_);
      note();
    }
    const bool ends = (i.what == Do::B || i.what == Do::W) && i.part <= 0;
    if (ends && ++ended_[i.micro] == group_.stages.size()) {
      open_.erase(i.micro);
      ++closed_;
    }
    return bytes();
  }

 private:
  void note() {
    if (waits_for_others_ || !each_slot_) return;
    int64_t open = 0;
    for (const auto& [micro, elements] : open_) open += elements;
    // Both parts, and the sum of those that end.
    if (apart_) open = 2 * open + all_;
    waiting_ = open + std::min(in_flight_, closed_ * all_);
  }
  int64_t bytes() const { return held_ ? 4 * group_.sources * waiting_ : 0; }

  const RankShare& share_;
  const RankShare::Group& group_;
  bool each_slot_ = false, held_ = false, waits_for_others_ = false, apart_ = false;
  int64_t all_ = 0, head_ = 0, in_flight_ = 0, closed_ = 0, waiting_ = 0;
  std::map<int, int64_t> open_;
  std::map<int, size_t> ended_;
};

// Of all groups together, at the program's worst moment.
int64_t waiting_bytes(const RunConfig& config, const RankShare& share) {
  std::vector<HeldGradients> groups;
  for (size_t i = 0; i < share.groups.size(); ++i) groups.emplace_back(config, share, i);
  int64_t most = 0;
  for (const Instruction& i : share.program) {
    int64_t now = 0;
    for (HeldGradients& group : groups) now += group.after(i);
    most = std::max(most, now);
  }
  return most;
}

// What groups have together, in elements.
struct Elements {
  int64_t all = 0, updated = 0;
};

void add_group(const RunConfig& config, const RankShare& share, const RankShare::Group& group,
               StateForecast& sum, Elements& elements) {
  const FlatGroup flat = flat_group(config, share, group);
  const int64_t stage = config.parallel.zero_stage;
  const std::vector<FlatRange> piece = flat.layout.owned(group.shard);
  const std::vector<FlatRange> owned =
      stage == 0 ? std::vector<FlatRange>{{0, flat.elements}} : piece;
  elements.all += flat.elements;
  elements.updated += elements_of(owned);
  sum.moments += moment_bytes(config.optim, flat.params, owned);
  const bool sums = config.train.exact && stage < 2 && !config.offload.optimizer;
  if (sums) sum.gradients += whole_lines(4 * elements_of(piece));
}

}  // namespace

StateForecast forecast_state(const RunConfig& config, const RankShare& share) {
  const int64_t stage = config.parallel.zero_stage;
  const bool copies = config.train.dtype != "f32";
  const int64_t width = copies ? 2 : 4;
  StateForecast sum;
  Elements elements;
  for (const RankShare::Group& group : share.groups) {
    add_group(config, share, group, sum, elements);
  }
  sum.waiting_gradients = waiting_bytes(config, share);
  const int64_t updated = whole_lines(4 * elements.updated);
  sum.weights = stage < 3 ? width * elements.all : whole_lines(width * elements.updated);
  if (copies) sum.master_weights = stage == 0 ? 4 * elements.all : updated;
  const bool hosted = config.offload.optimizer;
  sum.gradients += stage < 2 ? 4 * elements.all : hosted ? 0 : updated;
  if (stage == 3) sum.gathered_weights = width * elements.all;
  if (hosted) sum.master_weights = sum.moments = 0;
  return sum;
}

}  // namespace shoestring
