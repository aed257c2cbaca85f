#pragma once
// Meshes at random, for tests of properties.

#include <random>
#include <string>
#include <vector>

#include "parallel/mesh_config.h"

namespace shoestring {

inline int64_t one_of(std::mt19937_64& random, const std::vector<int64_t>& from) {
  return from[random() % from.size()];
}
inline int64_t divisor_of(std::mt19937_64& random, int64_t n) {
  std::vector<int64_t> divisors;
  for (int64_t d = 1; d <= n; ++d) {
    if (n % d == 0) divisors.push_back(d);
  }
  return one_of(random, divisors);
}

inline std::string random_order(std::mt19937_64& random) {
  std::vector<std::string> names = {"tp", "cp", "dp_shard", "dp_replicate", "pp"};
  for (size_t i = names.size(); i > 1; --i) std::swap(names[i - 1], names[random() % i]);
  std::string order;
  for (const std::string& name : names) order += (order.empty() ? "" : "-") + name;
  return order;
}

// A mesh that can be laid out, of at most so many ranks.
inline MeshConfig random_config(std::mt19937_64& random, int64_t most = 96) {
  MeshConfig config;
  do {
    const std::vector<int64_t> sizes = {1, 1, 2, 2, 3, 4, 5};
    config.tp = one_of(random, sizes);
    config.cp = one_of(random, sizes);
    config.pp = one_of(random, sizes);
    config.dp_shard = one_of(random, sizes);
    config.dp_replicate = one_of(random, sizes);
  } while (config.named_ranks() > most);
  config.ep = divisor_of(random, config.stage_ranks());
  config.etp = divisor_of(random, config.stage_ranks() / config.ep);
  config.order = random_order(random);
  config.ranks_per_node = divisor_of(random, config.named_ranks());
  return config;
}

}  // namespace shoestring
