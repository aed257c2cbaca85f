#pragma once
// Programs of a pipeline that people wrote.

#include <string>

#include "parallel/instruction.h"

namespace shoestring {

// A text program (parallel/instruction.h), "-" for standard input. Its ranks are its lines; its
// micro-batches and where stages stand follow from the instructions. A usage error names the place
// of a word that is no instruction, or whose number asks for more instructions than there are, or
// that stands on a rank that its stage cannot be on. Places are filled in.
Schedule schedule_of_file(const std::string& path);

}  // namespace shoestring
