#pragma once
// What earlier starts of a run left in its directory, for the start that goes on.

#include <optional>
#include <string_view>

#include "io/metrics.h"
#include "launcher/run_directory.h"

namespace shoestring {

// The last whole line of metrics.jsonl, its items in their order; empty when there is none.
std::optional<MetricsRecord> last_metrics(const RunDirectory& directory);

// An item's number, or `otherwise` when it is not there or no finite number.
double number_in(const MetricsRecord& record, std::string_view name, double otherwise);

// Wall-clock seconds of all starts so far, as far as they were written down: at the last line of
// metrics.jsonl or, with the evaluation and saving behind it, at the end of a start that was not
// killed (summary.json). 0 when there is neither.
double seconds_so_far(const RunDirectory& directory);

// Without the items whose names begin with one of these.
MetricsRecord without(const MetricsRecord& record, std::initializer_list<std::string_view> names);

}  // namespace shoestring
