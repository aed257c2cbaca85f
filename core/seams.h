#pragma once
// The places where parallelism enters a single-rank model from outside. Every seam has a default
// that does nothing special; parallel/ fills them and core/ never learns about ranks. Token
// exchange, the seam of sparse layers, is declared beside the layer that uses it.

#include <cstdint>

#include "core/param.h"
#include "core/tape_value.h"

namespace shoestring {

class Tape;

// F forward, I input gradient, W weight gradient. W never needs weights.
enum class Phase : uint8_t { forward, input, weight };

class RowTravel;  // core/row_travel.h

// At the edge of a linear, the embedding or the head: tensor and sequence parallelism put a
// collective here (a tape op with its adjoint). A null pointer is the identity.
class Boundary {
 public:
  virtual ~Boundary() = default;
  virtual Value cross(Tape& tape, const Value& x) = 0;
  // The same crossing in runs of rows, for a product beside it that takes them as they come; null:
  // there is cross() alone.
  virtual RowTravel* travel() { return nullptr; }
};

// What attention needs to know about the rows of a micro-batch.
struct AttentionShape {
  int64_t batch = 0, length = 0;  // B, S
  int64_t q_heads = 0, kv_heads = 0, head_dim = 0, v_head_dim = 0;
  double scale = 0;
  int64_t window = 0;  // 0: no sliding window
  int layer = 0;
};

// Latent attention before keys and values of its heads are made (core/layers/mla.h). n heads; a
// query and a key have c dims without position and then r turned ones.
struct LatentAttention {
  AttentionShape shape;        // q_heads = kv_heads = n, head_dim = c + r
  int64_t nope = 0, rope = 0;  // c, r
  Value q;                     // [B*S, n (c + r)], turned
  Value latent;                // [B*S, d_c], normalised
  Value key;                   // [B*S, r], turned, of all heads
  Tensor up;  // [n (c + v_head_dim), d_c]: the c dims of a head's key and its value, by head
};

// q [B*S, q_heads*head_dim], k, v -> o [B*S, q_heads*v_head_dim]; first_key i32 [B, S].
// Context parallelism (ring, all-to-all) and the cache of generation stand here.
class AttentionCore {
 public:
  virtual ~AttentionCore() = default;
  virtual Value run(Tape& tape, const AttentionShape& shape, const Value& q, const Value& k,
                    const Value& v, const Tensor& first_key) = 0;
  // Answers o as well, or an empty value: then keys and values are made and run() follows. A cache
  // keeps the latent instead of them (docs/decisions/0003-latent-cache.md).
  virtual Value run_latent(Tape&, const LatentAttention&) { return {}; }
};

// Where a block's weights come from and where its gradients go. A block is one or more segments;
// the loop acquires a segment's weights before a phase and releases them after it.
class ParamSource {
 public:
  virtual ~ParamSource() = default;
  virtual void acquire(int segment, Phase phase) = 0;
  virtual void release(int segment, Phase phase) = 0;
  virtual Tensor weight(const Param& p) = 0;    // compute type; valid while acquired
  virtual Tensor gradient(const Param& p) = 0;  // f32, to be added to
  // Every use of the parameter on this tape has added its gradient.
  virtual void gradient_ready(const Param& p) = 0;
};

// The default: pointers into the store.
class StoreSource : public ParamSource {
 public:
  explicit StoreSource(ParamStore& store) : store_(&store) {}
  void acquire(int, Phase) override {}
  void release(int, Phase) override {}
  Tensor weight(const Param& p) override { return store_->weight(p); }
  Tensor gradient(const Param& p) override { return store_->gradient(p); }
  void gradient_ready(const Param&) override {}

 private:
  ParamStore* store_;
};

}  // namespace shoestring
