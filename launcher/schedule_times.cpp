#include "launcher/schedule_times.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {
namespace {

double parse_time(std::string_view text, const std::string& part) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (!whole || !std::isfinite(value) || value < 0 || value > 1e9) {
    fail_usage(cat("--times: \"", part, "\" needs a number from 0 to 1e9 behind the ="));
  }
  return value;
}

// The kinds of segments that a key is for; none: it is for whole passes, or no key.
std::vector<SegmentKind> kinds_of(std::string_view key) {
  if (key == "A2A") return {SegmentKind::dispatch, SegmentKind::combine};
  for (size_t k = 0; k < segment_kinds; ++k) {
    if (name_of(static_cast<SegmentKind>(k)) == key) return {static_cast<SegmentKind>(k)};
  }
  return {};
}

// "experts", "0.5/0.5/0.4"; A2A is one number for all that travels.
void take_segment_times(StepTimes& times, const std::string& key, std::string_view value,
                        const std::string& part) {
  const std::vector<SegmentKind> kinds = kinds_of(key);
  if (key == "A2A") {
    const double way = parse_time(value, part);
    for (const SegmentKind kind : kinds) {
      times.segments[static_cast<size_t>(kind)] = {.f = way, .i = way};
    }
    return;
  }
  SegmentTimes& t = times.segments[static_cast<size_t>(kinds[0])];
  for (double* time : {&t.f, &t.i, &t.w}) {
    const size_t end = std::min(value.find('/'), value.size());
    *time = parse_time(value.substr(0, end), part);
    value.remove_prefix(std::min(end + 1, value.size()));
    if (value.empty()) return;
  }
  fail_usage(cat("--times: \"", part, "\" has more than F, I and W"));
}

// "experts=1" and its key.
struct Part {
  std::string text, key;
};
std::vector<Part> parts_of(const std::string& text) {
  std::vector<Part> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    parts.push_back({.text = part, .key = part.substr(0, part.find('='))});
    at = end + 1;
  }
  return parts;
}

bool computes(SegmentKind kind) { return kind != SegmentKind::edge && !travels(kind); }

// Has any of the segments that compute a time of its own?
bool have_times(const StepTimes& times, const StageSegments& segments) {
  return std::ranges::any_of(segments, [&](SegmentKind kind) {
    const SegmentTimes& t = times.segments[static_cast<size_t>(kind)];
    return computes(kind) && t.f + t.i + t.w > 0;
  });
}

bool has_pairs(const Schedule& schedule) {
  return std::ranges::any_of(schedule.ranks, [](const Program& program) {
    return std::ranges::any_of(program, [](const Instruction& i) { return i.with_next; });
  });
}

}  // namespace

StepTimes parse_times(const std::string& text) {
  StepTimes times;
  const std::map<std::string, double*> known = {
      {"F", &times.f}, {"I", &times.i}, {"W", &times.w}, {"FB", &times.fb}, {"comm", &times.comm}};
  std::map<std::string, std::string> before;
  for (const Part& part : parts_of(text)) {
    const auto [first, fresh] = before.emplace(part.key, part.text);
    if (!fresh) {
      fail_usage(cat("--times: \"", part.key, "\" is given twice, \"", first->second, "\" and \"",
                     part.text, "\"; leave one out"));
    }
    const bool assigns = part.key.size() < part.text.size();
    const std::string_view value =
        std::string_view(part.text).substr(part.key.size() + (assigns ? 1 : 0));
    const auto slot = known.find(part.key);
    if (assigns && slot != known.end()) {
      *slot->second = parse_time(value, part.text);
    } else if (assigns && !kinds_of(part.key).empty()) {
      take_segment_times(times, part.key, value, part.text);
    } else {
      fail_usage(cat("--times: \"", part.text, "\" is none of F=, I=, W=, FB=, comm=, A2A= and ",
                     "the kinds of segments, as experts=1/1/1, parted by commas"));
    }
  }
  if (times.f + times.i + times.w <= 0) fail_usage("--times: F, I and W are all 0");
  return times;
}

StepTimes times_of(const std::string& text, const Schedule& schedule) {
  StepTimes times = parse_times(text);
  if (schedule.segments.empty()) return times;
  const StageSegments& segments = schedule.segments[0];
  if (have_times(times, segments)) return times;
  const auto count = static_cast<double>(std::ranges::count_if(segments, computes));
  if (count == 0) fail_usage("--segments: none of them computes");
  const double share = schedule.where.share_of_stage() / count;
  for (const SegmentKind kind : segments) {
    if (!computes(kind)) continue;
    times.segments[static_cast<size_t>(kind)] = {times.f * share, times.i * share, times.w * share};
  }
  return times;
}

void require_segments_of_times(const std::string& text, const StageSegments& segments) {
  for (const Part& part : parts_of(text)) {
    const std::vector<SegmentKind> kinds = kinds_of(part.key);
    const bool told = std::ranges::any_of(kinds, [&](SegmentKind kind) {
      return std::ranges::find(segments, kind) != segments.end();
    });
    if (kinds.empty() || told) continue;
    fail_usage(cat("--times: \"", part.text, "\" has no effect ",
                   segments.empty() ? "without --segments" : "on these --segments",
                   ", which must have ", kinds.size() > 1 ? "dispatch or combine" : part.key,
                   "; add that, or leave the time out"));
  }
}

std::string warning_of_times(const std::string& text, const Schedule& schedule) {
  const bool segments = !schedule.segments.empty();
  const bool own = segments && have_times(parse_times(text), schedule.segments[0]);
  std::string idle;
  for (const Part& part : parts_of(text)) {
    const bool pass = part.key == "F" || part.key == "I" || part.key == "W";
    const bool pair = part.key == "FB" && (segments || !has_pairs(schedule));
    if (pair || (own && pass)) append(idle, idle.empty() ? "" : ", ", part.text);
  }
  if (idle.empty()) return "";
  return cat("--times: ", idle, " has no effect: ",
             own        ? "the segments take their own times, and those without one take none"
             : segments ? "with --segments a pair takes what its parts take"
                        : cat(schedule.name, " has no interleaved pairs"));
}

}  // namespace shoestring
