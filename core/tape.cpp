#include "core/tape.h"

#include <algorithm>
#include <set>

#include "core/check.h"
#include "core/ops/convert.h"
#include "core/text.h"

namespace shoestring {
namespace {

// A head that made its input's gradient while it ran forward: nothing to compute, only to pass on.
class GradientNode : public TapeNode {
 public:
  GradientNode(std::string name, Tensor dx) : name_(std::move(name)), dx_(std::move(dx)) {}
  std::string_view name() const override { return name_; }
  std::vector<Tensor> grad_input(Stream&, ParamSource&, std::span<const Tensor>) override {
    return {std::move(dx_)};
  }
  void replay(Stream&, ParamSource&, bool) override {
    fail(cat("[", name_, "] cannot stand inside a recompute region"));
  }
  std::vector<SavedRef> saved() override { return {{&dx_, true, false}}; }

 private:
  std::string name_;
  Tensor dx_;
};

}  // namespace

Tape::Tape(Stream& stream, ParamSource& source, Mode mode)
    : stream_(&stream), source_(&source), mode_(mode) {}

Value Tape::leaf(Tensor tensor, bool wants_gradient) {
  if (!recording()) return Value(std::move(tensor));
  gradients_.emplace_back();
  wants_.push_back(wants_gradient);
  return Value(std::move(tensor), static_cast<int>(gradients_.size()) - 1, wants_gradient);
}

Tensor Tape::take_gradient(const Value& leaf) {
  check(leaf.id() >= 0, "the gradient of a value that is not on this tape was asked for");
  return std::exchange(gradients_[static_cast<size_t>(leaf.id())], Tensor());
}

void Tape::begin_segment(std::string name) {
  check(open_segment_ < 0, "a segment was begun inside another one");
  open_segment_ = static_cast<int>(segments_.size());
  const int at = static_cast<int>(nodes_.size());
  segments_.push_back({.name = std::move(name), .begin = at, .end = at});
  source_->acquire(open_segment_, Phase::forward);
}

void Tape::end_segment() {
  check(open_segment_ >= 0, "a segment was ended that was never begun");
  segments_.back().end = static_cast<int>(nodes_.size());
  source_->release(open_segment_, Phase::forward);
  open_segment_ = -1;
}

const std::string& Tape::segment_name(int segment) const {
  return segments_.at(static_cast<size_t>(segment)).name;
}

int Tape::begin_region() {
  check(open_region_ < 0, "a recompute region was begun inside another one");
  open_region_ = static_cast<int>(regions_.size());
  regions_.push_back({.begin = static_cast<int>(nodes_.size())});
  return open_region_;
}

void Tape::end_region(int region) {
  check(region == open_region_, "recompute regions must end in the order in which they began");
  regions_.back().end = static_cast<int>(nodes_.size());
  open_region_ = -1;
}

void Tape::drop_region(int region, const std::vector<Value>& keep) {
  if (!recording()) return;
  Region& r = regions_.at(static_cast<size_t>(region));
  std::set<const Block*> kept, made;
  for (const Value& v : keep) kept.insert(v.tensor().block().get());
  for (int n = r.begin; n < r.end; ++n) {
    TapeNode& node = *nodes_[static_cast<size_t>(n)];
    // Inputs from outside stay: replay starts from them.
    for (const Tensor& t : node.kept_inputs) {
      if (t && !made.contains(t.block().get())) kept.insert(t.block().get());
    }
    for (const Tensor& t : node.kept_outputs) {
      if (t) made.insert(t.block().get());
    }
    for (const TapeNode::SavedRef& s : node.saved()) {
      if (*s.tensor && !kept.contains(s.tensor->block().get()))
        made.insert(s.tensor->block().get());
    }
  }
  for (int n = r.begin; n < r.end; ++n) {
    TapeNode& node = *nodes_[static_cast<size_t>(n)];
    auto drop = [&](const Tensor& t) {
      if (!t || kept.contains(t.block().get()) || t.block()->kind() != MemoryKind::activations) {
        return;
      }
      region_of_block_[t.block().get()] = region;
      t.block()->drop();
    };
    for (const Tensor& t : node.kept_outputs) drop(t);
    for (const TapeNode::SavedRef& s : node.saved()) drop(*s.tensor);
  }
  r.dropped = true;
}

std::vector<Value> Tape::record(std::unique_ptr<TapeNode> node, std::span<const Value> inputs,
                                std::span<const Tensor> outputs) {
  std::vector<Value> values;
  if (!recording()) {
    for (const Tensor& t : outputs) values.emplace_back(t);
    return values;
  }
  bool wanted = !node->weights.empty();
  for (const Value& v : inputs) {
    node->input_ids.push_back(v.wants_gradient() ? v.id() : -1);
    wanted |= v.wants_gradient();
  }
  for (const Tensor& t : outputs) {
    values.push_back(leaf(t, wanted));
    node->output_ids.push_back(values.back().id());
  }
  for (const Param* p : node->weights) ++uses_[p->index];
  for (const TapeNode::SavedRef& s : node->saved()) {
    if (!*s.tensor) continue;
    if (s.input_phase) input_arena_.hold(s.tensor->block());
    if (s.weight_phase) weight_arena_.hold(s.tensor->block());
  }
  node->segment = open_segment_;
  node->region = open_region_;
  if (open_region_ >= 0) {
    for (const Value& v : inputs) node->kept_inputs.push_back(v ? v.tensor() : Tensor());
    node->kept_outputs.assign(outputs.begin(), outputs.end());
  }
  nodes_.push_back(std::move(node));
  return values;
}

void Tape::record_gradient(std::string_view name, const Value& x, Tensor dx) {
  if (!recording()) return;
  auto node = std::make_unique<GradientNode>(std::string(name), std::move(dx));
  record(std::move(node), std::span(&x, 1), {});
}

void Tape::count_use(const Param& p) { ++uses_[p.index]; }

void Tape::use_done(const Param& p) {
  if (--uses_[p.index] == 0) source_->gradient_ready(p);
}

void Tape::seed(const Value& output, Tensor gradient) {
  if (gradient.shape() != output.tensor().shape()) {
    fail(cat("the gradient of a chunk's output must be ", output.tensor().text(), " but is ",
             gradient.text()));
  }
  add_gradient(output.id(), std::move(gradient));
}

void Tape::add_gradient(int id, Tensor gradient) {
  if (id < 0 || !gradient || !wants_[static_cast<size_t>(id)]) return;
  Tensor& sum = gradients_[static_cast<size_t>(id)];
  if (!sum) {
    sum = std::move(gradient);
  } else if (sum.block().use_count() == 1) {
    accumulate(*stream_, sum, gradient);
  } else if (gradient.block().use_count() == 1) {
    accumulate(*stream_, gradient, sum);  // a + b = b + a, bit for bit
    sum = std::move(gradient);
  } else {
    Tensor fresh = convert(*stream_, sum, sum.dtype());
    accumulate(*stream_, fresh, gradient);
    sum = std::move(fresh);
  }
}

namespace {

bool is_gone(const Tensor& t) { return t && t.block()->hollow(); }
bool lacks_saved(TapeNode& node) {
  return std::ranges::any_of(node.saved(),
                             [](const TapeNode::SavedRef& s) { return is_gone(*s.tensor); });
}
// Whether an output that is gone is anybody else's.
bool lacks_results(const TapeNode& node) {
  return std::ranges::any_of(
      node.kept_outputs, [](const Tensor& t) { return is_gone(t) && t.block().use_count() > 1; });
}

}  // namespace

void Tape::refill(TapeNode& node) {
  for (const TapeNode::SavedRef& s : node.saved()) {
    if (!*s.tensor || !s.tensor->block()->hollow()) continue;
    auto it = region_of_block_.find(s.tensor->block().get());
    check(it != region_of_block_.end(), "a dropped block belongs to no recompute region");
    replay(it->second);
  }
}

void Tape::replay(int region) {
  Region& r = regions_[static_cast<size_t>(region)];
  check(r.dropped, "a recompute region was replayed twice");
  r.dropped = false;
  int last = r.end - 1;
  while (last >= r.begin && nodes_[static_cast<size_t>(last)] == nullptr) --last;
  for (int n = r.begin; n <= last; ++n) {
    if (nodes_[static_cast<size_t>(n)] == nullptr) continue;  // its turn in I is over
    TapeNode& node = *nodes_[static_cast<size_t>(n)];
    // A block's last product went to the next block and was dropped there.
    const bool results = n < last || lacks_results(node);
    if (!results && !lacks_saved(node)) break;
    // An input from outside may itself have been dropped, by an earlier region.
    for (const Tensor& t : node.kept_inputs) {
      if (!t || !t.block()->hollow()) continue;
      auto it = region_of_block_.find(t.block().get());
      if (it != region_of_block_.end() && it->second != region) replay(it->second);
    }
    // A region may reach over segments whose weights are not at hand in this phase.
    const bool elsewhere = node.segment >= 0 && node.segment != backward_segment_;
    if (elsewhere) source_->acquire(node.segment, Phase::forward);
    {
      const Watch watch(*this, node.name(), Phase::forward);
      node.replay(*stream_, *source_, results);
    }
    if (elsewhere) source_->release(node.segment, Phase::forward);
  }
}

std::vector<Tape::Resting> Tape::resting_blocks() const {
  struct Use {
    const BlockPtr* block;
    long references = 0;
    int segment = -1;
    bool stays = false;  // read outside of segments, or part of a region that may still be dropped
  };
  std::map<const Block*, Use> uses;
  std::vector<const Block*> order;  // of first uses
  const auto count = [&](const Tensor& t, const TapeNode& node) {
    if (!t) return;
    const auto [at, fresh] = uses.try_emplace(t.block().get(), Use{.block = &t.block()});
    if (fresh) order.push_back(t.block().get());
    ++at->second.references;
    at->second.segment = std::max(at->second.segment, node.segment);
    at->second.stays |= node.segment < 0 ||
                        (node.region >= 0 && !regions_[static_cast<size_t>(node.region)].dropped);
  };
  for (const std::unique_ptr<TapeNode>& node : nodes_) {
    if (node == nullptr) continue;
    for (const TapeNode::SavedRef& s : node->saved()) count(*s.tensor, *node);
    for (const Tensor& t : node->kept_inputs) count(t, *node);
    for (const Tensor& t : node->kept_outputs) count(t, *node);
  }
  std::vector<Resting> resting;
  for (const Block* block : order) {
    const Use& use = uses.at(block);
    const long held = use.references + input_arena_.holds(*block) + weight_arena_.holds(*block);
    // Somebody else may be at work on a block that has another owner: it is not looked into.
    if (use.stays || use.block->use_count() != held) continue;
    if (block->kind() != MemoryKind::activations || block->hollow()) continue;
    resting.push_back({*use.block, use.segment});
  }
  return resting;
}

void Tape::settle(std::unique_ptr<TapeNode> node) {
  if (node->owes_weight()) {
    {
      const Watch watch(*this, node->name(), Phase::weight);
      node->grad_weight(*stream_, *source_);
    }
    for (const TapeNode::SavedRef& s : node->saved()) {
      if (*s.tensor) weight_arena_.release(s.tensor->block());
    }
  }
  for (const Param* p : node->weights) use_done(*p);
}

void Tape::enter_segment_of(int node) {
  const int segment = nodes_[static_cast<size_t>(node)]->segment;
  if (segment == backward_segment_) return;
  if (backward_segment_ >= 0) source_->release(backward_segment_, Phase::input);
  backward_segment_ = segment;
  if (segment >= 0) source_->acquire(segment, Phase::input);
}

void Tape::step_back(int n, bool weights_too) {
  std::unique_ptr<TapeNode> node = std::move(nodes_[static_cast<size_t>(n)]);
  std::vector<Tensor> dy;
  bool any = node->output_ids.empty();  // a head's gradient needs no dy
  for (int id : node->output_ids) {
    dy.push_back(std::exchange(gradients_[static_cast<size_t>(id)], Tensor()));
    any |= static_cast<bool>(dy.back());
  }
  std::vector<TapeNode::SavedRef> saved = node->saved();
  std::vector<BlockPtr> input_blocks, weight_blocks;
  for (const TapeNode::SavedRef& s : saved) {
    if (*s.tensor && s.input_phase) input_blocks.push_back(s.tensor->block());
    if (*s.tensor && s.weight_phase) weight_blocks.push_back(s.tensor->block());
  }
  if (any) {
    nodes_[static_cast<size_t>(n)] = std::move(node);  // replay may need to find it
    refill(*nodes_[static_cast<size_t>(n)]);
    node = std::move(nodes_[static_cast<size_t>(n)]);
    std::vector<Tensor> dx;
    {
      const Watch watch(*this, node->name(), Phase::input);
      dx = node->grad_input(*stream_, *source_, dy);
    }
    for (size_t i = 0; i < dx.size(); ++i) add_gradient(node->input_ids[i], std::move(dx[i]));
  }
  for (const BlockPtr& block : input_blocks) input_arena_.release(block);
  if (!any) {  // nothing downstream used it: no gradient, but the uses are over
    for (const BlockPtr& block : weight_blocks) weight_arena_.release(block);
    for (const Param* p : node->weights) use_done(*p);
    return;
  }
  if (node->owes_weight()) {
    node->owe(dy);  // dy, or what the node made of it, is now among the saved
    for (const TapeNode::SavedRef& s : node->saved()) {
      if (*s.tensor && s.weight_phase) weight_arena_.hold(s.tensor->block());
    }
    for (const BlockPtr& block : weight_blocks) weight_arena_.release(block);
    weight_blocks.clear();
    dy.clear();
    if (!weights_too) {
      pending_.push_back(std::move(node));
      return;
    }
  }
  settle(std::move(node));
}

void Tape::walk(int from, int to, bool weights_too) {
  for (int n = from - 1; n >= to; --n) {
    enter_segment_of(n);
    step_back(n, weights_too);
  }
  walked_to_ = to;
  if (to == 0) {
    if (backward_segment_ >= 0) source_->release(backward_segment_, Phase::input);
    backward_segment_ = -1;
    nodes_.clear();
    region_of_block_.clear();
  }
}

void Tape::backward_input() { walk(left(), 0, false); }

std::optional<int> Tape::next_input_segment() const {
  const int from = left();
  if (from == 0) return {};
  return nodes_[static_cast<size_t>(from - 1)]->segment;
}

void Tape::refill_input_segment() {
  const std::optional<int> segment = next_input_segment();
  if (!segment || *segment < 0) return;
  enter_segment_of(left() - 1);
  for (int n = left() - 1; n >= segments_[static_cast<size_t>(*segment)].begin; --n) {
    refill(*nodes_[static_cast<size_t>(n)]);
  }
}

bool Tape::backward_input_segment() {
  const int from = left();
  if (from == 0) return false;
  const int segment = nodes_[static_cast<size_t>(from - 1)]->segment;
  walk(from, segment < 0 ? from - 1 : segments_[static_cast<size_t>(segment)].begin, false);
  return true;
}

void Tape::backward_weight() {
  for (std::unique_ptr<TapeNode>& node : pending_) settle(std::move(node));
  pending_.clear();
}

void Tape::backward() { walk(left(), 0, true); }

}  // namespace shoestring
