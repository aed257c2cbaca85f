#pragma once
// What one block of a model keeps for its backward pass, and what it holds on the way: values of
// train.dtype a token, from the config alone. Where t tensor ranks share rows out
// (parallel/tensor_parallel.h) these are values a row of this rank, of which it has T / t: heads
// and inner widths that are cut count as without a mesh, what all rows are gathered of counts t
// times.

#include <cstdint>

#include "core/layers/context.h"
#include "core/model/config.h"

namespace shoestring {

struct BlockRanks {
  int64_t tensor = 1;
  // Ranks among which whole heads travel instead of keys and values (parallel/context_all_to_all.h)
  int64_t heads = 1;
  // Of each expert's matrices (parallel/expert_exchange.h): their ranks have each other's rows, of
  // an inner width that is cut.
  int64_t slices = 1;
  // Rows at the experts here, for each row of this rank, where their number is fixed; 0: as many as
  // its tokens choose, which is what comes on the average.
  int64_t fixed_rows = 0;
  // Of the experts' ranks, where they sum outputs before these cross; 0: sums are made at home.
  int64_t summing_nodes = 0;
};
// Rows that sums over the choices of each token keep for the gradient of their gates: the choices',
// or those that a relay has (parallel/expert_plan.h) and one a node at home.
int64_t summed_rows(int64_t chosen, const BlockRanks& ranks);

// d hidden, f ffn; q, k, v and o: widths of all heads; of a sparse block E experts, K chosen of
// inner width m, and the width of the shared ones.
struct BlockSizes {
  int64_t d, f, q, k, v, o;
  // What latent attention keeps before q, k and v; of it the normalised ones; without these.
  int64_t latents, latent_norms, raw_latents;
  int64_t head_norms;  // normalised q and k
  int64_t roots;       // f32: inverse roots of norms and logarithms of heads' sums
  int64_t experts = 0, chosen = 0, inner = 0, shared = 0;  // chosen is 0 in a dense block
  int64_t gathered = 0;   // the rows of d that a product reads, of all tensor ranks
  int64_t attended = 0;   // what the first products of attention read
  int64_t travelled = 0;  // o before its heads went home
  int64_t slices = 1;     // of experts: as many times the rows
  int64_t arriving = 0;   // rows that experts read, of one slice: chosen, or what is fixed
  int64_t summed = 0;     // summed_rows

  // What the ops of each half save (core/ops): the sum and the normalised sum; q, k, v and the
  // output of attention; gate, up and their product.
  int64_t core() const { return q + k + v + o + head_norms + latents + travelled; }
  int64_t attention() const { return d + attended + core(); }
  // Of a sparse block also the rows that its experts read and write.
  int64_t product() const { return chosen > 0 ? arriving * inner + shared : f; }
  int64_t mlp() const { return d + normed() + 3 * product() + (summed + slices * arriving) * d; }
  // The router and the experts read this rank's rows; what is cut reads all.
  int64_t normed() const {
    if (chosen == 0) return gathered;
    return shared > 0 && gathered > d ? d + gathered : d;
  }
  // While the gradient of gate and up is made: what was dropped is back, the product is gone; three
  // f of gradients and the stream's. In a sparse block the shared mlp's gradient may need most,
  // that of the experts' outputs, or that of their gates and ups.
  int64_t mlp_backward() const;
  // What is left between the gradient of the input and that of the weights: what products read, and
  // the gradients of what they gave.
  int64_t owed() const;
  // 32 bits each: two inverse roots, ...; the router's logits, the chosen ones, gates and rows.
  int64_t statistics() const { return 2 + roots + experts + 3 * chosen; }
};
// A prediction module's block is of the last block's kind.
BlockSizes sizes_of_block(const ModelConfig& model, int64_t block, const BlockRanks& ranks);

// What each half keeps under the policy.
struct KeptValues {
  int64_t attention = 0, mlp = 0;
  int64_t both() const { return attention + mlp; }
};
KeptValues kept_under(Recompute policy, const BlockSizes& b);

// What a region of recomputation holds, besides what ops save, until its ops are done
// (core/tape.cpp): in the mlp the product, but not yet what the norm made; in attention the fused
// q, k and v.
KeptValues held_under(Recompute policy, const BlockSizes& b);

// What a prediction module keeps beside its block: the embedding and what it is joined to, the sum
// and the normalised sum before the head, and the gradient that the head made in the forward pass.
int64_t module_extra(Recompute policy, const BlockSizes& b);

}  // namespace shoestring
