#pragma once
// Which parameters a model has, from its config alone, and cuts of it into pipeline chunks.
//
// Names (i: block, k: prediction module, "mtp.k." has a block's names too):
//   embedding.weight [V, d]
//   layers.i.attention_norm.gain [d]
//   layers.i.attention.qkv.weight [(n_q + 2 n_kv) hd, d], .qkv.bias, .q_norm.gain, .k_norm.gain
//   or, latent (n heads): layers.i.attention.q_down.weight [d_c', d], .q_latent_norm.gain [d_c'],
//     .q_up.weight [n (nope + rope), d_c']; without query latent .q.weight [n (nope + rope), d];
//     .kv_down.weight [d_c + rope, d], .kv_latent_norm.gain [d_c],
//     .kv_up.weight [n (nope + v), d_c]
//   layers.i.attention.output.weight [d, q-width]
//   layers.i.mlp_norm.gain [d]
//   layers.i.mlp.gate_up.weight [2 f, d], .mlp.down.weight [d, f]
//   or, sparse: layers.i.moe.router.weight [E, d], .moe.experts.gate_up.weight [E 2 m, d],
//     .moe.experts.down.weight [E d, m], .moe.shared.gate_up.weight, .moe.shared.down.weight
//   final_norm.gain [d], head.weight [V, d] (absent when tied)
//   mtp.k.hidden_norm.gain [d], .embedding_norm.gain [d], .projection.weight [d, 2 d] (its columns:
//     embedding, hidden), .final_norm.gain [d]

#include <string>
#include <utility>
#include <vector>

#include "core/model/config.h"
#include "core/param.h"

namespace shoestring {

// A range of blocks and maybe the embedding or the head; the whole model is one chunk.
struct Chunk {
  int64_t first_block = 0, last_block = 0;  // [first, last)
  bool embedding = true, head = true;
};

Chunk whole_model(const ModelConfig& config);
// Chunks of the given numbers of blocks; embedding in the first, head in the last. The numbers must
// sum to config.layers.
std::vector<Chunk> cut(const ModelConfig& config, const std::vector<int64_t>& blocks_per_chunk);

// The chunk's parameters in the order in which forward reads them. Prediction modules stand with
// the head. A chunk that needs the embedding's matrix behind the head (tied, or for prediction
// modules) but does not begin the model holds its own copy.
std::vector<ParamInfo> parameters_of(const ModelConfig& config, const Chunk& chunk);

// "layers.3." or, beyond the blocks, "mtp.0.": where the names of a block begin.
std::string block_prefix(const ModelConfig& config, int64_t block);

// The state that such a chunk's model keeps beside its parameters (ParamStore::state): of each
// sparse block "<prefix>moe.router.bias", f32 [E].
std::vector<std::pair<std::string, Shape>> states_of(const ModelConfig& config, const Chunk& chunk);

// Counts from the config alone, without prediction modules. Non-embedding: without embedding and
// head (tied or not). Active: without the routed experts that a token does not pass.
struct ParamCounts {
  int64_t total = 0, non_embedding = 0, active = 0;
  int64_t prediction = 0;  // of the modules' own
};
ParamCounts count_parameters(const ModelConfig& config);

// Useful arithmetic of one token, forward and backward, at sequence length S: 6 per weight that
// multiplies it (the embedding's rows do not, the head does once a prediction) plus causal
// attention counted half.
double training_flop_per_token(const ModelConfig& config, int64_t sequence_length);
// Forward and backward of one (query, key) pair in all heads of all blocks.
double training_flop_per_pair(const ModelConfig& config);

}  // namespace shoestring
