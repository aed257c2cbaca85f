#pragma once
// fp8_encode: the codes and scales of a value (core/fp8/quantise.h), as values of the tape, so that
// all products that read it share them and a recompute region makes them again. No gradient flows
// through them: the products give the gradient of the value itself.

#include "core/fp8/quantise.h"
#include "core/op.h"

namespace shoestring {

struct Fp8Encode {
  static constexpr std::string_view name = "fp8_encode";
  static constexpr int num_inputs = 1;   // x [.., C], f32 or bf16
  static constexpr int num_outputs = 2;  // codes [.., C], scales f32 [tiles, tiles]
  struct Attributes {
    Fp8Encoding encoding;
  };
  using Saved = NothingSaved;

  static Tensors<2> forward(Stream& stream, const Attributes& attributes, const Tensors<1>& x,
                            Saved&);
  static Tensors<1> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<2>&);
};
static_assert(PlainOp<Fp8Encode>);

}  // namespace shoestring
