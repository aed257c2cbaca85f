#include "optim/adamw.h"

#include "core/random.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optim/adamw.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using U = hn::RebindToUnsigned<F>;
using H = hn::Rebind<uint16_t, F>;  // half vectors of bf16 bits
using VF = hn::Vec<F>;
using VU = hn::Vec<U>;

// The vector twin of rounding_bits().
HWY_INLINE VU random_bits(const RoundingKeys& keys, VU index, int which) {
  const U u;
  VU x = hn::Xor(index, hn::Set(u, keys.word[2 * which]));
  x = hn::Mul(hn::Xor(x, hn::ShiftRight<16>(x)), hn::Set(u, 0x7feb352du));
  x = hn::Add(x, hn::Set(u, keys.word[2 * which + 1]));
  x = hn::Mul(hn::Xor(x, hn::ShiftRight<15>(x)), hn::Set(u, 0x846ca68bu));
  return hn::Xor(x, hn::ShiftRight<16>(x));
}

HWY_INLINE VF load(const float* p) { return hn::LoadU(F(), p); }
HWY_INLINE VF load(const BFloat16* p) {
  const auto bits = hn::LoadU(H(), reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(F(), hn::ShiftLeft<16>(hn::PromoteTo(U(), bits)));
}

// As BFloat16(x) without `stochastic`, as round_stochastic(x, random) with it.
template <bool stochastic>
HWY_INLINE void store(VF x, VU random, BFloat16* p) {
  const U u;
  const VU bits = hn::BitCast(u, x);
  const VU one = hn::Set(u, 1);
  const VU nearest = hn::Add(hn::Set(u, 0x7fff), hn::And(hn::ShiftRight<16>(bits), one));
  const VU exponent = hn::Set(u, 0x7f800000u);
  const VU plain = hn::ShiftRight<16>(bits);
  const VU quiet = hn::Or(plain, hn::Set(u, 0x40));
  VU rounded;
  if (stochastic) {
    rounded = hn::ShiftRight<16>(hn::Add(bits, hn::And(random, hn::Set(u, 0xffff))));
    const auto special = hn::Eq(hn::And(bits, exponent), exponent);
    rounded = hn::IfThenElse(special, plain, rounded);
  } else {
    rounded = hn::ShiftRight<16>(hn::Add(bits, nearest));
  }
  rounded = hn::IfThenElse(hn::MaskFromVec(hn::BitCast(u, hn::VecFromMask(F(), hn::IsNaN(x)))),
                           quiet, rounded);
  const auto narrow = hn::DemoteTo(H(), hn::BitCast(hn::RebindToSigned<U>(), rounded));
  hn::StoreU(narrow, H(), reinterpret_cast<uint16_t*>(p));
}
template <bool stochastic>
HWY_INLINE void store(VF x, VU, float* p) {
  hn::StoreU(x, F(), p);
}

// Elements [0, whole) of a run, `whole` a multiple of the vector length.
template <class M, bool stochastic>
void vectors(const AdamwRun& run, const AdamwCoefficients<float>& c, int64_t whole) {
  const F f;
  const U u;
  M* ms = static_cast<M*>(run.m);
  M* vs = static_cast<M*>(run.v);
  const VF beta1 = hn::Set(f, c.beta1), rest1 = hn::Set(f, c.rest1);
  const VF beta2 = hn::Set(f, c.beta2), rest2 = hn::Set(f, c.rest2);
  const VF correction1 = hn::Set(f, c.correction1), correction2 = hn::Set(f, c.correction2);
  const VF epsilon = hn::Set(f, c.epsilon), scale = hn::Set(f, c.gradient_scale);
  const VF step_size = hn::Set(f, c.step_size), decay = hn::Set(f, c.decay);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(f));
  VU random = hn::Zero(u);
  for (int64_t i = 0; i < whole; i += lanes) {
    const VU index = hn::Iota(u, run.first + static_cast<uint32_t>(i));
    const VF g = hn::Mul(load(run.gradient + i), scale);
    const VF m = hn::Add(hn::Mul(beta1, load(ms + i)), hn::Mul(rest1, g));
    const VF v = hn::Add(hn::Mul(beta2, load(vs + i)), hn::Mul(rest2, hn::Mul(g, g)));
    const VF root = hn::Add(hn::Sqrt(hn::Mul(v, correction2)), epsilon);
    const VF update = hn::Div(hn::Mul(m, correction1), root);
    const VF p = load(run.master + i);
    const VF next = hn::Sub(p, hn::Add(hn::Mul(step_size, update), hn::Mul(decay, p)));
    if (stochastic && sizeof(M) == 2) random = random_bits(run.keys, index, 0);
    store<stochastic>(m, random, ms + i);
    store<stochastic>(v, hn::ShiftRight<16>(random), vs + i);
    hn::StoreU(next, f, run.master + i);
    if (run.copy == nullptr) continue;
    if (stochastic) random = random_bits(run.keys, index, 1);
    store<stochastic>(next, random, run.copy + i);
  }
}

