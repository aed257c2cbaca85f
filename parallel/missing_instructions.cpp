#include "parallel/missing_instructions.h"

#include <algorithm>
#include <utility>

#include "core/text.h"

namespace shoestring {
namespace {

constexpr int kinds_of_instruction = 11;

class Roll {
 public:
  explicit Roll(const Schedule& schedule) : schedule_(schedule), where_(schedule.where) {
    for (const StageSegments& s : schedule.segments) {
      most_parts_ = std::max(most_parts_, static_cast<int>(s.size()));
    }
    const auto passes = static_cast<size_t>(where_.stages()) * static_cast<size_t>(where_.micros);
    there_.resize(passes * kinds_of_instruction * static_cast<size_t>(most_parts_ + 1));
    for (const Program& program : schedule.ranks) {
      for (const Instruction& i : program) there_[index_of(i)] = true;
    }
  }

  std::vector<std::string> missing() {
    for (int stage = 0; stage < where_.stages(); ++stage) {
      for (int micro = 0; micro < where_.micros; ++micro) {
        forward(stage, micro);
        backward(stage, micro);
        if (schedule_.transfers) transfers(stage, micro);
      }
    }
    return std::move(complaints_);
  }

 private:
  size_t index_of(const Instruction& i) const {
    const int pass = (i.stage * where_.micros + i.micro) * kinds_of_instruction;
    return static_cast<size_t>(pass + static_cast<int>(i.what)) *
               static_cast<size_t>(most_parts_ + 1) +
           static_cast<size_t>(i.part + 1);
  }
  static Instruction made(Do what, int stage, int micro, int part = -1) {
    Instruction i;
    i.what = what;
    i.stage = static_cast<int16_t>(stage), i.micro = static_cast<int16_t>(micro);
    i.part = static_cast<int16_t>(part);
    return i;
  }
  bool has(const Instruction& i) const { return there_[index_of(i)]; }
  bool has_parts(Do what, int stage, int micro) const {
    for (int part = 0; part < schedule_.parts_of(stage); ++part) {
      if (has(made(what, stage, micro, part))) return true;
    }
    return false;
  }
  void need(Instruction i) {
    if (!i.whole()) i.travels = travels(segment_of(i.stage, i.part));
    if (has(i)) return;
    const int home = where_.rank_of(i.stage, i.micro);
    complaints_.push_back(
        cat(line_text(schedule_, home), "rank ", home, ": there is no ", instruction_text(i)));
  }
  SegmentKind segment_of(int stage, int part) const {
    return schedule_.segments[static_cast<size_t>(stage)][static_cast<size_t>(part)];
  }
  void forward(int stage, int micro) {
    if (!has_parts(Do::F, stage, micro)) return need(made(Do::F, stage, micro));
    for (int part = 0; part < schedule_.parts_of(stage); ++part) {
      if (!has(made(Do::F, stage, micro))) need(made(Do::F, stage, micro, part));
    }
  }
  // In one, or in two of which either may be in parts.
  void backward(int stage, int micro) {
    if (has(made(Do::B, stage, micro))) return;
    const bool input = has(made(Do::I, stage, micro)), weights = has(made(Do::W, stage, micro));
    if (has_parts(Do::I, stage, micro) || has_parts(Do::W, stage, micro)) {
      for (int part = schedule_.parts_of(stage); part-- > 0;) {
        if (!input) need(made(Do::I, stage, micro, part));
        const bool none = travels(segment_of(stage, part));
        if (!weights && !none) need(made(Do::W, stage, micro, part));
      }
    } else if (input || weights) {
      need(made(Do::I, stage, micro));
      need(made(Do::W, stage, micro));
    } else {
      need(made(Do::B, stage, micro));
    }
  }
  // Between this stage and the next, where these stand on two ranks.
  void transfers(int stage, int micro) {
    if (stage + 1 == where_.stages()) return;
    if (where_.rank_of(stage, micro) == where_.rank_of(stage + 1, micro)) return;
    need(made(Do::SA, stage, micro));
    need(made(Do::RA, stage + 1, micro));
    need(made(Do::SG, stage + 1, micro));
    need(made(Do::RG, stage, micro));
  }

  const Schedule& schedule_;
  const Placement& where_;
  int most_parts_ = 0;
  std::vector<bool> there_;
  std::vector<std::string> complaints_;
};

}  // namespace

std::vector<std::string> missing_complaints_of(const Schedule& schedule) {
  return Roll(schedule).missing();
}

}  // namespace shoestring
