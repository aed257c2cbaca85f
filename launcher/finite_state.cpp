#include "launcher/finite_state.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

#include "core/check.h"
#include "core/counted.h"
#include "core/dtype.h"
#include "core/text.h"
#include "io/checkpoint_folder.h"
#include "launcher/run_directory.h"
#include "parallel/comm/rank_failure.h"
#include "parallel/ordered_sums.h"

namespace shoestring {
namespace {

constexpr int64_t block = 4096;  // elements looked at without a branch

// An exponent of all ones is infinity or not a number, in f32 and, shifted up, in bf16.
bool finite(uint32_t bits) { return (bits & 0x7f800000u) != 0x7f800000u; }
uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
uint32_t bits_of(BFloat16 x) { return uint32_t{x.bits} << 16; }

template <class T>
std::optional<int64_t> first_bad(const T* x, int64_t elements) {
  for (int64_t begin = 0; begin < elements; begin += block) {
    const int64_t end = std::min(begin + block, elements);
    uint32_t bad = 0;
    for (int64_t i = begin; i < end; ++i) bad |= finite(bits_of(x[i])) ? 0u : 1u;
    if (bad == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (!finite(bits_of(x[i]))) return i;
    }
  }
  return std::nullopt;
}

template <class T>
std::string text_of_bad(const T* x, int64_t elements, const StateTensor& of) {
  const auto bad = first_bad(x, elements);
  if (!bad) return "";
  return cat("tensor ", of.name, " (element ", of.begin + *bad, " of ", of.kind, " is ",
             std::bit_cast<float>(bits_of(x[*bad])), ")");
}

std::string text_of_bad(const Tensor& values, const StateTensor& of) {
  if (values.dtype() == Dtype::bf16) {
    return text_of_bad(values.data<BFloat16>(), values.elements(), of);
  }
  return text_of_bad(values.data<float>(), values.elements(), of);
}

std::string text_of_bad_master(const RankState& rank) {
  const FlatSpan<float> master = rank.gradients->shards().master();
  for (FlatRange owned : rank.gradients->owned_ranges()) {
    for (const Slice& slice : slices_of(rank.store->params(), {&owned, 1})) {
      const StateTensor of{.name = rank.store->params()[static_cast<size_t>(slice.param)].info.name,
                           .kind = "the weight",
                           .begin = slice.begin,
                           .end = slice.end,
                           .values = {}};
      std::string text = text_of_bad(master.at(slice.flat), slice.flat.elements(), of);
      if (!text.empty()) return text;
    }
  }
  return "";
}

// What would have led to other weights, each only where it could have.
std::string text_of_settings(const RankState& rank) {
  const OptimConfig& o = rank.config.optim;
  std::string text =
      cat(" with a lower learning rate (optim.lr, now ", o.lr, ", or lr_multiplier of a stage)");
  if (o.clip == 0) append(text, ", or with gradients clipped (optim.clip = 1; it is 0)");
  const bool skips = o.skip.loss_z > 0 || o.skip.norm_z > 0;
  if (!skips && rank.updates >= o.skip.window) {
    append(text, ", or with steps left out that stand out from the ", o.skip.window,
           " before them (optim.skip.loss_z = 5 and optim.skip.norm_z = 5; both are 0)");
  }
  return text;
}

// The checkpoint that stays when that of `step` is removed.
std::string text_without(const CheckpointFolder& folder, int64_t step) {
  const std::vector<int64_t> steps = folder.steps();
  const auto at = std::lower_bound(steps.begin(), steps.end(), step);
  return at == steps.begin() ? std::string("begins anew: no earlier one is there")
                             : cat("goes on after step ", *std::prev(at));
}

}  // namespace

std::string text_of_bad_state(const RankState& rank) {
  if (std::string text = text_of_bad_master(rank); !text.empty()) return text;
  std::vector<StateTensor> states = rank.optimizer->state();
  if (rank.ema) {
    for (StateTensor& s : rank.ema->state()) states.push_back(std::move(s));
  }
  for (const StateTensor& s : states) {
    if (std::string text = text_of_bad(s.values, s); !text.empty()) return text;
  }
  for (const ModelState& s : rank.store->states()) {
    const StateTensor of{.name = s.name, .kind = "the state", .values = {}};
    if (std::string text = text_of_bad(s.values, of); !text.empty()) return text;
  }
  return "";
}

std::string remedy_of(const RankState& rank, int64_t saved) {
  const CheckpointFolder folder(RunDirectory(rank.config.run.directory).checkpoints());
  if (saved >= 0 && saved == rank.step) {
    return cat("The checkpoint of this very state would lead here again: remove ",
               folder.final_path(saved), " and start again, which then ",
               text_without(folder, saved), ",", text_of_settings(rank));
  }
  if (rank.updates == 0) {
    return "No update has been done yet, so a lower learning rate would not help: look at "
           "model.init, the multipliers of the model section and, where it is set, train.init_from";
  }
  const int64_t lost = rank.step - std::max<int64_t>(saved, 0);
  return cat("The state after step ", rank.step,
             " is not saved, because it would lead here again. Start again, which ",
             saved < 0 ? std::string("begins anew, because no checkpoint was saved yet (")
                       : cat("goes on after step ", saved, " (", folder.final_path(saved), "; "),
             counted(lost, "step"), " lost),", text_of_settings(rank));
}

void require_finite_state(RankState& rank, int64_t saved) {
  const std::string bad = text_of_bad_state(rank);
  if (!bad.empty()) {
    fail(cat("the state is not finite: rank ", rank.ranks.rank(), ", after step ", rank.step, ", ",
             bad, ". ", remedy_of(rank, saved)),
         no_place);
  }
  // The rank that owns the element names it; the others meet its abort here.
  any_rank(rank.ranks, rank.communication, false);
}

}  // namespace shoestring
