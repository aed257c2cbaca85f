#include "core/random.h"

#include <cmath>
#include <numbers>

namespace shoestring {

uint64_t mix_bits(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

Philox4 philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  Philox4 c{{static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
             static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)}};
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = 0xD2511F53ull * c.word[0];
    const uint64_t p1 = 0xCD9E8D57ull * c.word[2];
    c = {{static_cast<uint32_t>(p1 >> 32) ^ c.word[1] ^ k0, static_cast<uint32_t>(p1),
          static_cast<uint32_t>(p0 >> 32) ^ c.word[3] ^ k1, static_cast<uint32_t>(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a, then mixed
  for (char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return mix_bits(hash);
}

RandomStream::RandomStream(uint64_t seed, std::string_view name)
    : key_(mix_bits(seed + 0x9e3779b97f4a7c15u) ^ hash_name(name)) {}

uint64_t RandomStream::bits(uint64_t index) const {
  const Philox4 r = philox(key_, index, 0);
  return static_cast<uint64_t>(r.word[1]) << 32 | r.word[0];
}

double RandomStream::uniform(uint64_t index) const {
  return static_cast<double>(bits(index) >> 11) * 0x1p-53;
}

double RandomStream::normal(uint64_t index) const {
  const Philox4 r = philox(key_, index, 0);
  const uint64_t first = static_cast<uint64_t>(r.word[1]) << 32 | r.word[0];
  const uint64_t second = static_cast<uint64_t>(r.word[3]) << 32 | r.word[2];
  const double u = (static_cast<double>(first >> 11) + 1.0) * 0x1p-53;  // (0, 1]: log is finite
  const double v = static_cast<double>(second >> 11) * 0x1p-53;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

uint64_t RandomStream::below(uint64_t index, uint64_t n) const {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>((static_cast<Wide>(bits(index)) * n) >> 64);
}

}  // namespace shoestring
