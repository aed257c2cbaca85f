#include "core/instruction_set.h"

#include <array>

#include "core/check.h"
#include "core/environment.h"
#include "core/text.h"
#include "hwy/highway.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace shoestring {
namespace {

struct Level {
  std::string_view name;
  dnnl::cpu_isa onednn;
  int64_t highway_off;  // Highway targets above this level
};
constexpr int64_t above_avx2 = HWY_AVX3 | HWY_AVX3_DL;
const std::array<Level, 4> levels = {{
    {"avx512_bf16", dnnl::cpu_isa::avx512_core_bf16, 0},
    {"avx512", dnnl::cpu_isa::avx512_core, 0},
    {"avx2", dnnl::cpu_isa::avx2, above_avx2},
    {"sse4", dnnl::cpu_isa::sse41, above_avx2 | HWY_AVX2},
}};

size_t& cap_index() {
  static size_t index = 0;
  return index;
}

size_t processor_index() {
  if (__builtin_cpu_supports("avx512bf16")) return 0;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return 1;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 2;
  return 3;
}

}  // namespace

void cap_instruction_set(std::string_view cap) {
  std::string known;
  for (size_t i = 0; i < levels.size(); ++i) {
    if (levels[i].name == cap) {
      cap_index() = i;
      hwy::DisableTargets(levels[i].highway_off);
      if (dnnl::set_max_cpu_isa(levels[i].onednn) != dnnl::status::success) {
        fail("the instruction set was capped after the first product had run");
      }
      return;
    }
    append(known, known.empty() ? "" : ", ", levels[i].name);
  }
  fail_usage(cat("instruction set '", cap, "' is unknown; the names are ", known));
}

void cap_instruction_set_from_environment() {
  if (auto cap = environment_variable("SHOESTRING_ISA")) cap_instruction_set(*cap);
}

std::string_view instruction_set() { return levels[std::max(processor_index(), cap_index())].name; }

bool has_bf16_products() { return instruction_set() == "avx512_bf16"; }

}  // namespace shoestring
