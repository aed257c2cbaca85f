#pragma once
// What the ranks of a mesh send in one training step, by kind of call, from the config alone: what
// parallel/comm/counting.h counts between MeshStep::run() and the end of StepGradients::finish(),
// equal to the byte.
//
// Letters: t, c, e, p, D ranks of the axes tp, cp, ep, pp and of data; B sequences of S tokens in a
// micro-batch, T = B S / c the tokens of a context rank; d hidden, w bytes of an element of
// train.dtype; E experts. A rank sends, for each micro-batch that passes its stages ("there": in
// the forward pass, "home": in the backward pass; replayed ops send what they send there again):
//
// tensor (row_ops.h): R(n) = w n T (t-1)/t. At a gather all_gather there, reduce_scatter home; at a
// scatter the other way round
//   embedding, of the model or a module    scatter R(d)
//   attention          GQA                 gather R(d), scatter R(d)
//                      MLA                 gather R(q latent), or R(d) without one, and
//                                          R(kv latent + rope), scatter R(d)
//   mlp, shared experts                    gather R(d), scatter R(d) each
//   router                                 all_gather 4 E T (t-1)/t there, nothing home
//   head, of the model or a module         gather R(d); all_gather 32 (t-1) T, sums of rows, but
//                                          for chunks of rows in which no token has a label
// context, n_q and n_kv the heads of a tensor rank, of widths hd and hv
//   ring (exchange)                        with U = B S n_kv (hd + hv): w U (c-1)/c there,
//                                          w U (c-1)/c + 4 U home
//   all_to_all                             w B S (hd + hv) (n_q + max(n_kv, c)) (c-1)/c^2 each way;
//                                          all_gather 4 T (c-1) of first_key where the rank turns
//                                          to a micro-batch that is not the one before
//   router                                 all_gather 4 E T (c-1) there, nothing home
// experts on e s ranks, s slices of each (all_to_all; rows: ExpertTraffic, of this rank and block,
// padding of fixed rows included; d' = w d, in FP8 d + 4 ceil(d / 128))
//   counts, never replayed                 4 (E - E/e); on n nodes of l ranks 4 (n-1) (E/n + 1) +
//                                          4 (l-1) n E/e + 4 choices_across
//   dispatch, combine                      d' tokens + w d choices there, d' choices + w d choices
//                                          home
//   slices                                 counts all_gather 4 E (s-1), never replayed; all_gather
//                                          d' given and reduce_scatter w d given, there and home
//   sum_in_nodes    combine sends w d for each (token, other node) across, both ways, and 4 for
//                   the gate of each of choices_across
// pipeline (exchange), where two stages that follow one another stand on different ranks
//   activations up, gradients down         w d T / t each, from the rank that has made them
//
// and in a step, g being elements of its f32 gradients, r = c D (experts: t c D / (e s)), twice as
// many where a schedule has two copies of a stage, N the elements of a group of parameters, padding
// included (parallel/step_gradients.h: dense ones and experts; in exact mode and from stage 2 on
// those of each stage of the pipeline apart), k reductions of each bucket: 1, in exact mode and
// from stage 2 on one a micro-batch of this rank
//   tensor, all_reduce                     k 8 g (t-1)/t of parameters that all hold; k 8 g (s-1)/s
//                                          of keys and values that s = t/n_kv ranks share
//   ends, all_reduce                       k 4 g of the embedding on the first and the last rank of
//                                          a pipeline that both have it; with two copies of a stage
//                                          reduce_scatter k 4 g, and nothing where k = 1
//   data        plain                      reduce_scatter k 4 N (r-1)/r
//               exact                      all_to_all k 4 N (r-1)/r; of experts e s times as much
//                                          in all, for each of their rows' ranks apart
//               two levels, r = n R        reduce_scatter k 4 N (n-1)/n and all_reduce
//                                          k 8 N (R-1)/(n R); exact all_to_all k 4 N (n-1)/n and
//                                          all_gather k 4 N
//               stage 0                    all_gather 4 N (n-1)/n
//               1 and 2, with the update   all_gather w' N (n-1)/n, w' = 2 of bf16 copies, else 4
//               3                          the same a gather of weights: two a micro-batch, one of
//                                          what is held between; in pipelines one a G instruction
//   loads, all_reduce                      16 (E + 1) (blocks with experts) (n-1)/n a forward pass
//                                          of a stage, n ranks of the stage (twice with copies)
//
// Where parts are uneven these are the means of a group's ranks; sums over all ranks are exact.
// Recompute: "attention" replays what lies between its latents, or the stream, and its output, but
// for the way of o in all_to_all where the product behind it keeps a copy (FP8); "block" all of a
// block there but the scatter behind its last product, and a module's embedding.

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "core/batch.h"
#include "core/fp8/recipe.h"
#include "core/layers/context.h"
#include "parallel/comm/collectives.h"
#include "parallel/data_parallel.h"
#include "parallel/model_part.h"

namespace shoestring {

// One step.
struct StepFacts {
  ModelConfig model = {};
  PartConfig part = {};
  int ranks = 1;
  Dtype dtype = Dtype::bf16;  // or f32
  DataParallelConfig sharing = {};
  std::function<bool(const Param&)> whole = nullptr;  // as in StepGradients::Config
  Recompute recompute = Recompute::none;
  const Fp8Recipe* fp8 = nullptr;     // of layers none of which is probed or fell back
  int64_t micro_batches = 1;          // of all data ranks
  int64_t sequences = 1, length = 1;  // of each micro-batch, whole rows
  bool loads = false;   // the loads of experts are summed after each forward pass (global_batch)
  bool updates = true;  // parameters are gathered after the update
  // What depends on the data. ExpertExchange::sent() by block ("layers.3", "mtp.0"), of all ranks
  // and micro-batches; a usage error where a block is missing though ranks (ep, etp) share experts.
  std::map<std::string, ExpertTraffic> experts = {};
  int64_t rows_without_labels = 0;  // below
};

// Rows of the head, of all its uses, that stand in chunks (core/ops/head_loss.h) without any label.
int64_t rows_without_labels(const StepFacts& facts, std::span<const MicroBatch> micros);

struct TrafficForecast {
  std::array<int64_t, num_call_ops> bytes_sent = {};  // over all ranks
  int64_t bytes(Call::Op op) const { return bytes_sent[static_cast<size_t>(op)]; }
};
TrafficForecast forecast_traffic(const StepFacts& facts);

}  // namespace shoestring
