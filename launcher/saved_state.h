#pragma once
// Which part of a run's state a rank writes to a checkpoint, and which it takes back: boxes of
// parameters, and of those the elements that it updates. No layout of ranks is known here: who
// composes the axes tells what a rank holds (ParamInfo::shard), what it updates (OwnedRanges) and
// who else holds the same.
//
// The rule by which every element is written once: of the ranks that hold it in different data
// groups (tensor ranks with the same norm or the same heads of k and v, both copies of a stage in
// DualPipe, a tied embedding on the first and the last stage) the first one's group writes it;
// inside a data group, its owner or, where all own the same, the first rank.

#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/flat_span.h"
#include "core/model/config.h"
#include "core/param.h"
#include "io/checkpoint.h"
#include "optim/config.h"
#include "optim/state.h"

namespace shoestring {

// What a rank updates as a member of one data group: that of dense parameters, or of experts.
struct OwnedRanges {
  std::vector<FlatRange> ranges;  // of the store (DataParallel::owned_ranges), disjoint, ascending
  // Does another rank that comes before this one own the same of the same parameters? Number 0
  // writes: with whole state the first rank of the group, with shares and copies of them the first
  // copy.
  int replica = 0;
};

struct SavedShare {
  std::vector<OwnedRanges> owned;  // disjoint
  // What ranks of other data groups that come before this one, in an order common to all, hold of
  // the parameter that this rank holds such a part of. None: nobody else holds any of it.
  std::function<std::vector<ParamInfo>(const ParamInfo& own)> earlier = nullptr;
  // Whether this rank writes a state that no gradient reaches, such as a router's bias, which all
  // ranks of its stage hold alike. None: it writes none.
  std::function<bool(const std::string& name)> writes_state = nullptr;
};

// For SavedShare::earlier of rank r of t tensor parallel ones: the parts of ranks 0 to r - 1, and
// all of a parameter that a rank of the pipeline before this one holds too. All ranks of a stage
// that hold the same experts are one data group.
class EarlierHolders {
 public:
  EarlierHolders(const ModelConfig& model, int r, int t,
                 std::set<std::string> of_earlier_stages = {});
  std::vector<ParamInfo> operator()(const ParamInfo& own) const;

 private:
  ModelConfig model_;
  int r_, t_;
  std::map<std::string, ParamInfo> whole_;
  std::set<std::string> of_earlier_stages_;
};

// The elements of the parameter, as the rank numbers them, that it writes. A fault where an earlier
// rank holds some columns of them and not others.
std::vector<FlatRange> written_ranges(const Param& p, const SavedShare& share);

// What this rank writes: masters and states of the model ("model/<name>"), then the optimiser's
// ("optim/<kind>/<name>"). The pieces point into `masters`, `store`
// and `state`.
std::vector<TensorPiece> pieces_of(const ParamStore& store, const FlatSpan<float>& masters,
                                   std::span<const StateTensor> state, const SavedShare& share);

// Puts back, whatever layout wrote them: the masters that this rank owns, the model's states and
// `state`. The owners' compute copies and everybody's weights are the caller's.
void restore_pieces(ParamStore& store, const FlatSpan<float>& masters,
                    std::span<const StateTensor> state, const SavedShare& share,
                    const Checkpoint& checkpoint);

// What a checkpoint of the model holds below "model/", whatever the layout, with its whole shapes.
std::vector<std::pair<std::string, Shape>> saved_tensors(const ModelConfig& model);
// The same of a model whose store has all names, whole or in parts.
std::vector<std::pair<std::string, Shape>> saved_tensors(const ParamStore& store);
// All that a run's checkpoints hold, the optimiser's state included.
std::vector<std::pair<std::string, Shape>> saved_tensors(const ModelConfig& model,
                                                         const OptimConfig& optim);
std::string checkpoint_name(const StateTensor& state);

}  // namespace shoestring
