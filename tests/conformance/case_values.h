#pragma once
// Values that any rank can compute for any other, the plain definition of reductions, and checks.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <type_traits>

#include "core/text.h"
#include "parallel/communicator.h"

namespace shoestring {

using Counts = std::vector<int64_t>;
using Random = std::mt19937_64;  // seeded alike on all ranks, so that they draw the same sizes

inline uint64_t mix(uint64_t seed, uint64_t rank, uint64_t i) {
  uint64_t x = seed * 0x9e3779b97f4a7c15u + rank * 0xbf58476d1ce4e5b9u + i * 0x94d049bb133111ebu;
  x ^= x >> 31;
  x *= 0xd6e8feb86659fd93u;
  return x ^ (x >> 32);
}

// What rank `rank` contributes.
template <class T>
std::vector<T> values(uint64_t seed, int rank, int64_t count) {
  std::vector<T> v(static_cast<size_t>(count));
  for (size_t i = 0; i < v.size(); ++i) {
    const uint64_t h = mix(seed, static_cast<uint64_t>(rank), i);
    if constexpr (std::is_integral_v<T>) {
      v[i] = static_cast<T>(h);
    } else {
      v[i] = T(static_cast<float>(static_cast<int>(h % 2001) - 1000) * 0.37f);
    }
  }
  return v;
}

template <class T>
void expect_equal(const std::vector<T>& got, const std::vector<T>& wanted, std::string_view what) {
  if (got.size() != wanted.size()) {
    fail(cat(what, ": ", got.size(), " elements instead of ", wanted.size()));
  }
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &wanted[i], sizeof(T)) != 0) {
      fail(cat(what, " of ", name_of(dtype_of<T>), " differs first at element ", i, " of ",
               got.size()));
    }
  }
}

template <class T>
T reduced(std::span<const T> x, Reduce reduce) {
  if constexpr (std::is_integral_v<T>) {
    T acc = x[0];
    for (T y : x.subspan(1)) {
      if (reduce == Reduce::sum) acc = static_cast<T>(uint64_t(acc) + uint64_t(y));
      if (reduce == Reduce::max) acc = std::max(acc, y);
      if (reduce == Reduce::min) acc = std::min(acc, y);
    }
    return acc;
  } else {
    using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
    A acc = static_cast<A>(x[0]);
    for (T y : x.subspan(1)) {
      const A a = static_cast<A>(y);
      if (reduce == Reduce::sum) acc += a;
      if (reduce == Reduce::max) acc = std::max(acc, a);
      if (reduce == Reduce::min) acc = std::min(acc, a);
    }
    return T(acc);
  }
}

template <class T>
std::vector<T> reduced_values(uint64_t seed, int ranks, int64_t count, Reduce reduce) {
  std::vector<std::vector<T>> all;
  for (int r = 0; r < ranks; ++r) all.push_back(values<T>(seed, r, count));
  std::vector<T> result(static_cast<size_t>(count));
  std::vector<T> column(static_cast<size_t>(ranks));
  for (size_t i = 0; i < result.size(); ++i) {
    for (size_t r = 0; r < column.size(); ++r) column[r] = all[r][i];
    result[i] = reduced<T>(column, reduce);
  }
  return result;
}

template <class F>
void for_each_type(F&& f) {
  f.template operator()<float>();
  f.template operator()<double>();
  f.template operator()<BFloat16>();
  f.template operator()<Float8E4M3>();
  f.template operator()<Float8E5M2>();
  f.template operator()<int8_t>();
  f.template operator()<uint8_t>();
  f.template operator()<int16_t>();
  f.template operator()<uint16_t>();
  f.template operator()<int32_t>();
  f.template operator()<uint32_t>();
  f.template operator()<int64_t>();
  f.template operator()<uint64_t>();
}

inline int64_t random_size(Random& random) {
  constexpr int64_t special[] = {0, 1, 2, 3, 63, 64, 65, 1023, 1024, 1025};
  const uint64_t draw = random();
  return draw % 2 == 0 ? special[draw / 2 % std::size(special)]
                       : static_cast<int64_t>(draw / 2 % 5000);
}

inline Counts random_counts(Random& random, int ranks) {
  Counts counts(static_cast<size_t>(ranks));
  for (auto& c : counts) c = random() % 4 == 0 ? 0 : static_cast<int64_t>(random() % 777);
  return counts;
}

inline int64_t sum_of(const Counts& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}
inline int64_t sum_before(const Counts& counts, int rank) {
  return std::accumulate(counts.begin(), counts.begin() + rank, int64_t{0});
}
template <class T>
std::vector<T> piece(const std::vector<T>& whole, const Counts& counts, int rank) {
  const auto begin = whole.begin() + sum_before(counts, rank);
  return {begin, begin + counts[static_cast<size_t>(rank)]};
}

// A stream that runs calls at once, as compute does.
struct Inline {
  Device device{DeviceKind::cpu, 0, 1};
  Stream stream = Stream::immediate(device);
};

// `call` must throw an error that contains `text`.
template <class F>
void expect_error(F&& call, const std::string& text) {
  try {
    call();
  } catch (const Error& error) {
    if (std::string_view(error.what()).find(text) != std::string_view::npos) return;
    fail(cat("the error \"", error.what(), "\" does not contain \"", text, "\""));
  }
  fail(cat("no error where one with \"", text, "\" was due"));
}

}  // namespace shoestring
