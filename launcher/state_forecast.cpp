#include "launcher/state_forecast.h"

#include <algorithm>
#include <vector>

#include "launcher/sharing_forecast.h"
#include "optim/muon.h"
#include "optim/shard.h"
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
  SharingForecast sharing(config, share);
  for (const Instruction& i : share.program) {
    const SharingForecast::Bytes now = sharing.at(i);
    sum.waiting_gradients = std::max(sum.waiting_gradients, now.gradients + now.behind);
    sum.gathered_weights = std::max(sum.gathered_weights, now.weights);
  }
  const int64_t updated = whole_lines(4 * elements.updated);
  sum.weights = stage < 3 ? width * elements.all : whole_lines(width * elements.updated);
  if (copies) sum.master_weights = stage == 0 ? 4 * elements.all : updated;
  const bool hosted = config.offload.optimizer;
  sum.gradients += stage < 2 ? 4 * elements.all : hosted ? 0 : updated;
  if (hosted) sum.master_weights = sum.moments = 0;
  return sum;
}

}  // namespace shoestring
