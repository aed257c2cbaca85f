#pragma once
// The parameters that a data parallel rank owns: master values, and in ZeRO stage 3 the weights
// that are gathered from. With a host they lie there and only weights come to the device (offload
// of the optimiser: Ren et al. 2021, arXiv 2101.06840).
//
//   compute type, stage        masters here   what ops read
//   f32, 0 to 2                -              the store's masters
//   bf16, 0                    -              the store's copies
//   bf16, 1 and 2              owned          the store's copies (DataParallel::gather_parameters)
//   3                          owned          shards, gathered unit by unit
//   host, 1 and 2              owned          the store's arrays

#include <vector>

#include "core/flat_span.h"
#include "core/param.h"

namespace shoestring {

// Which arrays the store itself has memory for.
ParamMemory memory_of_stage(int64_t zero_stage, Dtype compute, bool offloaded);

struct ParamShardsPlan {
  ParamStore& store;             // with memory_of_stage()
  std::vector<FlatRange> owned;  // DataParallel::owned_ranges()
  int64_t zero_stage = 0;
  Device* host = nullptr;
};

class ParamShards {
 public:
  explicit ParamShards(ParamShardsPlan plan);

  // For the optimiser. Copies: empty when compute is f32.
  FlatSpan<float> master() const;
  FlatSpan<BFloat16> copies() const;
  const std::vector<FlatRange>& owned() const { return plan_.owned; }

  // The store's initial_values in all that is held here, and in the store.
  void initialise(uint64_t seed);
  // Copies from masters, rounded to nearest: after masters were loaded.
  void refresh_copies();
  // After the optimiser: the owned weights on the device are the new ones when the stream is there.
  void publish(Stream& stream);

  // Stage 3: the owned weights in the compute type, in the order of owned().
  const Tensor& weights() const { return weights_; }

 private:
  bool offloaded() const { return plan_.host != nullptr; }
  Tensor store_piece(FlatRange range) const;

  ParamShardsPlan plan_;
  int64_t elements_ = 0;
  Tensor masters_;  // f32; empty: the store's
  Tensor copies_;   // what the optimiser writes; empty: the store's, or none
  Tensor weights_;  // stage 3; without host the same memory as the one before
};

}  // namespace shoestring
