#pragma once
// The checkpoint that all ranks of a run go on from.

#include <functional>
#include <optional>
#include <string>

#include "io/checkpoint.h"
#include "parallel/communicator.h"

namespace shoestring {

// The newest checkpoint below `directory` that verifies, each rank looking at a share of the bytes;
// empty when no rank has any. Every rank calls; `warn` hears of what is passed over, on the rank
// that passes it over. A data error that names ranks and steps when some rank has none of those
// that others have, or when checkpoints of one step differ between ranks: then run.directory is not
// one place for all.
std::optional<Checkpoint> find_resume_point(Communicator& ranks, Stream& stream,
                                            const std::string& directory,
                                            const std::function<void(const std::string&)>& warn);

}  // namespace shoestring
