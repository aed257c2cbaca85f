#include "parallel/effects.h"

#include "core/check.h"
#include "core/text.h"

namespace shoestring {

std::string token_text(const Token& token) {
  constexpr std::array<std::string_view, token_kinds> names = {
      "the input",
      "what the forward pass saved",
      "the output's gradient",
      "what the weight gradients read",
      "the output, not yet sent,",
      "the output, on its way,",
      "the input's gradient, not yet sent,",
      "the input's gradient, on its way,",
      "the forward pass",
      "the backward pass",
      "what the weight gradients read"};
  const std::string part = token.part < 0 ? "" : cat(" of part ", token.part);
  return cat(names[static_cast<size_t>(token.kind)], part, " of stage ", token.stage,
             ", micro-batch ", token.micro);
}

namespace {

// What a pass of one stage and micro-batch needs and leaves.
class Pass {
 public:
  Pass(const Instruction& i, const Placement& where, bool transfers, int parts)
      : i_(i), where_(where), transfers_(transfers), parts_(parts) {}

  Effects forward() const {
    Effects e;
    if (i_.part > 0) {
      e.eats.add(of_part(TokenKind::forward_part, i_.part - 1));
    } else if (i_.stage > 0) {
      e.eats.add(token(TokenKind::activation, i_.stage));
    }
    if (!i_.whole() && i_.part + 1 < parts_) {
      e.makes.add(of_part(TokenKind::forward_part, i_.part));
      return e;
    }
    e.makes.add(token(TokenKind::saved, i_.stage));
    if (i_.stage + 1 == where_.stages()) {
      e.makes.add(token(TokenKind::gradient, i_.stage));
    } else {
      e.makes.add(stays(i_.stage + 1) ? token(TokenKind::activation, i_.stage + 1)
                                      : token(TokenKind::activation_out, i_.stage));
    }
    return e;
  }
  Effects backward() const {
    Effects e;
    if (i_.whole() || i_.part + 1 == parts_) {
      e.eats.add(token(TokenKind::saved, i_.stage));
      e.eats.add(token(TokenKind::gradient, i_.stage));
    } else {
      e.eats.add(of_part(TokenKind::backward_part, i_.part + 1));
    }
    if (!i_.whole()) {
      e.makes.add(of_part(i_.travels ? TokenKind::backward_part : TokenKind::owed_part, i_.part));
    } else if (i_.what == Do::I) {
      e.makes.add(token(TokenKind::owed, i_.stage));
    }
    if (i_.part <= 0 && i_.stage > 0) {
      e.makes.add(stays(i_.stage - 1) ? token(TokenKind::gradient, i_.stage - 1)
                                      : token(TokenKind::gradient_out, i_.stage));
    }
    return e;
  }
  Effects weights() const {
    Effects e;
    e.eats.add(i_.whole() ? token(TokenKind::owed, i_.stage)
                          : of_part(TokenKind::owed_part, i_.part));
    if (i_.part > 0) e.makes.add(of_part(TokenKind::backward_part, i_.part));
    return e;
  }
  Effects transfer(TokenKind eats, int eaten, TokenKind makes) const {
    Effects e;
    e.eats.add(token(eats, eaten));
    e.makes.add(token(makes, i_.stage));
    return e;
  }

 private:
  Token token(TokenKind kind, int stage) const {
    return {.kind = kind, .stage = static_cast<int16_t>(stage), .micro = i_.micro};
  }
  Token of_part(TokenKind kind, int part) const {
    return {.kind = kind, .stage = i_.stage, .micro = i_.micro, .part = static_cast<int16_t>(part)};
  }
  bool stays(int stage) const {
    return !transfers_ || where_.rank_of(stage, i_.micro) == where_.rank_of(i_.stage, i_.micro);
  }

  const Instruction& i_;
  const Placement& where_;
  bool transfers_;
  int parts_;
};

}  // namespace

Effects effects_of(const Instruction& i, const Placement& where, bool transfers, int parts) {
  const Pass pass(i, where, transfers, parts);
  switch (i.what) {
    case Do::F:
      return pass.forward();
    case Do::I:
    case Do::B:
      return pass.backward();
    case Do::W:
      return pass.weights();
    case Do::SA:
      return pass.transfer(TokenKind::activation_out, i.stage, TokenKind::activation_sent);
    case Do::RA:
      return pass.transfer(TokenKind::activation_sent, i.stage - 1, TokenKind::activation);
    case Do::SG:
      return pass.transfer(TokenKind::gradient_out, i.stage, TokenKind::gradient_sent);
    case Do::RG:
      return pass.transfer(TokenKind::gradient_sent, i.stage + 1, TokenKind::gradient);
    case Do::G:
    case Do::R:
    case Do::S:
      return {};
  }
  fail("an unknown instruction");
}

Kept kept_by(Do what) {
  switch (what) {
    case Do::F:
    case Do::I:
      return {.weights = Keep::needs};
    case Do::B:
      return {.weights = Keep::needs, .gradients = Keep::makes};
    case Do::W:
      return {.gradients = Keep::makes};
    case Do::G:
      return {.weights = Keep::makes};
    case Do::R:
      return {.weights = Keep::ends};
    case Do::S:
      return {.gradients = Keep::ends};
    default:
      return {};
  }
}

Channel channel_of(const Instruction& i, const Placement& where) {
  const int home = where.rank_of(i.stage, i.micro);
  const bool up = i.what == Do::SA || i.what == Do::RG;
  const int other = where.rank_of(i.stage + (up ? 1 : -1), i.micro);
  const Do what = i.what == Do::SA || i.what == Do::RA ? Do::SA : Do::SG;
  return is_receipt(i.what) ? Channel{other, home, what} : Channel{home, other, what};
}

}  // namespace shoestring
