#pragma once
// Parameters: what each is (ParamInfo), and the flat stores they live in (ParamStore).
//
// Three flat arrays share one numbering of elements: master values (f32), gradients (f32) and, when
// the compute type is bf16, the compute copies. Everything that treats parameters as numbers
// (reduction, norm, optimiser, checkpoint) works on ranges of that numbering.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace shoestring {

// Elements [begin, end) of the flat numbering.
struct FlatRange {
  int64_t begin = 0, end = 0;
  int64_t elements() const { return end - begin; }
  friend bool operator==(const FlatRange&, const FlatRange&) = default;
};

// Decides initial deviation, learning-rate multiplier, decay and which optimiser (muP needs the
// classes, see Yang et al. 2022, table 8).
enum class ParamClass : uint8_t { embedding, hidden, head, gain, bias };
inline constexpr size_t num_param_classes = 5;
std::string_view name_of(ParamClass c);

// Which part of a matrix (or vector) a rank holds: runs of its rows, and a range of columns.
struct RowRun {
  int64_t local = 0, global = 0, count = 0;
};
struct ParamShard {
  Shape whole;                    // of all ranks together; rank 0: the rank holds all of it
  std::vector<RowRun> rows = {};  // in order of local rows, which they cover
  int64_t first_column = 0;
  bool cut() const { return whole.rank() > 0; }
};

struct ParamInfo {
  std::string name;  // "layers.3.attention.qkv.weight"
  Shape shape;       // of what is held here
  ParamClass param_class = ParamClass::hidden;
  double deviation = 0.02;  // initial standard deviation; 0: constant `fill`
  double fill = 0;          // initial value when deviation is 0 (1 for gains)
  double lr_multiplier = 1;
  bool decay = true;  // weight decay applies
  // Rows of the matrices fused into this tensor (q, k, v), empty when it is one matrix. Muon
  // orthogonalises each part by itself; exports name each part.
  std::vector<int64_t> parts = {};
  ParamShard shard = {};
};

struct Param {
  ParamInfo info;
  int64_t offset = 0;  // first element in the flat stores, a multiple of ParamStore::alignment
  int64_t elements = 0;
  int index = 0;
};

// State of a model that no gradient reaches and no optimiser updates: a router's selection bias.
struct ModelState {
  std::string name;  // "layers.3.moe.router.bias"
  Tensor values;     // f32
};

// Which of its arrays a store has memory for. Without one the span is empty, and a view is an
// error: ranks keep shards of it elsewhere (parallel/param_shards.h).
struct ParamMemory {
  bool weights = true;  // what ops read: compute copies, or the masters when compute is f32
  bool masters = true;  // beside copies
  bool gradients = true;
};

// Initial values of elements [begin, begin + values.size()) of what is held here of a parameter.
// Counter-based: element i of the whole parameter `name` is a function of (seed, name, i), so that
// no cut changes it.
void initial_values(const Param& p, uint64_t seed, int64_t begin, std::span<float> values);

class ParamStore {
 public:
  // Elements; keeps every parameter at a 64-byte border and the exact-norm blocks whole.
  static constexpr int64_t alignment = 64;

  // `compute`: f32 (weights are the masters), bf16 (copies are kept) or f64 (oracle, in tests).
  ParamStore(Device& device, std::vector<ParamInfo> infos, Dtype compute,
             const ParamMemory& memory = {});

  Device& device() const { return *device_; }
  Dtype compute() const { return compute_; }
  const std::vector<Param>& params() const { return params_; }
  const Param& param(std::string_view name) const;  // unknown name: error with the nearest one
  int64_t elements() const { return elements_; }    // of the flat stores, padding included
  int64_t parameters() const;                       // without padding

  // Empty when the store has no memory for it.
  std::span<float> master() const { return master_ ? master_.span<float>() : std::span<float>(); }
  std::span<float> gradients() const;
  std::span<BFloat16> compute_copy() const;  // empty when compute is f32

  Tensor master(const Param& p) const;    // f32 view
  Tensor gradient(const Param& p) const;  // f32 view; f64 when compute is f64
  Tensor weight(const Param& p) const;    // compute-type view: what ops read

  // The state of this name, made of zeros when it is new; the layer that uses it makes it. It is
  // saved and restored with the weights, and the same on all ranks.
  Tensor state(std::string_view name, Shape shape);
  const std::vector<ModelState>& states() const { return states_; }

  // initial_values() in every array that the store has memory for.
  void initialise(uint64_t seed);
  void zero_gradients();
  // Refreshes compute copies of [begin, end) after masters changed.
  void refresh_compute(int64_t begin, int64_t end);
  // Encodings of weights are keyed by this; the optimiser step raises it.
  Dtype gradient_type() const { return compute_ == Dtype::f64 ? Dtype::f64 : Dtype::f32; }
  int64_t version() const { return version_; }
  void raise_version() { ++version_; }

 private:
  Tensor view(const Tensor& array, const Param& p, std::string_view what) const;

  Device* device_;
  Dtype compute_;
  std::vector<Param> params_;
  int64_t elements_ = 0;
  Tensor master_, gradients_, compute_copy_;
  std::vector<ModelState> states_;
  int64_t version_ = 0;
};

}  // namespace shoestring
