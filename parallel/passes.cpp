#include "parallel/passes.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "core/check.h"
#include "core/text.h"
#include "parallel/effects.h"
#include "parallel/simulate.h"

namespace shoestring {
namespace {

struct Receipt {
  Instruction instruction;
  size_t group = 0;  // before which it is posted
};
using Receipts = std::vector<Receipt>;

// A rank's compute instructions, pairs together.
std::vector<Program> groups_of(const Program& program) {
  std::vector<Program> groups(1);
  for (const Instruction& i : program) {
    groups.back().push_back(i);
    if (!i.with_next) groups.emplace_back();
  }
  groups.pop_back();
  return groups;
}

// The transfers that wait behind an instruction.
std::vector<Instruction> sends_of(const Instruction& i, const Placement& where) {
  std::vector<Instruction> sends;
  for (const Token& token : effects_of(i, where, true).makes) {
    const bool activation = token.kind == TokenKind::activation_out;
    if (!activation && token.kind != TokenKind::gradient_out) continue;
    sends.push_back({.what = activation ? Do::SA : Do::SG, .stage = i.stage, .micro = i.micro});
  }
  return sends;
}

// The receipt that answers a send.
Instruction receipt_of(const Instruction& send) {
  const bool activation = send.what == Do::SA;
  return {.what = activation ? Do::RA : Do::RG,
          .stage = static_cast<int16_t>(send.stage + (activation ? 1 : -1)),
          .micro = send.micro};
}

class TransferPass {
 public:
  TransferPass(Schedule& schedule, int ahead)
      : schedule_(schedule), ahead_(static_cast<size_t>(ahead)) {
    for (const Program& program : schedule.ranks) groups_.push_back(groups_of(program));
  }
  void run() {
    std::map<std::tuple<int, int, Do>, std::vector<Instruction>> channels;  // in order of sends
    for (const auto& groups : groups_) {
      for (const Program& group : groups) {
        for (const Instruction& i : group) {
          for (const Instruction& send : sends_of(i, schedule_.where)) {
            const Channel c = channel_of(send, schedule_.where);
            channels[{c.from, c.to, c.what}].push_back(send);
          }
        }
      }
    }
    std::vector<Receipts> receipts(groups_.size());
    for (size_t r = 0; r < groups_.size(); ++r) {
      const Readers readers = readers_on(static_cast<int>(r));
      for (const auto& [channel, sends] : channels) {
        if (std::get<1>(channel) == static_cast<int>(r)) place(sends, readers, receipts[r]);
      }
    }
    for (size_t r = 0; r < groups_.size(); ++r) write(r, receipts[r]);
    schedule_.transfers = true;
  }

 private:
  // By (kind, stage, micro-batch) of a value: the group of the rank that reads it.
  using Readers = std::map<std::tuple<TokenKind, int, int>, size_t>;
  Readers readers_on(int rank) const {
    Readers readers;
    const auto& groups = groups_[static_cast<size_t>(rank)];
    for (size_t g = 0; g < groups.size(); ++g) {
      for (const Instruction& i : groups[g]) {
        for (const Token& token : effects_of(i, schedule_.where, true).eats) {
          readers[{token.kind, token.stage, token.micro}] = g;
        }
      }
    }
    return readers;
  }
  void place(const std::vector<Instruction>& sends, const Readers& readers,
             Receipts& receipts) const {
    Receipts placed;
    for (const Instruction& send : sends) {
      const Instruction receipt = receipt_of(send);
      const TokenKind kind = receipt.what == Do::RA ? TokenKind::activation : TokenKind::gradient;
      const size_t reader = readers.at({kind, receipt.stage, receipt.micro});
      placed.push_back({receipt, reader > ahead_ ? reader - ahead_ : 0});
    }
    for (size_t k = placed.size(); k-- > 1;) {
      placed[k - 1].group = std::min(placed[k - 1].group, placed[k].group);
    }
    receipts.insert(receipts.end(), placed.begin(), placed.end());
  }
  void write(size_t rank, Receipts& receipts) {
    std::stable_sort(receipts.begin(), receipts.end(),
                     [](const Receipt& a, const Receipt& b) { return a.group < b.group; });
    Program program;
    auto next = receipts.begin();
    for (size_t g = 0; g < groups_[rank].size(); ++g) {
      for (; next != receipts.end() && next->group == g; ++next) {
        program.push_back(next->instruction);
      }
      for (const Instruction& i : groups_[rank][g]) program.push_back(i);
      for (const Instruction& i : groups_[rank][g]) {
        for (const Instruction& send : sends_of(i, schedule_.where)) program.push_back(send);
      }
    }
    schedule_.ranks[rank] = std::move(program);
  }

  Schedule& schedule_;
  size_t ahead_;
  std::vector<std::vector<Program>> groups_;  // by rank
};

}  // namespace

Schedule add_transfers(Schedule schedule, int ahead) {
  check(!schedule.transfers, "the programs have transfers already");
  check(schedule.segments.empty(), "transfers are added before passes are split");
  check(ahead >= 0, "receipts are posted before what reads them");
  refuse_broken(schedule);
  TransferPass(schedule, ahead).run();
  return schedule;
}

}  // namespace shoestring
