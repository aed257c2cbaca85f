#pragma once
// Which meshes a model can be laid out on. Impossible ones are refused with every reason at once
// and with the nearest possible ones; all possible ones can be listed.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/mesh_config.h"

namespace shoestring {

// What a pipeline schedule asks for; only where pp > 1.
struct ScheduleNeeds {
  std::string name = "1f1b";
  int64_t stages_per_rank = 1;    // pieces of the model that a rank holds; 2 in ZB-V
  int64_t min_micro_batches = 1;  // of each data rank, whatever pp is
  int64_t min_per_rank = 0;       // of each data rank, times pp; 2 in DualPipe
  int64_t multiple = 1;           // micro-batches come in multiples of this
  int64_t multiple_per_rank = 0;  // and of this times pp; 1 in interleaved 1F1B
  bool even_ranks = false;
};

enum class ContextKind : uint8_t { ring, all_to_all };

// The sizes that a mesh must fit. 0 where a model has no such thing.
struct ModelFacts {
  int64_t layers = 1;
  int64_t heads = 1, kv_heads = 1;  // kv_heads 0: latent attention, which has none to share
  int64_t ffn = 0, shared_ffn = 0;  // inner widths of the mlp and of the shared experts together
  int64_t experts = 0, expert_ffn = 0;
  int64_t groups = 1;  // of experts, for the choice that is limited to some nodes
  int64_t vocabulary = 0;
  int64_t sequence = 1;       // tokens
  int64_t micro_batches = 1;  // of a step, of all data ranks
  int64_t batch = 0;          // their sequences, for advice about them; 0: not one number
  ContextKind context = ContextKind::ring;
  // Tokens cross between nodes once per node, then spread inside it: groups may not be cut.
  bool two_level_exchange = false;
  // Data ranks must take the same number of micro-batches (ZeRO-3, which gathers together). So
  // they must with pipelines and with experts in any case.
  bool equal_batches = false;
  // The optimiser needs whole matrices (Muon), which tensor axes would cut.
  bool whole_matrices = false;
  ScheduleNeeds schedule = {};
};

struct LayoutQuestion {
  MeshConfig config;
  int64_t ranks = 1;
  ModelFacts model;
  std::string section = "mesh";  // of --set options in texts
  // The option that says how many data ranks there are, where dp_shard is left open for it.
  std::string data_key = "";
};

// A reason against a layout: a key of MeshConfig and the message that follows it.
struct LayoutComplaint {
  std::string key, message;
  std::vector<std::string> with;  // other keys of the run's config that take part, in full
};

// Every reason against the layout. When there is one, the last complaint, of the key "", is
// advice_for(question).
std::vector<LayoutComplaint> check_layout(const LayoutQuestion& question);
// Usage error with all of them, a line each; `placed` makes that line of "mesh.tp = 3 ..." and the
// keys that take part in it.
using PlaceComplaint =
    std::function<std::string(std::string text, const std::vector<std::string>& with)>;
void require_layout(const LayoutQuestion& question, const PlaceComplaint& placed);
bool is_legal(const LayoutQuestion& question);

// All legal layouts of that many ranks, with the question's order and nodes, dp_shard filled in;
// ascending by pp, tp, cp, ep, etp, dp_replicate.
std::vector<MeshConfig> legal_layouts(const LayoutQuestion& question);

// The legal layouts with the smallest sum over the axes of |log(size / asked size)|, at most
// `count`; dp_shard = 0 is near to any. Equal ones: more dp_shard first, then as in legal_layouts.
// None leaves data ranks without a micro-batch, or cuts experts into slices unless the question
// does: it changes what its matrices are.
std::vector<MeshConfig> nearest_layouts(const LayoutQuestion& question, size_t count = 3);

// The options that turn one config into another: "--set mesh.tp=2 --set mesh.pp=4".
std::string options_text(const MeshConfig& from, const MeshConfig& to,
                         std::string_view section = "mesh");

}  // namespace shoestring
