#include "parallel/schedules/catalogue.h"

#include <functional>

#include "core/check.h"
#include "core/nearest_name.h"
#include "core/text.h"
#include "parallel/schedules/generators.h"

namespace shoestring {
namespace {

constexpr int most_ranks = 4096, most_micros = 32767;  // of the first, with two stages a rank

struct Maker {
  ScheduleEntry entry;
  StageOrder order = StageOrder::loop;
  int chunks = 1;
  Program (*one)(const Placement&, int rank) = nullptr;
  std::vector<Program> (*all)(const ScheduleRequest&, const Placement&) = nullptr;
};

std::vector<Program> make_v_half(const ScheduleRequest& r, const Placement& where) {
  return v_half_programs(where, r.times);
}
std::vector<Program> make_v_min(const ScheduleRequest& r, const Placement& where) {
  return v_min_programs(where, r.times);
}
std::vector<Program> make_automatic(const ScheduleRequest& r, const Placement& where) {
  return automatic_programs(where, r.times, r.memory.value_or(where.ranks));
}

const std::vector<Maker>& makers() {
  static const std::vector<Maker> list = {
      {.entry = {"gpipe", "bubble (p-1)(F+B), activations m", "arXiv 1811.06965"},
       .one = gpipe_program},
      {.entry = {"1f1b", "bubble (p-1)(F+B), activations p", "arXiv 2006.09503"},
       .one = one_f_one_b_program},
      {.entry = {.name = "interleaved-1f1b",
                 .summary = "bubble (p-1)(F+B)/v, activations p + (p-1)/v",
                 .source = "arXiv 2104.04473",
                 .takes_chunks = true},
       .chunks = 2,
       .one = interleaved_program},
      {.entry = {"zb-h1", "bubble (p-1)(F+I-W), activations p", "arXiv 2401.10241"},
       .one = zb_h1_program},
      {.entry = {"zb-h2", "bubble (p-1)(F+I-2W) in each rank's window, activations 2p-1",
                 "arXiv 2401.10241"},
       .one = zb_h2_program},
      {.entry = {.name = "automatic",
                 .summary = "zero-bubble heuristic within a memory limit",
                 .source = "arXiv 2401.10241",
                 .takes_memory = true},
       .all = make_automatic},
      {.entry = {"zb-v", "no bubble in each rank's window when F = I = W, activations p",
                 "arXiv 2401.10241"},
       .order = StageOrder::vee,
       .chunks = 2,
       .one = zb_v_program},
      {.entry = {"v-half", "about half of 1f1b's bubble, activations p/2 + 1", "arXiv 2405.15362"},
       .order = StageOrder::vee,
       .chunks = 2,
       .all = make_v_half},
      {.entry = {"v-min", "about 2/3 of 1f1b's bubble, activations p/3 + 1", "arXiv 2405.15362"},
       .order = StageOrder::vee,
       .chunks = 2,
       .all = make_v_min},
      {.entry = {"dualpipe", "bubble (p/2-1)(F&B+B-3W), activations p+1, two copies of the weights",
                 "DeepSeek-V3 report, section 3.2.1"},
       .order = StageOrder::both_ways,
       .chunks = 2,
       .one = dual_pipe_program},
      {.entry = {"dualpipev", "bubble (p-1)(F&B+B-3W)/2, activations p + 1/2",
                 "DeepSeek's DualPipe, cut in half"},
       .order = StageOrder::vee,
       .chunks = 2,
       .one = dual_pipe_program},
  };
  return list;
}

const Maker& maker_of(const std::string& name) {
  std::vector<std::string> names;
  for (const Maker& maker : makers()) {
    if (maker.entry.name == name) return maker;
    names.push_back(maker.entry.name);
  }
  std::string message = cat("no schedule is called \"", name, "\"");
  const std::string nearest = nearest_name(name, names);
  if (!nearest.empty()) append(message, "; did you mean \"", nearest, "\"?");
  append(message, nearest.empty() ? "; there are " : " There are ");
  for (size_t i = 0; i < names.size(); ++i) append(message, i > 0 ? ", " : "", names[i]);
  fail_usage(message);
}

// What an order needs that not every step has.
void require_legal(const ScheduleRequest& r, const Placement& where) {
  const auto require = [&](bool holds, const std::string& needs) {
    if (holds) return;
    fail_usage(cat(r.name, " needs ", needs, " but has ", r.ranks, " ranks and ", r.micros,
                   " micro-batches"));
  };
  require(r.ranks >= 1 && r.ranks <= most_ranks, cat("1 to ", most_ranks, " ranks"));
  require(r.micros >= 1 && r.micros <= most_micros, cat("1 to ", most_micros, " micro-batches"));
  if (r.name == "interleaved-1f1b") {
    const int64_t stages = static_cast<int64_t>(where.chunks) * r.ranks;
    if (where.chunks < 2) {
      fail_usage(cat(r.name, " needs at least 2 chunks a rank but has ", where.chunks,
                     where.chunks == 1 ? "; with one it is 1f1b" : ""));
    }
    if (stages > most_micros) {
      fail_usage(cat(r.name, " needs at most ", most_micros, " stages but has ", where.chunks,
                     " chunks on each of ", r.ranks, " ranks"));
    }
  }
  const ScheduleNeeds needs = needs_of(r);
  require(!needs.even_ranks || r.ranks % 2 == 0, "an even number of ranks");
  require(needs.multiple_per_rank == 0 || r.micros % r.ranks == 0,
          "a multiple of the ranks as micro-batches");
  require(r.micros % needs.multiple == 0, "an even number of micro-batches");
  require(r.micros >= needs.min_per_rank * r.ranks,
          "at least twice as many micro-batches as ranks");
  if (r.name == "automatic" && r.memory && !(*r.memory >= 1)) {
    fail_usage(cat("automatic needs memory for at least 1 micro-batch but has ", *r.memory));
  }
}

}  // namespace

const std::vector<ScheduleEntry>& schedule_entries() {
  static const std::vector<ScheduleEntry> entries = [] {
    std::vector<ScheduleEntry> list;
    for (const Maker& maker : makers()) list.push_back(maker.entry);
    return list;
  }();
  return entries;
}

const ScheduleEntry& schedule_entry(const std::string& name) { return maker_of(name).entry; }

ScheduleNeeds needs_of(const ScheduleRequest& request) {
  const Placement where = placement_of(request);
  const bool both_ways = where.order == StageOrder::both_ways;
  const bool dual = both_ways || request.name == "dualpipev";
  return {.name = request.name,
          .stages_per_rank = both_ways ? 1 : where.chunks,
          .min_per_rank = dual ? 2 : 0,
          .multiple = both_ways ? 2 : 1,
          .multiple_per_rank = request.name == "interleaved-1f1b" ? 1 : 0,
          .even_ranks = both_ways};
}

Placement placement_of(const ScheduleRequest& request) {
  const Maker& maker = maker_of(request.name);
  return {.order = maker.order,
          .ranks = request.ranks,
          .chunks = maker.entry.takes_chunks ? request.chunks.value_or(2) : maker.chunks,
          .micros = request.micros};
}

Schedule make_schedule(const ScheduleRequest& request) {
  const Maker& maker = maker_of(request.name);
  Schedule schedule{.name = request.name, .where = placement_of(request), .ranks = {}};
  require_legal(request, schedule.where);
  if (maker.all != nullptr) {
    schedule.ranks = maker.all(request, schedule.where);
    return schedule;
  }
  for (int rank = 0; rank < request.ranks; ++rank) {
    schedule.ranks.push_back(maker.one(schedule.where, rank));
  }
  return schedule;
}

}  // namespace shoestring
