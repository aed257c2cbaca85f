#include "launcher/state_forecast.h"

#include "launcher/rank_state.h"
#include "optim/muon.h"
#include "optim/shard.h"

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

void add_group(const RunConfig& config, const RankShare::Group& group, StateForecast& sum) {
  if (group.params.empty()) return;
  const Dtype compute = dtype_from_name(config.train.dtype);
  const FlatGroup flat = flat_group(config, group);
  const int64_t all = flat.elements;
  const bool copies = compute == Dtype::bf16;
  sum.weights += all * static_cast<int64_t>(size_of(compute));
  sum.master_weights += copies ? 4 * all : 0;
  sum.gradients += 4 * all;
  const DataParallelConfig sharing = sharing_of(config);
  const std::vector<FlatRange> share = flat.layout.owned(group.rank);
  if (sharing.exact) {
    int64_t sums = 0;
    for (const FlatRange& r : share) sums += r.elements();
    sum.gradients += whole_lines(4 * sums);
  }
  const std::vector<FlatRange> everything = {{0, all}};
  sum.moments +=
      moment_bytes(config.optim, flat.params, sharing.zero_stage == 0 ? everything : share);
}

}  // namespace

StateForecast forecast_state(const RunConfig& config, const RankShare& share) {
  StateForecast sum;
  add_group(config, share.dense, sum);
  add_group(config, share.routed, sum);
  return sum;
}

}  // namespace shoestring
