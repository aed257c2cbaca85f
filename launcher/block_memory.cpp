#include "launcher/block_memory.h"

#include <algorithm>

namespace shoestring {
namespace {

BlockSizes sizes_of_latent(const ModelConfig& m, int64_t t) {
  const MlaConfig& a = m.mla;
  const int64_t q = m.heads * a.qk_dim(), v = m.heads * a.v_dim;
  // The normalised latents are gathered.
  return {.d = m.hidden,
          .f = m.ffn,
          .q = q,
          .k = q,
          .v = v,
          .o = v,
          .latents = (1 + t) * (a.kv_latent + a.q_latent),
          .latent_norms = t * (a.kv_latent + a.q_latent),
          .raw_latents = a.kv_latent + a.rope_dim + a.q_latent,
          .head_norms = 0,
          .roots = m.heads + 2};
}

BlockSizes sizes_of_grouped(const ModelConfig& m, int64_t t) {
  // Heads fewer than ranks are there several times.
  const int64_t kv_heads = std::max(m.kv_heads, t);
  const int64_t hd = m.dim_of_head(), q = m.heads * hd, kv = kv_heads * hd;
  return {.d = m.hidden,
          .f = m.ffn,
          .q = q,
          .k = kv,
          .v = kv,
          .o = q,
          .latents = 0,
          .latent_norms = 0,
          .raw_latents = 0,
          .head_norms = m.qk_norm ? q + kv : 0,
          .roots = m.heads + (m.qk_norm ? m.heads + kv_heads : 0)};
}

}  // namespace

int64_t BlockSizes::mlp_backward() const {
  if (chosen == 0) return mlp() + 2 * f + d;
  const int64_t rows = slices * d;  // of one choice
  const int64_t outputs = 3 * arriving * (rows + inner), gates = arriving * (rows + 5 * inner);
  return std::max({mlp() + 2 * shared, 2 * d + outputs, 2 * d + gates}) + 2 * d;
}

int64_t BlockSizes::owed() const {
  const int64_t attention = attended + gathered + q + k + v + o + latents;
  const int64_t experts_rows = arriving * (2 * slices * d + 3 * inner);
  const int64_t cut = chosen > 0 ? shared : f;
  return attention + normed() + 3 * cut + (cut > 0 ? gathered : 0) + experts_rows;
}

int64_t summed_rows(int64_t chosen, const BlockRanks& ranks) {
  const int64_t n = ranks.summing_nodes;
  if (n == 0) return chosen;
  const int64_t at_relay = ranks.fixed_rows > 0 ? ranks.fixed_rows : chosen;
  return at_relay + std::min(n, at_relay);
}

BlockSizes sizes_of_block(const ModelConfig& m, int64_t block, const BlockRanks& ranks) {
  const int64_t t = ranks.tensor;
  BlockSizes sizes = m.mla.on() ? sizes_of_latent(m, t) : sizes_of_grouped(m, t);
  sizes.gathered = t * sizes.d;
  sizes.attended = sizes.gathered;
  // Latents are made of this rank's rows, and gathered; q without a latent is not.
  if (m.mla.on()) sizes.attended = sizes.d + (m.mla.q_latent > 0 || t == 1 ? 0 : sizes.gathered);
  if (ranks.heads > 1) {
    const int64_t kv_heads = std::max<int64_t>((m.mla.on() ? m.heads : m.kv_heads) / t, 1);
    const int64_t copies = std::max<int64_t>(1, ranks.heads / kv_heads);
    sizes.k *= copies, sizes.v *= copies;
    sizes.travelled = sizes.o;
  }
  if (!m.moe.sparse(std::min(block, m.layers - 1))) return sizes;
  sizes.experts = m.moe.experts;
  sizes.chosen = m.moe.chosen;
  sizes.arriving = ranks.fixed_rows > 0 ? ranks.fixed_rows : m.moe.chosen;
  sizes.summed = summed_rows(m.moe.chosen, ranks);
  sizes.inner = m.moe.ffn;
  sizes.slices = ranks.slices;
  sizes.shared = m.moe.shared * m.moe.ffn;
  return sizes;
}

namespace {

// Of what norms made what they make again: rows that were gathered behind a norm stay.
int64_t attended_again(const BlockSizes& b) {
  return b.gathered > b.d && b.attended == b.gathered ? 0 : b.d;
}
int64_t normed_again(const BlockSizes& b) { return b.gathered > b.d && b.chosen == 0 ? 0 : b.d; }

}  // namespace

KeptValues kept_under(Recompute policy, const BlockSizes& b) {
  KeptValues kept{b.attention(), b.mlp()};
  if (policy == Recompute::swiglu) kept.mlp -= b.product();
  if (policy == Recompute::norms) {
    kept = {b.attention() - attended_again(b) - b.latent_norms,
            b.mlp() - normed_again(b) - b.product()};
  }
  if (policy == Recompute::attention) kept.attention -= b.core() - b.raw_latents;
  if (policy == Recompute::block) kept = {b.d, 0};
  return kept;
}

KeptValues held_under(Recompute policy, const BlockSizes& b) {
  const bool whole = policy == Recompute::block;
  const int64_t fused = b.latents > 0 ? 0 : b.q + b.k + b.v, product = b.chosen > 0 ? 0 : b.f;
  KeptValues held{.attention = whole || policy == Recompute::attention ? fused : 0, .mlp = 0};
  // Of a sparse block the shared product, and what experts and shared mlp put out.
  if (whole) held.mlp = (b.chosen > 0 ? b.shared + 2 * b.d : product) + fused;
  if (policy == Recompute::swiglu) held.mlp = product;
  if (policy == Recompute::norms) held.mlp = product > 0 ? product - normed_again(b) : 0;
  return held;
}

int64_t module_extra(Recompute policy, const BlockSizes& b) {
  return (policy == Recompute::block ? 4 : 5) * b.d + b.gathered;
}

}  // namespace shoestring
