#pragma once
// `shoestring parity CONFIG`: one step under each layout beside one rank's.

#include <ostream>

#include "launcher/parity_compare.h"
#include "launcher/parity_layouts.h"
#include "launcher/progress.h"

namespace shoestring {

// True when every layout meets its limits. A layout whose run ends with an error misses them.
// `progress` has a line of what will be done before the first step, then what runs now, the table
// and the verdict; as JSON `json` has the figures in the table's place. `wrap`: of the layouts'
// worlds (launcher/parity.h).
bool run_parity(const ParityOptions& options, ProgressLine& progress, std::ostream& json,
                const WrapWorld& wrap = nullptr);

}  // namespace shoestring
