#include "core/ops/fp8_encode.h"

namespace shoestring {

Tensors<2> Fp8Encode::forward(Stream& stream, const Attributes& attributes, const Tensors<1>& x,
                              Saved&) {
  const Fp8Tensor encoded = quantise(stream, x[0], attributes.encoding);
  return {encoded.codes, encoded.scales};
}

Tensors<1> Fp8Encode::grad_input(Stream&, const Attributes&, const Saved&, const Tensors<2>&) {
  return {};
}

}  // namespace shoestring
