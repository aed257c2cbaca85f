#include "launcher/schedule_program.h"

#include <algorithm>
#include <iostream>
#include <iterator>
#include <utility>
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

// "line:column" of an instruction that the text has.
std::string place_of(std::string_view text, const Instruction& instruction) {
  const std::string word = instruction_text(instruction);
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view whole = text.substr(0, end), line = whole.substr(0, whole.find('#'));
    text.remove_prefix(std::min(end + 1, text.size()));
    for (size_t at = 0; (at = line.find(word, at)) != std::string_view::npos; ++at) {
      const size_t behind = at + word.size();
      const bool begins = at == 0 || line.find_first_of(" \t\r&", at - 1) == at - 1;
      if (begins && (behind == line.size() || line.find_first_of(" \t\r&", behind) == behind)) {
        return cat(number, ":", at + 1);
      }
    }
  }
  return "1:1";
}

struct Sizes {
  int stages = 0, micros = 0;
};

// Every micro-batch has a forward and a backward pass of every stage. A number far beyond what the
// text has is a slip of the pen, and must not decide how much memory is asked for.
Sizes sizes_of(const std::vector<Program>& programs, std::string_view text,
               const std::string& name) {
  const Instruction *far = nullptr, *late = nullptr;
  int64_t count = 0;
  for (const Program& program : programs) {
    for (const Instruction& i : program) {
      if (far == nullptr || i.stage > far->stage) far = &i;
      if (late == nullptr || i.micro > late->micro) late = &i;
      ++count;
    }
  }
  if (count == 0) fail_usage(cat(name, ": no instructions; write a line a rank, as 0F0 0F1 1B0"));
  const Sizes sizes{.stages = far->stage + 1, .micros = late->micro + 1};
  if (int64_t{sizes.stages} * sizes.micros <= count) return sizes;
  const Instruction& wrong = sizes.micros >= sizes.stages ? *late : *far;
  fail_usage(cat(name, ":", place_of(text, wrong), ": \"", instruction_text(wrong), "\" makes it ",
                 counted(sizes.stages, "stage"), " and ",
                 counted(sizes.micros, "micro-batch", "micro-batches"), ", but there ",
                 count == 1 ? "is " : "are ", counted(count, "instruction"),
                 " in all; both are numbered from 0 without gaps, and every micro-batch passes "
                 "every stage"));
}

bool stand_where_they_run(const std::vector<Program>& programs, const Placement& where) {
  for (size_t rank = 0; rank < programs.size(); ++rank) {
    for (const Instruction& i : programs[rank]) {
      if (i.stage >= where.stages() || where.rank_of(i.stage, i.micro) != static_cast<int>(rank)) {
        return false;
      }
    }
  }
  return true;
}

// The order of stages under which every instruction runs on its stage's rank.
Placement placement_of(const std::vector<Program>& programs, const Sizes& sizes,
                       const std::string& name) {
  const auto ranks = static_cast<int>(programs.size());
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
  for (Placement& where : candidates) {
    where.micros = sizes.micros;
    if (stand_where_they_run(programs, where)) return where;
  }
  fail_usage(
      cat(name, ": ", counted(stages, "stage"), " on ", counted(ranks, "rank"),
          " stand nowhere known: stage s belongs on rank s mod p, or on r and 2p - 1 - r, or "
          "in both directions on r and p - 1 - r"));
}

}  // namespace

Schedule schedule_of_file(const std::string& path) {
  const std::string text = read_program(path);
  Schedule schedule{.name = path, .where = {}, .ranks = parse_programs(text, path)};
  schedule.where = placement_of(schedule.ranks, sizes_of(schedule.ranks, text, path), path);
  for (const Program& program : schedule.ranks) {
    for (const Instruction& i : program) schedule.transfers |= is_transfer(i.what);
  }
  return schedule;
}

}  // namespace shoestring
