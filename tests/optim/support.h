#pragma once
// Parameters and flat stores for the tests of optim/.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "core/param.h"
#include "core/random.h"
#include "optim/shard.h"

namespace shoestring {

inline int64_t aligned(int64_t n) {
  return (n + ParamStore::alignment - 1) / ParamStore::alignment * ParamStore::alignment;
}

inline std::vector<Param> make_params(std::vector<ParamInfo> infos) {
  std::vector<Param> params;
  int64_t offset = 0;
  for (ParamInfo& info : infos) {
    Param p;
    p.elements = info.shape.elements();
    p.info = std::move(info);
    p.offset = offset;
    p.index = static_cast<int>(params.size());
    offset = aligned(offset + p.elements);
    params.push_back(std::move(p));
  }
  return params;
}

inline ParamInfo info(std::string name, Shape shape, ParamClass c = ParamClass::hidden) {
  ParamInfo result;
  result.name = std::move(name);
  result.shape = std::move(shape);
  result.param_class = c;
  result.decay = c != ParamClass::gain && c != ParamClass::bias;
  return result;
}

// A little model: odd sizes, so that tails and padding matter.
inline std::vector<Param> small_model() {
  std::vector<ParamInfo> infos = {info("embedding", {37, 24}, ParamClass::embedding),
                                  info("qkv", {72, 24}),
                                  info("gain", {24}, ParamClass::gain),
                                  info("up", {120, 93}),
                                  info("bias", {93}, ParamClass::bias),
                                  info("down", {24, 120})};
  infos[1].parts = {24, 24, 24};
  infos[3].lr_multiplier = 0.5;
  return make_params(std::move(infos));
}

inline int64_t flat_elements(const std::vector<Param>& params) {
  return aligned(params.back().offset + params.back().elements);
}

// Ranges of nearly equal size that cut no parameter, one a rank, ascending.
inline std::vector<FlatRange> whole_parameters(const std::vector<Param>& params, int ranks) {
  const int64_t n = flat_elements(params);
  std::vector<FlatRange> cuts;
  int64_t begin = 0;
  for (int r = 1; r <= ranks; ++r) {
    int64_t end = r == ranks ? n : begin;
    for (const Param& p : params) {
      if (r < ranks && p.offset <= n * r / ranks) end = std::max(end, p.offset);
    }
    cuts.push_back({begin, end});
    begin = end;
  }
  return cuts;
}

// Flat arrays with padding at zero, as ParamStore keeps them.
struct Flat {
  std::vector<float> master, gradients;
  std::vector<BFloat16> copy;

  Flat(const std::vector<Param>& params, uint64_t seed) {
    const size_t n = static_cast<size_t>(flat_elements(params));
    master.resize(n);
    gradients.resize(n);
    copy.resize(n);
    fill(params, seed, "master", 0.5, master);
    set_gradients(params, seed, 1);
  }
  void set_gradients(const std::vector<Param>& params, uint64_t seed, int64_t step) {
    fill(params, seed, "gradient" + std::to_string(step), 1, gradients);
  }
  static void fill(const std::vector<Param>& params, uint64_t seed, const std::string& name,
                   double deviation, std::vector<float>& to) {
    const RandomStream stream(seed, name);
    for (const Param& p : params) {
      for (int64_t i = p.offset; i < p.offset + p.elements; ++i) {
        to[static_cast<size_t>(i)] =
            static_cast<float>(deviation * stream.normal(static_cast<uint64_t>(i)));
      }
    }
  }
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](const T& x, const T& y) {
           if constexpr (sizeof(T) == 2) {
             return x.bits == y.bits;
           } else {
             return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
           }
         });
}

}  // namespace shoestring
