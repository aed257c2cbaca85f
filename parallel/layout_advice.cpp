#include "parallel/layout_advice.h"

#include <algorithm>
#include <cstdlib>

#include "core/counted.h"
#include "core/text.h"
#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

bool fits(LayoutQuestion question, int64_t micro_batches) {
  question.model.micro_batches = micro_batches;
  return is_legal(question);
}

// Sequences at once, of the same batch: the nearest to what there are.
std::string other_micro_batch(const LayoutQuestion& question) {
  const int64_t batch = question.model.batch, own = batch / question.model.micro_batches;
  int64_t best = 0;
  for (int64_t size = 1; size <= std::min<int64_t>(batch, 1 << 16); ++size) {
    const bool nearer = best == 0 || std::abs(size - own) < std::abs(best - own);
    if (batch % size == 0 && nearer && fits(question, batch / size)) best = size;
  }
  return best == 0 ? "" : cat("\n  --set train.micro_batch=", best);
}

// The smallest larger batch of micro-batches as they are.
std::string other_batch(const LayoutQuestion& question) {
  const int64_t now = question.model.micro_batches, size = question.model.batch / now;
  for (int64_t count = now + 1; count <= 4 * (now + question.ranks); ++count) {
    if (fits(question, count)) return cat("\n  --set train.batch=", count * size);
  }
  return "";
}

// At most two, the better known first.
std::string other_schedules(const LayoutQuestion& question) {
  if (question.config.pp == 1) return "";
  std::string text;
  int found = 0;
  for (const ScheduleEntry& entry : schedule_entries()) {
    LayoutQuestion other = question;
    other.model.schedule =
        needs_of({.name = entry.name, .ranks = static_cast<int>(question.config.pp)});
    if (entry.name == "gpipe" || found == 2 || !is_legal(other)) continue;
    append(text, "\n  --set pipeline.schedule=", entry.name);
    ++found;
  }
  return text;
}

// A layout that enough micro-batches make possible; empty where these are not what it lacks.
std::string advice_on_micro_batches(const LayoutQuestion& question) {
  if (!question.config.positive()) return "";
  const std::string schedules = other_schedules(question);
  if (question.model.batch == 0 || question.model.micro_batches == 0) return schedules;
  return cat(other_micro_batch(question), other_batch(question), schedules);
}

std::string options_for(const LayoutQuestion& question, MeshConfig mesh) {
  MeshConfig from = question.config;
  const bool other_data = from.dp() != mesh.dp() && !question.data_key.empty();
  const std::string data = other_data ? cat("--set ", question.data_key, "=", mesh.dp()) : "";
  if (!question.data_key.empty()) from.dp_shard = mesh.dp_shard = 0;
  const std::string options = options_text(from, mesh, question.section);
  if (options.empty() && data.empty()) return "the options as they are";
  return cat(options, options.empty() || data.empty() ? "" : " ", data);
}

std::string nearest(const LayoutQuestion& question, const LayoutQuestion& of, size_t count) {
  std::string text;
  for (const MeshConfig& mesh : nearest_layouts(of, count)) {
    append(text, "\n  ", options_for(question, mesh));
  }
  return text;
}

// Experts take their ranks from the other axes. More data ranks, the fewest that make the layout
// possible as it is; empty where there are enough or where more do not help.
std::string more_data_ranks(const LayoutQuestion& question) {
  const MeshConfig asked = question.config.resolved(question.ranks);
  const int64_t experts = asked.ep * asked.etp;
  if (!asked.positive() || asked.dp_shard == 0 || asked.stage_ranks() % experts == 0) return "";
  for (int64_t times = 2; times <= experts; ++times) {
    LayoutQuestion more = question;
    more.config = asked;
    more.config.dp_shard *= times, more.ranks *= times;
    if (more.config.dp() > more.model.micro_batches || !is_legal(more)) continue;
    LayoutQuestion from = question;
    from.config = asked;
    return cat("ep and etp spread experts over the ranks of other axes and add none; with ",
               more.ranks, " ranks in all:\n  ", options_for(from, more.config));
  }
  return "";
}

}  // namespace

std::string advice_for(const LayoutQuestion& question) {
  const std::string batches = advice_on_micro_batches(question);
  std::string text = batches.empty() ? "" : "with other micro-batches or another schedule, any of:";
  text += batches;
  const std::string data = more_data_ranks(question);
  append(text, text.empty() || data.empty() ? "" : "\n", data);
  const std::string same = nearest(question, question, 3);
  if (!same.empty()) {
    return cat(text, text.empty() ? "" : "\n", "the nearest legal layouts of ",
               counted(question.ranks, "rank"), ":", same);
  }
  if (!text.empty()) return text;
  LayoutQuestion other = question;
  for (other.ranks = question.ranks - 1; other.ranks > 0; --other.ranks) {
    const std::string one = nearest(question, other, 1);
    if (one.empty()) continue;
    return cat("no layout of ", counted(question.ranks, "rank"),
               " is legal and keeps all at work; start ", other.ranks, " in their place:", one);
  }
  return cat("no layout of ", question.ranks, " ranks or fewer is legal for this model");
}

}  // namespace shoestring
