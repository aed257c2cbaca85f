#pragma once
// Where the elements that a rank holds of a parameter stand in the whole one (ParamShard,
// core/param.h): what is drawn at random for an element is a function of that place, so that no cut
// changes it.

#include "core/param.h"

namespace shoestring {

// Elements that follow one another here and in the whole parameter.
struct WholeRun {
  int64_t whole = 0;  // the first one's number there
  int64_t elements = 0;
};

// The longest from element `begin` of what is held here on, up to `end`.
WholeRun whole_run(const ParamInfo& info, int64_t begin, int64_t end);

}  // namespace shoestring
