#pragma once
// Orders as they are printed in papers: a letter and a micro-batch, capital letters for a rank's
// first chunk, small ones for its second, pairs joined by `&`.

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

#include "parallel/schedules/catalogue.h"

namespace shoestring {

inline std::string order_text(const Schedule& schedule, int rank) {
  const Placement& where = schedule.where;
  std::string text;
  for (const Instruction& i : schedule.ranks[static_cast<size_t>(rank)]) {
    // In both directions the micro-batch says which one.
    const bool both_ways = where.order == StageOrder::both_ways;
    const bool second =
        both_ways ? i.micro >= where.micros / 2 : i.stage != where.stage_of(rank, 0);
    const int number = both_ways && second ? i.micro - where.micros / 2 : i.micro;
    const char letter = name_of(i.what)[0];
    text += second ? static_cast<char>(std::tolower(letter)) : letter;
    text += std::to_string(number);
    text += i.with_next ? "&" : " ";
  }
  if (!text.empty()) text.pop_back();
  return text;
}

inline std::vector<std::string> orders_of(const ScheduleRequest& request) {
  const Schedule schedule = make_schedule(request);
  std::vector<std::string> orders;
  for (int rank = 0; rank < request.ranks; ++rank) orders.push_back(order_text(schedule, rank));
  return orders;
}

// Activations, in micro-batches of a rank's share.
inline double worst_peak(const Simulation& simulation) {
  double peak = 0;
  for (const SimulatedRank& rank : simulation.ranks) peak = std::max(peak, rank.peak_activations);
  return peak;
}

}  // namespace shoestring
