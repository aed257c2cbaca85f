#pragma once
// The attention core of generation: keeps every layer's keys and values of a set of sequences, so
// that one new token costs one row of work. Prefill runs the ordinary attention and remembers; a
// decode step appends one row per sequence and attends over what is kept.

#include <vector>

#include "core/layers/attention.h"

namespace shoestring {

class CachedAttention : public AttentionCore {
 public:
  // Room for `sequences` sequences of up to `capacity` tokens in `layers` layers.
  CachedAttention(Device& device, int64_t layers, int64_t sequences, int64_t capacity);

  // The next forward pass holds the whole prompt of one sequence (batch 1).
  void prefill(int64_t sequence);
  // The next forward pass holds one new token of each listed sequence (length 1), in this order.
  void decode(std::vector<int64_t> sequences);
  int64_t length(int64_t sequence) const { return lengths_[static_cast<size_t>(sequence)]; }
  int64_t bytes() const;

  Value run(Tape& tape, const AttentionShape& shape, const Value& q, const Value& k, const Value& v,
            const Tensor& first_key) override;

 private:
  struct Rows {
    Tensor k, v;  // [capacity, kv_heads * head_dim]
  };
  Rows& rows_of(int layer, int64_t sequence, const Rows& fresh);
  // Rows [row, row + count) of `fresh` become those of the cache from `at` on.
  void append(Rows& to, const Rows& fresh, int64_t row, int64_t count, int64_t at);
  Value attend(const AttentionShape& shape, const Tensor& q);

  Device* device_;
  int64_t layers_, capacity_;
  std::vector<Rows> cache_;  // [layer * sequences + sequence]
  std::vector<int64_t> lengths_;
  std::vector<int64_t> active_;
  bool prefilling_ = true;
};

}  // namespace shoestring
