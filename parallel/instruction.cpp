#include "parallel/instruction.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

constexpr std::array<std::string_view, 11> names = {"F",  "B",  "I", "W", "SA", "RA",
                                                    "SG", "RG", "G", "R", "S"};
constexpr std::array<std::string_view, segment_kinds> segment_names = {
    "edge", "attention", "mlp", "dispatch", "experts", "combine"};

// One word of a line, with its place for messages.
struct Word {
  std::string_view text, file;
  TextPlace place;

  [[noreturn]] void refuse(std::string_view why) const {
    fail_usage(cat(file, ":", place.line, ":", place.column, ": \"", text,
                   "\" is no instruction: ", why,
                   "; write <stage><F, B, I or W><micro-batch>, as in 0F3, and join pairs by &"));
  }
};

int16_t take_number(const Word& word, std::string_view& rest, std::string_view what) {
  int16_t number = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  if (error == std::errc::result_out_of_range && !rest.starts_with('-')) {
    word.refuse(cat("its ", what, " is above ", std::numeric_limits<int16_t>::max()));
  }
  if (error != std::errc() || number < 0) word.refuse(cat("it has no ", what));
  rest.remove_prefix(static_cast<size_t>(end - rest.data()));
  return number;
}

Instruction parse_instruction(const Word& word, std::string_view text) {
  Instruction made;
  made.stage = take_number(word, text, "number of a stage in front");
  const std::string_view name =
      text.substr(0, text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ"));
  const auto at = std::find(names.begin(), names.end(), name);
  if (at == names.end()) word.refuse("it has no F, B, I or W behind the stage");
  made.what = static_cast<Do>(at - names.begin());
  text.remove_prefix(name.size());
  made.micro = take_number(word, text, "number of a micro-batch behind the letter");
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    made.part = take_number(word, text, "number of a segment behind the point");
    made.travels = text.starts_with('~');
    if (made.travels) text.remove_prefix(1);
  }
  if (!text.empty()) word.refuse(cat("\"", text, "\" is left over"));
  return made;
}

void parse_word(const Word& word, Program& program, ProgramPlaces& places) {
  std::string_view rest = word.text;
  while (true) {
    const size_t joint = rest.find('&');
    if (rest.empty()) word.refuse("a pair has no second half behind its &");
    if (joint == 0) word.refuse("a pair has no first half in front of its &");
    TextPlace place = word.place;
    place.column += static_cast<int>(word.text.size() - rest.size());
    program.push_back(parse_instruction(word, rest.substr(0, joint)));
    places.push_back(place);
    if (joint == std::string_view::npos) return;
    program.back().with_next = true;
    rest.remove_prefix(joint + 1);
  }
}

}  // namespace

std::string_view name_of(Do what) { return names[static_cast<size_t>(what)]; }
std::string_view name_of(SegmentKind kind) { return segment_names[static_cast<size_t>(kind)]; }

StageSegments parse_segments(std::string_view text) {
  StageSegments kinds;
  while (true) {
    const std::string_view word = text.substr(0, text.find(','));
    const auto at = std::find(segment_names.begin(), segment_names.end(), word);
    if (at == segment_names.end()) {
      fail_usage(cat("\"", word, "\" is no kind of segment; there are edge, attention, mlp, ",
                     "dispatch, experts and combine, parted by commas"));
    }
    kinds.push_back(static_cast<SegmentKind>(at - segment_names.begin()));
    if (word.size() == text.size()) return kinds;
    text.remove_prefix(word.size() + 1);
  }
}

int Placement::rank_of(int stage, int micro) const {
  switch (order) {
    case StageOrder::loop:
      return stage % ranks;
    case StageOrder::vee:
      return stage < ranks ? stage : 2 * ranks - 1 - stage;
    case StageOrder::both_ways:
      return micro < micros / 2 ? stage : ranks - 1 - stage;
  }
  fail("an unknown order of stages");
}

int Placement::stage_of(int rank, int chunk) const {
  if (order == StageOrder::loop) return chunk * ranks + rank;
  return chunk == 0 ? rank : stages() - 1 - rank;
}

std::string instruction_text(const Instruction& i) {
  std::string text = cat(i.stage, name_of(i.what), i.micro);
  if (!i.whole()) append(text, ".", i.part, i.travels ? "~" : "");
  return text;
}

std::string program_text(const Program& program) {
  std::string text;
  for (const Instruction& i : program) {
    append(text, instruction_text(i), i.with_next ? "&" : " ");
  }
  if (!text.empty()) text.pop_back();
  return text;
}

std::string schedule_text(const Schedule& schedule) {
  std::string text;
  for (const Program& program : schedule.ranks) append(text, program_text(program), "\n");
  return text;
}

std::string place_text(const Schedule& schedule, int rank, size_t number) {
  if (schedule.places.empty()) return "";
  const TextPlace place = schedule.places[static_cast<size_t>(rank)][number];
  return cat(schedule.name, ":", place.line, ":", place.column, ": ");
}

std::string line_text(const Schedule& schedule, int rank) {
  if (schedule.places.empty()) return "";
  return cat(schedule.name, ":", schedule.places[static_cast<size_t>(rank)][0].line, ": ");
}

std::string complaint_head(const Schedule& schedule, int rank, size_t number) {
  const Instruction& i = schedule.ranks[static_cast<size_t>(rank)][number];
  return cat(place_text(schedule, rank, number), "rank ", rank, ", ", instruction_text(i),
             " (number ", number + 1, "): ");
}

std::vector<Program> parse_programs(std::string_view text, std::string_view name,
                                    std::vector<ProgramPlaces>* places) {
  std::vector<Program> programs;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    line = line.substr(0, line.find('#'));
    Program program;
    ProgramPlaces places_of_program;
    for (size_t at = 0; (at = line.find_first_not_of(" \t\r", at)) != std::string_view::npos;) {
      const size_t stop = std::min(line.find_first_of(" \t\r", at), line.size());
      parse_word({line.substr(at, stop - at), name, {number, static_cast<int>(at + 1)}}, program,
                 places_of_program);
      at = stop;
    }
    if (program.empty()) continue;
    programs.push_back(std::move(program));
    if (places != nullptr) places->push_back(std::move(places_of_program));
  }
  return programs;
}

}  // namespace shoestring
