#pragma once
// What a rank holds for a while where data ranks share gradients and weights out (ZeRO stages 2 and
// 3, Rajbhandari et al. 2020, arXiv 1910.02054; exact mode in pipelines): gradients until they are
// reduced, weights from their gather to their release.

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "launcher/rank_share.h"
#include "launcher/run_config.h"
#include "parallel/data_parallel.h"
#include "parallel/instruction.h"

namespace shoestring {

// Gradients of one group of parameters: a slot's from the first instruction that adds to them to
// the last, and of reductions behind it as many as may be in flight (parallel/data_parallel.h).
class HeldGradients {
 public:
  HeldGradients(const RunConfig& config, const RankShare& share, size_t group);
  // In elements, at most, while the instruction runs and behind it.
  int64_t at(const Instruction& i);
  // More than that, where sums of both ends of a pipeline, for which nobody waits, fall behind.
  int64_t behind() const;

 private:
  void measure(const FlatGroup& flat, const DataParallelConfig& config, bool elsewhere);
  int64_t opened_by(const Instruction& i);
  void note();

  const RankShare& share_;
  const RankShare::Group& group_;
  bool each_slot_ = false, held_ = false, waits_for_others_ = false, apart_ = false;
  bool late_ = false;  // a slot's gradients stay until the phase W
  // Of all units; of those that open with the head; most at once while B goes through the units.
  int64_t all_ = 0, head_ = 0, passing_ = 0;
  int64_t last_ = 0;  // that is reduced at the end of a slot
  int64_t in_flight_ = 0, closed_ = 0, waiting_ = 0;
  std::map<int, int64_t> open_;  // by slot
  std::map<int, size_t> ended_;
};

// Weights of one group in stage 3: without a pipeline unit by unit, the next one on its way while
// one is read (parallel/gathered_weights.h); in a pipeline all that a stage reads, from G to R.
class GatheredForecast {
 public:
  GatheredForecast(const RunConfig& config, const RankShare& share, size_t group);
  int64_t at(const Instruction& i);  // in elements, while the instruction runs

 private:
  const RankShare& share_;
  const RankShare::Group& group_;
  int64_t all_ = 0, passing_ = 0;
  int gathered_ = 0;
};

// All groups of a rank together.
class SharingForecast {
 public:
  SharingForecast(const RunConfig& config, const RankShare& share);
  struct Bytes {
    int64_t gradients = 0, weights = 0;
    int64_t behind = 0;  // of gradients, in the worst case
  };
  // At most, while the instruction runs. Asked for all instructions in their order.
  Bytes at(const Instruction& i);

 private:
  int64_t width_ = 0;  // of a weight
  std::vector<HeldGradients> gradients_;
  std::vector<GatheredForecast> weights_;
};

}  // namespace shoestring