int64_t adamw_vectors(const AdamwRun& run, const AdamwCoefficients<float>& c) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F()));
  const int64_t whole = run.elements / lanes * lanes;
  if (run.moments == Dtype::f32) {
    run.stochastic ? vectors<float, true>(run, c, whole) : vectors<float, false>(run, c, whole);
  } else {
    run.stochastic ? vectors<BFloat16, true>(run, c, whole)
                   : vectors<BFloat16, false>(run, c, whole);
  }
  return whole;
}

}  // namespace HWY_NAMESPACE
}  // namespace shoestring
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
HWY_EXPORT(adamw_vectors);
namespace {

void put(float x, bool, uint32_t, float& to) { to = x; }
void put(float x, bool stochastic, uint32_t random, BFloat16& to) {
  to = stochastic ? round_stochastic(x, random) : BFloat16(x);
}

// Elements [begin, run.elements), one at a time.
template <class M>
void scalars(const AdamwRun& run, const AdamwCoefficients<float>& c, int64_t begin) {
  M* ms = static_cast<M*>(run.m);
  M* vs = static_cast<M*>(run.v);
  for (int64_t i = begin; i < run.elements; ++i) {
    const uint32_t index = run.first + static_cast<uint32_t>(i);
    float m = static_cast<float>(ms[i]), v = static_cast<float>(vs[i]);
    adamw_element(c, run.gradient[i], run.master[i], m, v);
    const uint32_t random = run.stochastic ? rounding_bits(run.keys, index, 0) : 0;
    put(m, run.stochastic, random, ms[i]);
    put(v, run.stochastic, random >> 16, vs[i]);
  }
}

void copy_scalars(const AdamwRun& run, int64_t begin) {
  for (int64_t i = begin; i < run.elements; ++i) {
    const uint32_t index = run.first + static_cast<uint32_t>(i);
    put(run.master[i], run.stochastic, run.stochastic ? rounding_bits(run.keys, index, 1) : 0,
        run.copy[i]);
  }
}

}  // namespace

RoundingKeys rounding_keys(uint64_t seed, std::string_view name, int64_t step, uint32_t high) {
  const Philox4 r = philox(seed ^ hash_name(name), static_cast<uint64_t>(step), high);
  return {{r.word[0], r.word[1], r.word[2], r.word[3]}};
}

void adamw_run(const AdamwRun& run, const AdamwCoefficients<float>& c) {
  const int64_t whole = HWY_DYNAMIC_DISPATCH(adamw_vectors)(run, c);
  run.moments == Dtype::f32 ? scalars<float>(run, c, whole) : scalars<BFloat16>(run, c, whole);
  if (run.copy != nullptr) copy_scalars(run, whole);
}

void copy_run(const AdamwRun& run) {
  if (run.copy != nullptr) copy_scalars(run, 0);
}

}  // namespace shoestring
#endif
