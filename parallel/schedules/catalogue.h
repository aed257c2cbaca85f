#pragma once
// Every published order by its name.

#include <optional>
#include <string>
#include <vector>

#include "parallel/instruction.h"
#include "parallel/mesh_layouts.h"
#include "parallel/simulate.h"

namespace shoestring {

struct ScheduleRequest {
  std::string name;
  int ranks = 1;
  int micros = 1;                     // micro-batches of the step
  std::optional<int> chunks = {};     // of a rank, for interleaved-1f1b; default 2
  StepTimes times = {};               // what v-half, v-min and automatic are made for
  std::optional<double> memory = {};  // automatic: most micro-batches a rank keeps; default p
};

struct ScheduleEntry {
  std::string name;
  std::string summary;  // one line: bubble and memory
  std::string source;
  bool takes_chunks = false, takes_memory = false;  // of a request; others ignore them
};
const std::vector<ScheduleEntry>& schedule_entries();
// A usage error says which names there are.
const ScheduleEntry& schedule_entry(const std::string& name);

// What the order asks of a layout.
ScheduleNeeds needs_of(const ScheduleRequest& request);
// Where its stages stand.
Placement placement_of(const ScheduleRequest& request);
// A usage error says which names there are, or what the order needs of ranks and micro-batches.
Schedule make_schedule(const ScheduleRequest& request);

}  // namespace shoestring
