#pragma once
// rope: rotary position embedding (Su et al. 2021) of x [T, heads * head_dim].
//
// Pair j of a head's rotated dims turns by the angle position * w_j, w_j = theta^(-2 j / rotated):
// (a, b) -> (a cos - b sin, b cos + a sin). Pairs are (j, j + rotated / 2) ("half split", the
// layout of Hugging Face files) or (2 j, 2 j + 1) ("interleaved", the layout of latent attention).
// The gradient is the rotation by the negative angle.

#include <string>
#include <vector>

#include "core/fields.h"
#include "core/op.h"

namespace shoestring {

struct RopeConfig {
  double theta = 10000;
  std::string scaling = "none";
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  int64_t original_max_positions = 8192;
  double beta_fast = 32;
  double beta_slow = 1;
  double attention_factor = 0;
  double mscale = 0;
  double mscale_all_dim = 0;

  template <class V>
  void visit(V&& v) {
    v("theta", theta, Field{.help = "base of the inverse frequencies", .min = 1, .max = 1e15});
    v("scaling", scaling,
      Field{.help = "how frequencies are stretched to longer texts",
            .choices = "none|linear|llama3|yarn"});
    v("factor", factor, Field{.help = "longer by this factor", .min = 1, .max = 1e6});
    v("low_freq_factor", low_freq_factor,
      Field{.help = "llama3: wavelengths above original / this are stretched in full",
            .min = 0,
            .max = 1e6});
    v("high_freq_factor", high_freq_factor,
      Field{.help = "llama3: wavelengths below original / this are kept", .min = 0, .max = 1e6});
    v("original_max_positions", original_max_positions,
      Field{.help = "llama3, yarn: text length of the first training",
            .unit = "tokens",
            .min = 1,
            .max = 1 << 30});
    v("beta_fast", beta_fast,
      Field{.help = "yarn: dims that turn more often than this are kept", .min = 0, .max = 1e6});
    v("beta_slow", beta_slow,
      Field{.help = "yarn: dims that turn less often than this are stretched in full",
            .min = 0,
            .max = 1e6});
    v("attention_factor", attention_factor,
      Field{.help = "yarn: multiplies cos and sin; 0: from mscale, or 0.1 ln(factor) + 1",
            .min = 0,
            .max = 1e6});
    v("mscale", mscale,
      Field{.help = "yarn: numerator of the factor of cos and sin", .min = 0, .max = 1e6});
    v("mscale_all_dim", mscale_all_dim,
      Field{.help = "yarn: denominator; also scales the softmax in latent attention",
            .min = 0,
            .max = 1e6});
  }
  void validate(Complaints& c) const;
};

// w_j in double, scaled: rotated / 2 values. llama3: the rule published with
// Llama 3.1; YaRN: Peng et al. 2023, section 3, with whole corner dims.
std::vector<double> rope_frequencies(const RopeConfig& config, int64_t rotated);
// What multiplies cos and sin: 1 but for yarn.
double rope_amplitude(const RopeConfig& config);

// cos and sin f32 [max_positions, rotated / 2], computed in double. Empty tensors: no rotation.
struct RopeTable {
  Tensor cos = {}, sin = {};
};
RopeTable make_rope_table(Device& device, const RopeConfig& config, int64_t rotated,
                          int64_t max_positions);

struct Rope {
  static constexpr std::string_view name = "rope";
  static constexpr int num_inputs = 2, num_outputs = 1;
  struct Attributes {
    RopeTable table = {};
    int64_t heads = 0;
    int64_t head_dim = 0;
    int64_t rotated = 0;  // dims of a head that turn; the others are copied
    int64_t first = 0;    // the first of them
    bool interleaved = false;
  };
  struct Saved {
    Tensor positions;
    template <class F>
    void each(F&& f) {
      f(positions);
    }
  };
  // inputs: x [T, heads * head_dim] f32, bf16 or f64; positions i32 [T], each below the table's
  // rows (else an error that names the token).
  static Tensors<1> forward(Stream&, const Attributes&, const Tensors<2>& inputs, Saved&);
  static Tensors<2> grad_input(Stream&, const Attributes&, const Saved&, const Tensors<1>& dy);
};
static_assert(PlainOp<Rope>);

// What rope and split_qkv share: heads of rows of `from`, taken from column `from_column` of
// `from_stride`, are turned (direction 1 or -1) and written to `to` in the same way. Without a
// table (Rope::Attributes::table empty) they are copied.
struct RotateRows {
  Tensor from = {}, to = {}, positions = {};
  int64_t from_column = 0, to_column = 0;
  double direction = 1;
  Rope::Attributes rope = {};
};
void check_positions(std::string_view op, const Tensor& positions, const RopeTable& table);
// Rows [begin, end), on the calling thread.
void rotate_rows(const RotateRows& a, int64_t begin, int64_t end);

}  // namespace shoestring
