#pragma once
// drop_choices: which choices of a router fall beyond the capacity of their experts (GShard,
// Lepikhin et al. 2020, section 2.2; Switch Transformer, Fedus et al. 2021, section 2.2). T tokens,
// K chosen, E experts.
//
//   inputs   ids i32 [T, K], expert numbers; gates [T, K] f32 or f64
//   output   i32 [T, K]: the ids, and -1 where the choice is dropped
//
// An expert takes at most ceil(capacity T K / E) rows of a micro-batch; beyond it the choices with
// the lowest gates are dropped (ties: the later token; what is not a number goes first). It has to
// see a whole micro-batch with its tokens in their order: where ranks share one out, each marks the
// choices of all rows, and goes on with its own.
// No gradient: ids are numbers of experts, and which gates are the lowest is taken as given. What
// is dropped has no row in dispatch, and the gradient of its gate is 0 in combine.

#include <string_view>
#include <vector>

#include "core/op.h"

namespace shoestring {

struct DropChoices {
  static constexpr std::string_view name = "drop_choices";
  static constexpr int num_inputs = 2, num_outputs = 1;
  struct Attributes {
    int64_t experts = 0;
    double capacity = 1;  // above 0
  };
  using Saved = NothingSaved;
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<2>& inputs, Saved&);
  static Tensors<2> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<DropChoices>);

// The most rows that an expert takes of `choices` choices (T K).
int64_t rows_of_capacity(const DropChoices::Attributes& attributes, int64_t choices);

// The choices (t K + k) of each expert, in the order of tokens, without those that are dropped.
// Refuses ids that are neither an expert's number nor -1, in the name of `op`.
std::vector<std::vector<int64_t>> choices_by_expert(std::string_view op, const Tensor& ids,
                                                    int64_t experts);

}  // namespace shoestring
