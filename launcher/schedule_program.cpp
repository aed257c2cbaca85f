#include "launcher/schedule_program.h"

#include <iostream>
#include <iterator>
#include <vector>

#include "core/check.h"
#include "core/counted.h"
#include "core/text.h"
#include "io/durable_file.h"

namespace shoestring {
namespace {

std::string read_program(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  return read_small_file(path, 64ull << 20);
}

// One of the programs' instructions.
struct Spot {
  int rank = 0;
  size_t number = 0;
};

struct Sizes {
  int stages = 0, micros = 0;
};

// Every micro-batch has a forward and a backward pass of every stage. A number far beyond what the
// text has is a slip of the pen, and must not decide how much memory is asked for.
Sizes sizes_of(const Schedule& schedule) {
  const std::string& name = schedule.name;
  const auto at = [&](Spot s) -> const Instruction& {
    return schedule.ranks[static_cast<size_t>(s.rank)][s.number];
  };
  Spot far, late;
  int64_t count = 0;
  for (size_t r = 0; r < schedule.ranks.size(); ++r) {
    for (size_t k = 0; k < schedule.ranks[r].size(); ++k, ++count) {
      const Spot here{static_cast<int>(r), k};
      if (at(here).stage > at(far).stage) far = here;
      if (at(here).micro > at(late).micro) late = here;
    }
  }
  if (count == 0) fail_usage(cat(name, ": no instructions; write a line a rank, as 0F0 0F1 1B0"));
  const Sizes sizes{.stages = at(far).stage + 1, .micros = at(late).micro + 1};
  if (int64_t{sizes.stages} * sizes.micros <= count) return sizes;
  const Spot wrong = sizes.micros >= sizes.stages ? late : far;
  fail_usage(cat(place_text(schedule, wrong.rank, wrong.number), "\"", instruction_text(at(wrong)),
                 "\" makes it ", counted(sizes.stages, "stage"), " and ",
                 counted(sizes.micros, "micro-batch", "micro-batches"), ", but there ",
                 count == 1 ? "is " : "are ", counted(count, "instruction"),
                 " in all; both are numbered from 0 without gaps, and every micro-batch passes "
                 "every stage"));
}

// Instructions that stand on another rank than their stage's, and the first of them.
struct Misplaced {
  int64_t count = 0;
  Spot first;
};

Misplaced misplaced(const std::vector<Program>& programs, const Placement& where) {
  Misplaced found;
  for (size_t rank = 0; rank < programs.size(); ++rank) {
    for (size_t k = 0; k < programs[rank].size(); ++k) {
      const Instruction& i = programs[rank][k];
      if (where.rank_of(i.stage, i.micro) == static_cast<int>(rank)) continue;
      if (found.count++ == 0) found.first = {static_cast<int>(rank), k};
    }
  }
  return found;
}

// The stages that no line has an instruction of; "" when there are none.
std::string absent_stages(const std::vector<Program>& programs, int stages) {
  std::vector<bool> there(static_cast<size_t>(stages));
  for (const Program& program : programs) {
    for (const Instruction& i : program) there[static_cast<size_t>(i.stage)] = true;
  }
  std::string text;
  for (size_t stage = 0; stage < there.size(); ++stage) {
    if (!there[stage]) append(text, text.empty() ? "" : ", ", stage);
  }
  return text;
}

// The order of stages under which every instruction runs on its stage's rank.
Placement placement_of(const Schedule& schedule, const Sizes& sizes) {
  const auto ranks = static_cast<int>(schedule.ranks.size());
  const int stages = sizes.stages;
  std::vector<Placement> candidates;
  if (stages % ranks == 0) {
    candidates.push_back({.order = StageOrder::loop, .ranks = ranks, .chunks = stages / ranks});
  }
  if (stages == 2 * ranks) {
    candidates.push_back({.order = StageOrder::vee, .ranks = ranks, .chunks = 2});
  }
  if (stages == ranks) {
    candidates.push_back({.order = StageOrder::both_ways, .ranks = ranks, .chunks = 2});
  }
  Misplaced least;
  Placement nearest;
  for (Placement& where : candidates) {
    where.micros = sizes.micros;
    const Misplaced found = misplaced(schedule.ranks, where);
    if (found.count == 0) return where;
    if (least.count == 0 || found.count < least.count) least = found, nearest = where;
  }
  const std::string lines = cat(counted(stages, "stage"), " on ", counted(ranks, "rank"),
                                " (a line of the file is a rank)");
  const std::string absent = absent_stages(schedule.ranks, stages);
  if (!absent.empty()) {
    fail_usage(cat(schedule.name, ": ", lines, ", but no line has an instruction of stage ", absent,
                   "; is a rank's line missing?"));
  }
  const std::string known =
      "stage s belongs on rank s mod p, or on r and 2p - 1 - r, or in both directions on r and "
      "p - 1 - r";
  if (least.count == 0) {
    fail_usage(cat(schedule.name, ": ", lines, " stand nowhere known: ", known,
                   "; is a rank's line missing?"));
  }
  const Instruction& wrong =
      schedule.ranks[static_cast<size_t>(least.first.rank)][least.first.number];
  fail_usage(cat(complaint_head(schedule, least.first.rank, least.first.number), lines,
                 " stand nowhere known; nearest to what is there, this one belongs on rank ",
                 nearest.rank_of(wrong.stage, wrong.micro), ". In general ", known));
}

}  // namespace

Schedule schedule_of_file(const std::string& path) {
  const std::string text = read_program(path);
  Schedule schedule;
  schedule.name = path;
  schedule.ranks = parse_programs(text, path, &schedule.places);
  schedule.where = placement_of(schedule, sizes_of(schedule));
  for (const Program& program : schedule.ranks) {
    for (const Instruction& i : program) schedule.transfers |= is_transfer(i.what);
  }
  return schedule;
}

}  // namespace shoestring
