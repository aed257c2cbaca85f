#pragma once
// All ranks of a layout together: they save and take back, and the outcome is compared.

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/io/checkpoint_fixture.h"
#include "tests/launcher/layout_fixture.h"

namespace shoestring {

inline ModelConfig layout_model(const std::string& kind) {
  ModelConfig m{.layers = 3, .hidden = 32, .ffn = 48, .heads = 4, .kv_heads = 2};
  m.vocabulary = 61;
  m.qkv_bias = m.qk_norm = kind != "latent";
  m.tied_embeddings = kind == "tied";
  if (kind == "latent" || kind == "sparse") {
    m.moe = {.experts = 4, .chosen = 2, .ffn = 12, .shared = 1, .first_dense = 1};
    m.moe.shared = kind == "latent" ? 1 : 0;
    m.moe.balance.bias_speed = 0.001;
  }
  if (kind == "latent") {
    m.mla = {.kv_latent = 12, .q_latent = 20, .nope_dim = 8, .rope_dim = 4, .v_dim = 8};
    m.mtp.depth = 1;
  }
  return m;
}

inline OptimConfig layout_optim(const std::string& kind) {
  OptimConfig o;
  o.optimizer = kind == "muon" || kind == "muon_bf16" ? "muon" : "adamw";
  if (kind == "bf16" || kind == "muon_bf16") o.moments = "bf16";
  o.ema_decay = 0.9;
  return o;
}

// All ranks of a layout, one after the other.
class TestRanks {
 public:
  TestRanks(const TestModel& test, const TestLayout& layout)
      : expected_(saved_tensors(test.model, test.optim)) {
    const Mesh mesh(layout.mesh, layout.ranks);
    for (int rank = 0; rank < layout.ranks; ++rank) {
      ranks_.push_back(std::make_unique<TestRank>(test, layout, mesh, rank));
    }
  }
  size_t size() const { return ranks_.size(); }
  TestRank& operator[](size_t rank) { return *ranks_[rank]; }
  void update(int64_t step) {
    for (auto& rank : ranks_) rank->update(step);
  }

  // Throws what rank 0's writer says.
  void save(const std::string& directory, int64_t step, const std::string& config = "") {
    const int ranks = static_cast<int>(size());
    const auto writers =
        make_writers({.directory = directory, .ranks = ranks, .background = false});
    std::string failure;
    on_ranks(ranks, [&](int rank) {
      const auto r = static_cast<size_t>(rank);
      const std::vector<StateTensor> state = ranks_[r]->state();
      try {
        writers[r]->save({.step = step,
                          .config = config,
                          .state = "{}",
                          .pieces = pieces_of(ranks_[r]->store(), {ranks_[r]->store().master()},
                                              state, ranks_[r]->share()),
                          .last = true,
                          .expected = expected_});
        writers[r]->finish();
      } catch (const Error& e) {
        if (rank == 0) failure = e.what();
      }
    });
    if (!failure.empty()) fail_data(failure);
  }

  // Each rank takes its own and nothing else.
  void restore(const Checkpoint& checkpoint) {
    for (auto& rank : ranks_) {
      rank->spoil();
      const int64_t before = checkpoint.bytes_read();
      restore_pieces(rank->store(), {rank->store().master()}, rank->state(), rank->share(),
                     checkpoint);
      EXPECT_EQ(checkpoint.bytes_read() - before, rank->bytes_owned());
    }
  }

 private:
  std::vector<std::pair<std::string, Shape>> expected_;
  std::vector<std::unique_ptr<TestRank>> ranks_;
};

using Canonical = std::map<std::string, std::vector<std::byte>>;
inline Canonical canonical(const Checkpoint& checkpoint) {
  Canonical all;
  for (const std::string& name : checkpoint.names()) all[name] = read_whole(checkpoint, name);
  return all;
}

// The first tensor that differs; empty when none does.
inline std::string first_difference(const Canonical& a, const Canonical& b) {
  for (const auto& [name, bytes] : a) {
    if (!b.contains(name)) return cat(name, " is missing");
    if (b.at(name) != bytes) return cat(name, " has other values");
  }
  return a.size() == b.size() ? "" : "there are more tensors";
}

}  // namespace shoestring
