#pragma once
// Which vector instructions kernels may use. Highway and oneDNN choose at run time; this caps both.

#include <string>
#include <string_view>

namespace shoestring {

// "avx512_bf16", "avx512", "avx2" or "sse4": lowers the set process-wide, before the first kernel
// runs. A name above what the processor has changes nothing; an unknown one is a usage error.
// The launcher and the tests pass the environment variable SHOESTRING_ISA here.
void cap_instruction_set(std::string_view cap);
void cap_instruction_set_from_environment();

// What kernels use now, one of the names above.
std::string_view instruction_set();

// True where bf16 products run in hardware; elsewhere operands are widened tile by tile.
bool has_bf16_products();

}  // namespace shoestring
