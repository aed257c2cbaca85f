#pragma once
// Multi-token prediction (DeepSeek-V3 report, section 2.2, equations 21 to 25). Module k = 1..D
// reads what came before it at position i and the embedding of token t_{i+k}, and predicts
// t_{i+k+1} through the shared head:
//
//   h'^k_i = M_k [RMSNorm(Emb(t_{i+k})) ; RMSNorm(h^{k-1}_i)],   h^k = TRM_k(h'^k)
//
// As in the released weights the embedding stands first in M_k's columns, h^0 is the main model's
// output after its final norm, and h^k is the output of module k after a final norm of its own.
// Positions and what a token may attend to are those of position i.

#include <span>
#include <string>

#include "core/layers/decoder_block.h"
#include "core/layers/embedding.h"

namespace shoestring {

struct MtpModule {
  std::string prefix;        // "mtp.0.", of its segments
  EmbeddingLayer embedding;  // shared
  double norm_epsilon = 1e-6;
  const Param* embedding_gain = nullptr;  // [d]
  const Param* hidden_gain = nullptr;     // [d]
  LinearLayer projection;                 // M_k [d, 2 d]
  DecoderBlock block;                     // TRM_k
  NormLayer final_norm;                   // to be run before the head

  // `hidden` [T, d] is h^{k-1}, `tokens` i32 [T] are t_{i+k}: the residual stream before
  // final_norm.
  Residual run(LayerContext& context, const Value& hidden, const Tensor& tokens) const;

 private:
  Value join(LayerContext& context, const Value& hidden, const Tensor& tokens) const;
};

// batch.shifted[k - 1], or, where the batch has none, made from its rows. Documents end where
// batch.document_start changes and where a token has no label. by = k >= 1.
ShiftedRows shift_rows(Device& device, const BatchTensors& batch, int64_t by);
// The same of one whole row, on the host: all spans have the row's length.
struct RowToShift {
  std::span<const int32_t> tokens, labels, document_start;
};
void shift_row(const RowToShift& row, int64_t by, std::span<int32_t> tokens,
               std::span<int32_t> labels);

// How often the module's greedy token is the one that the main model would take itself: the number
// of positions i with shifted.labels[i] != -1 and greedy[i] == main_greedy[i + k]. Both i32 [T].
// Where position i + k is on another rank, the position does not count.
int64_t count_agreements(const ShiftedRows& shifted, const Tensor& greedy,
                         const Tensor& main_greedy, int64_t by);

// One module's figures of one micro-batch.
struct PredictionResult {
  double loss_sum = 0;  // cross-entropy over valid labels, without the weight
  int64_t count = 0;    // valid labels
  int64_t agreed = 0;   // of them, see count_agreements
  int64_t first_not_finite = -1;
};

}  // namespace shoestring
