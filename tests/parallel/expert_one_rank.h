#pragma once
// A sparse layer's ranks against one rank that runs their micro-batches one after the other.

#include <cmath>

#include "tests/parallel/expert_layer_case.h"

namespace shoestring::testing {

inline double distance(const Tensor& got, const Tensor& want) {
  Device& device = got.device();
  Stream stream = Stream::immediate(device);
  const Tensor a = convert(stream, got, Dtype::f64), b = convert(stream, want, Dtype::f64);
  double off = 0, norm = 0;
  for (int64_t i = 0; i < a.elements(); ++i) {
    off += std::pow(a.data<double>()[i] - b.data<double>()[i], 2);
    norm += std::pow(b.data<double>()[i], 2);
  }
  return norm > 0 ? std::sqrt(off / norm) : std::sqrt(off);
}

// 0: bit for bit.
inline void check_equal(const Tensor& got, const Tensor& want, double tolerance,
                        const std::string& what) {
  if (tolerance == 0) return check_same_bits(got, want, what);
  const double off = distance(got, want);
  check(got.text() == want.text() && off <= tolerance, cat(what, " is off by ", off));
}

struct Reference {
  explicit Reference(const Model& model, int ranks) : layer(model) {
    Stream stream = Stream::immediate(layer.device());
    layer.store().zero_gradients();
    for (int r = 0; r < ranks; ++r) outcomes.push_back(layer.run(r, nullptr, stream));
  }
  Layer layer;
  std::vector<Outcome> outcomes;  // of the micro-batches, one after the other
};

inline ExpertPart part_of_rank(const Standing& s, int rank) {
  return {.rank = rank / s.slices, .ranks = s.ranks, .slice = rank % s.slices, .slices = s.slices};
}

inline void check_rank(Communicator& world, const Model& model, const Standing& s, Reference& want,
                       double tolerance) {
  const int rank = world.rank();
  const ExpertPart part = part_of_rank(s, rank);
  Layer layer(model, part);
  layer.store().zero_gradients();
  GroupOf g(world, s, model.experts);
  ExpertExchange exchange(g.group);
  Stream stream =
      model.worker ? Stream::worker(layer.device(), "compute") : Stream::immediate(layer.device());
  AbortOnUnwind guard(world);
  const Outcome got = layer.run(rank, &exchange, stream);
  const Outcome& one = want.outcomes[static_cast<size_t>(rank)];
  const std::string at = cat(" of rank ", rank, ", ", s.text(), ", ", model.recipe);
  check_equal(got.y, one.y, tolerance, "y" + at);
  check_equal(got.dx, one.dx, tolerance, "dx" + at);
  for (const auto& [name, gradient] : got.shared) {
    check_equal(gradient, one.shared.at(name), tolerance, name + at);
  }
  for (const Param& p : layer.store().params()) {
    if (!is_of_experts(p.info)) continue;
    const Tensor all = want.layer.store().gradient(want.layer.store().param(p.info.name));
    check_equal(layer.store().gradient(p), part_of(all, p.info), tolerance, p.info.name + at);
  }
  // What the step is told: a rank's own choices and drops, and the rows its experts were given.
  for (const char* name : {"layers.0.routing", "layers.0.offsets"}) {
    check_same_bits(got.told.at(name), one.told.at(name), name + at);
  }
  const int64_t here = model.experts / s.ranks;
  const std::span<const int32_t> received = got.told.at("layers.0.received").span<int32_t>();
  check(static_cast<int64_t>(received.size()) == here * s.all() + 1, "borders of rows");
  for (int64_t e = 0; e < here; ++e) {
    for (int64_t r = 0; r < s.all(); ++r) {
      const Outcome& theirs = want.outcomes[static_cast<size_t>(r)];
      const int32_t* own =
          theirs.told.at("layers.0.offsets").data<int32_t>() + part.rank * here + e;
      const auto i = static_cast<size_t>(e * s.all() + r);
      check(received[i + 1] - received[i] == own[1] - own[0], "rows of an expert from a rank");
    }
  }
}

inline void expect_one_rank(const Model& model, const Standing& s, double tolerance = 0) {
  Reference want(model, s.all());
  EXPECT_NO_THROW(run_ranks(
      s.all(), [&](Communicator& world) { check_rank(world, model, s, want, tolerance); }))
      << s.text() << ", " << model.recipe << ", " << name_of(model.dtype);
}

inline Model with_experts(Model model, const Standing& s) {
  if (s.ranks == 3) model.experts = 9;
  return model;
}

}  // namespace shoestring::testing
