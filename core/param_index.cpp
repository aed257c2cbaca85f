#include "core/param_index.h"

#include <algorithm>

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

WholeRun whole_run(const ParamInfo& info, int64_t begin, int64_t end) {
  const ParamShard& shard = info.shard;
  if (!shard.cut()) return {begin, end - begin};
  const bool vector = info.shape.rank() == 1;
  const int64_t here = vector ? 1 : info.shape.columns();
  const int64_t all = vector ? 1 : shard.whole.columns();
  const int64_t row = begin / here, column = begin % here;
  for (const RowRun& run : shard.rows) {
    if (row < run.local || row >= run.local + run.count) continue;
    const int64_t last = here == all ? run.local + run.count : row + 1;
    return {(run.global + row - run.local) * all + shard.first_column + column,
            std::min(last * here, end) - begin};
  }
  fail(cat("element ", begin, " of ", info.name, " ", info.shape.text(), " is in no run of rows"));
}

}  // namespace shoestring
