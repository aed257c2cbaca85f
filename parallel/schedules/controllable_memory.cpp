// V-Half and V-Min ("Pipeline Parallelism with Controllable Memory", arXiv 2405.15362): one block
// of passes, repeated every six chunk passes, keeps about half and a third of 1F1B's activations.

#include <algorithm>
#include <array>
#include <map>

#include "core/check.h"
#include "parallel/schedules/generators.h"
#include "parallel/schedules/greedy.h"

namespace shoestring {
namespace {

// F and I of both chunks.
struct Kind {
  Do what;
  int chunk;
};
constexpr std::array<Kind, 4> kinds = {{{Do::F, 0}, {Do::F, 1}, {Do::I, 1}, {Do::I, 0}}};
constexpr int period = 6;

// When a rank's first micro-batch passes, in chunk passes, by kind; the next ones follow every
// period.
using Block = std::array<int, 4>;
Block v_half_block(int p, int r) {
  const int extra = p % 2 == 0 ? 3 : 0;
  return {2 * r, 3 * p - r - 2, 3 * p + extra + 2 * r - 1, 6 * p + extra - r - 2};
}
Block v_min_block(int p, int r) {
  const int extra = p % 3 == 0 ? 2 : 0;
  return {r, 2 * p - r - 1, 2 * p + extra + r, 4 * p + extra - r - 1};
}

Instruction instruction_of(const Placement& where, int rank, const Kind& kind, int micro) {
  return {.what = kind.what,
          .stage = static_cast<int16_t>(where.stage_of(rank, kind.chunk)),
          .micro = static_cast<int16_t>(micro)};
}

// The repeated block as it stands, weight gradients in its free slots, oldest first.
Program repeated(const Placement& where, int rank, const Block& block) {
  std::map<int, Instruction> slots;
  for (int micro = 0; micro < where.micros; ++micro) {
    for (size_t k = 0; k < kinds.size(); ++k) {
      const bool free =
          slots.emplace(block[k] + period * micro, instruction_of(where, rank, kinds[k], micro))
              .second;
      if (!free) fail("two passes of a block in one slot");
    }
  }
  Program program;
  std::deque<Instruction> owed;
  const int last = slots.rbegin()->first;
  for (int slot = 0; slot <= last || !owed.empty(); ++slot) {
    if (const auto pass = slots.find(slot); pass != slots.end()) {
      program.push_back(pass->second);
      if (pass->second.what != Do::I) continue;
      owed.push_back(pass->second);
      owed.back().what = Do::W;
    } else if (!owed.empty()) {
      program.push_back(owed.front());
      owed.pop_front();
    }
  }
  return program;
}

// How a rank may leave the order of its block to run sooner.
enum class Reach {
  none,      // F and I in the block's order, weight gradients where it would wait
  any,       // whatever is there, with memory left for what the block has before it
  any_roomy  // the same; a forward pass also needs room for the one after it
};

class Squeezed {
 public:
  Squeezed(const Placement& where, std::vector<Block> blocks, double memory, Reach reach)
      : where_(where), blocks_(std::move(blocks)), memory_(memory), reach_(reach) {}

  GreedyClock::Choice operator()(const GreedyClock& clock, int rank) const {
    std::vector<Wish> wishes;
    for (size_t k = 0; k < kinds.size(); ++k) {
      const auto next = clock.next(rank, kinds[k].what, kinds[k].chunk);
      if (next) wishes.push_back({slot_of(rank, k, next->micro), *next});
    }
    std::sort(wishes.begin(), wishes.end(),
              [](const Wish& a, const Wish& b) { return a.slot < b.slot; });
    for (const Wish& wish : wishes) {
      if (runs(clock, rank, wish, &wish == &wishes.front())) return {.run = wish.instruction};
      if (reach_ == Reach::none) break;
    }
    return {.run = clock.owed(rank)};
  }

 private:
  struct Wish {
    int slot = 0;
    Instruction instruction = {};
  };
  int slot_of(int rank, size_t kind, int micro) const {
    return blocks_[static_cast<size_t>(rank)][kind] + period * micro;
  }
  bool runs(const GreedyClock& clock, int rank, const Wish& wish, bool first) const {
    if (clock.ready(wish.instruction) > clock.now()) return false;
    if (wish.instruction.what != Do::F) return true;
    const double share = where_.share_of_stage();
    double needed = share;
    if (!first) needed += share * earlier_forwards(clock, rank, wish);
    if (!first && reach_ == Reach::any_roomy) needed = std::max(needed, 2 * share);
    return clock.kept(rank) + needed <= memory_ + 1e-9;
  }
  // Forward passes that stand before it in the block's order and have not run.
  double earlier_forwards(const GreedyClock& clock, int rank, const Wish& wish) const {
    int earlier = 0;
    for (size_t k = 0; k < kinds.size(); ++k) {
      if (kinds[k].what != Do::F) continue;
      const auto next = clock.next(rank, Do::F, kinds[k].chunk);
      for (int micro = next ? next->micro : where_.micros; micro < where_.micros; ++micro) {
        if (slot_of(rank, k, micro) >= wish.slot) break;
        ++earlier;
      }
    }
    return earlier;
  }

  Placement where_;
  std::vector<Block> blocks_;
  double memory_;
  Reach reach_;
};

double peak_of(const Simulation& simulation) {
  double peak = 0;
  for (const SimulatedRank& rank : simulation.ranks) {
    peak = std::max(peak, rank.peak_activations);
  }
  return peak;
}

// The soonest done of the repeated block and of what it becomes squeezed, in no more memory.
std::vector<Program> soonest(const Placement& where, const StepTimes& times,
                             const std::vector<Block>& blocks) {
  Schedule best{.name = "repeated block", .where = where, .ranks = {}};
  for (int rank = 0; rank < where.ranks; ++rank) {
    best.ranks.push_back(repeated(where, rank, blocks[static_cast<size_t>(rank)]));
  }
  const Simulation plain = simulate(best, times);
  const double memory = peak_of(plain);
  double least = plain.makespan;
  for (Reach reach : {Reach::none, Reach::any, Reach::any_roomy}) {
    Schedule next{.name = "squeezed block", .where = where, .ranks = {}};
    next.ranks = GreedyClock(where, times).run(Squeezed(where, blocks, memory, reach));
    const double makespan = simulate(next, times).makespan;
    if (makespan >= least) continue;
    least = makespan;
    best = std::move(next);
  }
  return std::move(best.ranks);
}

std::vector<Program> programs_of(const Placement& where, const StepTimes& times,
                                 Block (*block_of)(int, int)) {
  std::vector<Block> blocks;
  for (int rank = 0; rank < where.ranks; ++rank) blocks.push_back(block_of(where.ranks, rank));
  return soonest(where, times, blocks);
}

}  // namespace

std::vector<Program> v_half_programs(const Placement& where, const StepTimes& times) {
  return programs_of(where, times, v_half_block);
}

std::vector<Program> v_min_programs(const Placement& where, const StepTimes& times) {
  return programs_of(where, times, v_min_block);
}

}  // namespace shoestring
