#pragma once
// Parameters put together from all ranks' parts, on the first rank: for samples, which one rank
// makes, and for comparisons with one rank.

#include <functional>
#include <memory>
#include <vector>

#include "core/model/transformer.h"
#include "launcher/rank_state.h"

namespace shoestring {

// For each parameter of the whole model, in its order: `local` has what StepGradients::counted()
// names of this rank's part, and on the first rank `take` gets all elements. Every rank calls;
// waits. f32 or bf16.
template <class T>
void gather_whole(RankState& rank, const FlatSpan<T>& local,
                  const std::function<void(const ParamInfo& whole, const Tensor& values)>& take);

// All of the model on one rank, ready to run forward.
class WholeModel {
 public:
  // Every rank constructs at once; only the first one's can run. `rank` outlives this.
  explicit WholeModel(RankState& rank);
  const Transformer& model() const { return *model_; }
  ParamSource& source() { return *source_; }

 private:
  void gather_states(RankState& rank);

  std::unique_ptr<ParamStore> own_;  // null: the rank's own store has all
  ParamStore* store_;
  std::unique_ptr<StoreSource> source_;
  std::unique_ptr<Transformer> model_;
};

// With the present weights. Every rank calls; null on all but the first.
std::unique_ptr<WholeModel> whole_model_on_first(RankState& rank);

}  // namespace shoestring
