#pragma once
// `shoestring parity CONFIG`: one step under each layout beside one rank's.

#include <ostream>

#include "launcher/parity.h"
#include "launcher/parity_layouts.h"

namespace shoestring {

// True when every layout meets its limits. A layout whose run ends with an error misses them.
// `wrap`: of the layouts' worlds (launcher/parity.h).
bool run_parity(const ParityOptions& options, std::ostream& out, const WrapWorld& wrap = nullptr);

}  // namespace shoestring
