#include "launcher/schedule_trace.h"

#include <algorithm>
#include <optional>

#include "core/text.h"
#include "io/trace.h"
#include "launcher/step_events.h"
#include "parallel/effects.h"
#include "parallel/pipeline_engine.h"
#include "parallel/pipeline_links.h"

namespace shoestring {
namespace {

constexpr double milliseconds = 1e-3;

// The way on which a value leaves the rank behind this instruction, if one does.
std::optional<Channel> way_of(const Instruction& i, const Schedule& schedule) {
  const Placement& where = schedule.where;
  if (schedule.transfers) {
    if (!is_transfer(i.what) || is_receipt(i.what)) return {};
    return channel_of(i, where);
  }
  if (!is_compute(i.what) || i.what == Do::W) return {};
  const bool forward = i.what == Do::F;
  if (!i.whole() && i.part != (forward ? schedule.parts_of(i.stage) - 1 : 0)) return {};
  const int next = i.stage + (forward ? 1 : -1);
  if (next < 0 || next >= where.stages()) return {};
  if (where.rank_of(next, i.micro) == where.rank_of(i.stage, i.micro)) return {};
  return channel_of({.what = forward ? Do::SA : Do::SG, .stage = i.stage, .micro = i.micro}, where);
}

void write_rank(TraceWriter& writer, const Schedule& schedule, const SimulatedRank& times,
                double comm, int rank) {
  StepEvents events(writer, rank);
  const Program& program = schedule.ranks[static_cast<size_t>(rank)];
  double free = 0;
  bool inside = false;  // of a pair
  for (size_t k = 0; k < program.size(); ++k) {
    const Instruction& i = program[k];
    const double begin = times.start[k] * milliseconds, end = times.end[k] * milliseconds;
    if (is_compute(i.what) && !i.travels) {
      if (begin > free && !inside) writer.event(rank, "waits", awaited_by(i), free, begin);
      free = std::max(free, end);
    }
    inside = i.with_next;
    events.add(i, begin, end);
    const std::optional<Channel> way = way_of(i, schedule);
    if (!way || comm == 0) continue;
    const std::string group = name_of(*way);
    writer.event(rank, communication_lane(group), "exchange", end, end + comm * milliseconds,
                 {{"group", group}});
  }
}

}  // namespace

void write_schedule_trace(const Schedule& schedule, const Simulation& simulation, double comm,
                          const std::string& path) {
  TraceWriter writer(step_lanes());
  for (size_t r = 0; r < schedule.ranks.size(); ++r) {
    write_rank(writer, schedule, simulation.ranks[r], comm, static_cast<int>(r));
  }
  writer.write(path);
}

}  // namespace shoestring
