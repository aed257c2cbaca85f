#pragma once
// Multi-token prediction (DeepSeek-V3 report, section 2.2): `depth` further modules, each with a
// block of its own, predict the tokens after the next one; embedding and head are shared.

#include <cstdint>

#include "core/fields.h"

namespace shoestring {

struct MtpConfig {
  int64_t depth = 0;    // D
  double weight = 0.3;  // lambda

  template <class V>
  void visit(V&& v) {
    v("depth", depth,
      Field{.help = "modules that predict further tokens; 0: none", .min = 0, .max = 1000});
    v("weight", weight,
      Field{.help = "factor on the mean of the modules' losses (DeepSeek-V3: 0.3, later 0.1)",
            .min = 0,
            .max = 1e6});
  }
};

}  // namespace shoestring
