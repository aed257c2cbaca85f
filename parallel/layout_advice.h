#pragma once
// What to do about a layout that is not possible.

#include <string>

#include "parallel/mesh_layouts.h"

namespace shoestring {

// Where the layout only lacks micro-batches: other sizes of the batch or another schedule that make
// it possible as it is. And the nearest legal layouts of all of the ranks; another number of ranks
// only where there is nothing else.
std::string advice_for(const LayoutQuestion& question);

}  // namespace shoestring
