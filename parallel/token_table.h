#pragma once
// A cell for every token that a step may make (parallel/effects.h).

#include <cstddef>
#include <vector>

#include "parallel/effects.h"

namespace shoestring {

template <class Cell>
class TokenTable {
 public:
  // `parts`: the most that a stage has.
  explicit TokenTable(const Placement& where, int parts = 0)
      : stages_(static_cast<size_t>(where.stages())),
        micros_(static_cast<size_t>(where.micros)),
        parts_(static_cast<size_t>(parts)),
        cells_(first_of_part * stages_ * micros_),
        of_parts_((token_kinds - first_of_part) * stages_ * micros_ * parts_) {}

  Cell& at(const Token& token) {
    return is_of_part(token.kind) ? of_parts_[part_index_of(token)] : cells_[index_of(token)];
  }
  const Cell& at(const Token& token) const {
    return is_of_part(token.kind) ? of_parts_[part_index_of(token)] : cells_[index_of(token)];
  }
  // f(token, cell) of all.
  template <class F>
  void each(F&& f) const {
    for (size_t k = 0; k < cells_.size(); ++k) f(token_of(k), cells_[k]);
    for (size_t k = 0; k < of_parts_.size(); ++k) {
      Token token = token_of(first_of_part * stages_ * micros_ + k / parts_);
      token.part = static_cast<int16_t>(k % parts_);
      f(token, of_parts_[k]);
    }
  }

 private:
  static constexpr size_t first_of_part = static_cast<size_t>(TokenKind::forward_part);
  size_t index_of(const Token& token) const {
    const size_t row = static_cast<size_t>(token.kind) * stages_ + static_cast<size_t>(token.stage);
    return row * micros_ + static_cast<size_t>(token.micro);
  }
  size_t part_index_of(const Token& token) const {
    return (index_of(token) - first_of_part * stages_ * micros_) * parts_ +
           static_cast<size_t>(token.part);
  }
  Token token_of(size_t index) const {
    const size_t rest = index / micros_;
    return {.kind = static_cast<TokenKind>(rest / stages_),
            .stage = static_cast<int16_t>(rest % stages_),
            .micro = static_cast<int16_t>(index % micros_)};
  }
  size_t stages_, micros_, parts_;
  std::vector<Cell> cells_, of_parts_;
};

}  // namespace shoestring
