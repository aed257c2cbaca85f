#pragma once
// What an instruction needs and what it leaves: the only place that gives instructions a meaning.
// From it follow validity, deadlocks, memory and time (parallel/simulate.h).

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "parallel/instruction.h"

namespace shoestring {

// activation: what enters stage s. saved: what its backward pass reads. gradient: of what leaves
// stage s. owed: what its weight gradients read. Where a program has transfers: activation_out and
// gradient_out wait on the rank that made them, activation_sent and gradient_sent are on their way,
// all under the stage that made them. Of passes in parts: forward_part and backward_part lead to
// the next part, owed_part to the weight gradients of the same. Each is made once and eaten once.
enum class TokenKind : uint8_t {
  activation,
  saved,
  gradient,
  owed,
  activation_out,
  activation_sent,
  gradient_out,
  gradient_sent,
  forward_part,
  backward_part,
  owed_part
};
inline constexpr size_t token_kinds = 11;
inline bool is_of_part(TokenKind kind) { return kind >= TokenKind::forward_part; }

struct Token {
  TokenKind kind = TokenKind::activation;
  int16_t stage = 0, micro = 0;
  int16_t part = -1;
  bool operator==(const Token&) const = default;
};
std::string token_text(const Token& token);  // "the gradient of stage 3, micro-batch 2"

class Tokens {
 public:
  void add(Token token) { tokens_[static_cast<size_t>(count_++)] = token; }
  const Token* begin() const { return tokens_.data(); }
  const Token* end() const { return tokens_.data() + count_; }

 private:
  std::array<Token, 2> tokens_ = {};
  int count_ = 0;
};

struct Effects {
  Tokens eats, makes;
};
// The first stage's forward pass eats nothing, the last one's makes its own gradient (the loss),
// the first one's backward pass hands nothing on. With `transfers` what another rank's stage reads
// is left for a transfer. `parts`: how many the stage has, for instructions of parts: F goes from
// part 0 to the last, I back from the last to 0, and behind I of a part that does not travel comes
// W of it, before I of the next.
Effects effects_of(const Instruction& instruction, const Placement& where, bool transfers,
                   int parts = 0);

// What an instruction does to what a rank keeps of a stage over several of them, in programs that
// shard: its gathered weights, and gradients that wait for their reduction.
enum class Keep : uint8_t { none, needs, makes, ends };
struct Kept {
  Keep weights = Keep::none, gradients = Keep::none;
};
// F, I and B need weights, W none; B and W make gradients.
Kept kept_by(Do what);

// The way that a transfer takes: from one rank to another, activations or gradients apart. `what`:
// SA or SG.
struct Channel {
  int from = 0, to = 0;
  Do what = Do::SA;
  bool operator==(const Channel&) const = default;
};
Channel channel_of(const Instruction& transfer, const Placement& where);

}  // namespace shoestring
