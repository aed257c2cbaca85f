#pragma once
// What every layer is given besides its input: the tape, the rows' tables and the seams.

#include <map>
#include <memory>
#include <string>

#include "core/batch.h"
#include "core/ops/rope.h"
#include "core/seams.h"
#include "core/tape.h"

namespace shoestring {

class Fp8Plan;        // core/fp8/layer.h
class TokenExchange;  // core/layers/moe.h
struct ExpertLoad;    // core/ops/route.h

// Ops that cannot be bought back are never dropped; these four policies trade arithmetic of
// the backward pass for memory. Each is bit-equal to `none`.
enum class Recompute : uint8_t {
  none,
  swiglu,     // the SwiGLU product: a fifth of a block's memory for half a percent of time
  norms,      // norm outputs and the SwiGLU product: elementwise work only
  attention,  // from the qkv product to the attention output
  block       // everything between a block's input and its output
};
Recompute recompute_from_name(std::string_view name);

// What module k of multi-token prediction reads and predicts at each position i of a micro-batch.
struct ShiftedRows {
  Tensor tokens;     // i32 [T]: t_{i+k}; beyond the row its last token, which nothing depends on
  Tensor labels;     // i32 [T]: t_{i+k+1}, or -1 where that or any token from t_i on is not of the
                     // same row and document
  Tensor main = {};  // i32 [T]: ShiftedTokens::main; empty: i + k
};

// The device's copy of a micro-batch. T = B * S.
struct BatchTensors {
  int64_t sequences = 0, length = 0;  // B, S
  Tensor tokens, labels, positions;   // i32 [T]
  Tensor first_key;                   // i32 [B, S]
  Tensor document_start = {};         // i32 [B, S], or empty: first_key
  std::vector<ShiftedRows> shifted = {};
};

BatchTensors to_device(Device& device, const MicroBatch& micro);

struct LayerContext {
  Tape& tape;
  const BatchTensors& batch;
  const RopeTable* rope = nullptr;
  AttentionCore* attention = nullptr;
  TokenExchange* tokens = nullptr;  // of sparse layers; null: all experts are here
  // What the global-batch loss of each sparse layer reads in the backward pass, by the block's
  // name; null: the micro-batch's own counts.
  std::map<std::string, std::shared_ptr<ExpertLoad>>* loads = nullptr;
  double share = 1;  // of the step's loss that falls to this micro-batch: its labels / the step's
  Recompute recompute = Recompute::none;
  const Fp8Plan* fp8 = nullptr;  // null: no layer multiplies in FP8
  bool exact = false;  // products that depend on their own row and column alone (core/matmul.h)
};

}  // namespace shoestring
