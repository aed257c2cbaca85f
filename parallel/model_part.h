#pragma once
// One rank's part of a model on a mesh: which stages, heads, columns and experts it holds, and what
// stands in the seams of core/ on all axes at once (docs/mesh.md).

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/model/parameters.h"
#include "parallel/context_all_to_all.h"
#include "parallel/context_cut.h"
#include "parallel/context_ring.h"
#include "parallel/expert_exchange.h"
#include "parallel/instruction.h"
#include "parallel/mesh_communicators.h"
#include "parallel/mesh_layouts.h"
#include "parallel/sequence_edges.h"
#include "parallel/stage_sharding.h"
#include "parallel/tensor_parallel.h"

namespace shoestring {

struct PartConfig {
  MeshConfig mesh;
  std::string schedule = "1f1b";     // parallel/schedules/catalogue.h; where pp > 1
  int chunks = 0;                    // stages of a rank in interleaved-1f1b; 0: its own default
  std::vector<int64_t> blocks = {};  // of each stage; empty: as even as it goes
  ContextKind context = ContextKind::ring;
  int tensor_chunks = 0;  // of tensor parallelism (parallel/row_transfers.h)
  bool overlap = false;   // passes in pairs, and in parts where experts' rows travel
  // Experts' rows (parallel/expert_plan.h): as many as the layers' capacity lets through, and sums
  // of outputs inside nodes.
  bool fixed_rows = false, sum_in_nodes = false;
};

// Ranks that hold the same parameters and other tokens, in the order of their micro-batches: their
// gradients are summed.
struct Replicas {
  // With mesh.dp_replicate: the ranks that share their state out, and those with equal shares.
  // Else all, and null.
  std::unique_ptr<Communicator> shard, replicate;
  int data_ranks = 1, data_rank = 0;  // micro-batches that all of them run at once, and this rank's

  int ranks() const { return shard->size() * (replicate ? replicate->size() : 1); }
};

// The order of one step of `micros` micro-batches on each data rank, without transfers; with
// `overlap` it has pairs, which are whole (parallel/segment_passes.h).
Schedule schedule_of(const PartConfig& config, int micros);
// Where its stages stand; of one micro-batch.
Placement placement_of(const PartConfig& config);

// How a pipeline's first and last stage share the embedding's matrix, where a rank of these stages
// (ascending) has it.
SharedBy embedding_sharing(const ModelConfig& model, const Placement& where,
                           const std::vector<int>& stages);

class ModelPart {
 public:
  // All ranks of `world`, which outlives this, construct at once. Blocks. Sizes that do not fit are
  // a usage error (parallel/mesh_layouts.h finds them before, all at once).
  ModelPart(const ModelConfig& model, const PartConfig& config, Communicator& world,
            Device& device);

  const ModelConfig& model() const { return model_; }
  const PartConfig& config() const { return config_; }
  const Mesh& mesh() const { return mesh_; }
  int rank() const { return rank_; }
  const MeshPlace& place() const { return mesh_.place(rank_); }
  Communicator& group(MeshGroup g) const { return groups_[g]; }

  // Data ranks: micro-batch g of a step belongs to data rank g % data_ranks().
  int data_rank() const { return mesh_.dp_index(rank_); }
  int data_ranks() const { return mesh_.size(MeshGroup::dp); }

  const Placement& where() const { return where_; }  // its `micros` mean nothing
  const std::vector<Chunk>& chunks() const { return chunks_; }
  const std::vector<int>& stages() const { return stages_; }  // of this rank, ascending

  // What this rank holds: an embedding that stages share, dense parameters by stage, then routed
  // experts by stage.
  const std::vector<ParamInfo>& parameters() const { return parameters_; }
  size_t dense_parameters() const { return dense_; }  // how many stand before the experts
  SharedBy embedding_sharing() const {
    return shoestring::embedding_sharing(model_, where_, stages_);
  }
  // All ranks call the next two in the same order, each for any of its stages. Blocks.
  // Of a stage's dense parameters (experts), with its copies where a schedule has them.
  // `takes_part` false: another rank needs this call.
  Replicas split_replicas(int stage, bool experts, bool takes_part = true) const;
  // The two ranks of embedding_sharing() ends and mirrored; else null.
  std::unique_ptr<Communicator> split_sharers() const;
  // All ranks that see tokens of the same stages: for counts of tokens while a step is under way.
  Communicator& statistics() const { return *statistics_; }
  TensorParallel& tensor() { return *tensor_; }
  // Of a stage's layers; valid until the next call of begin_micro_batch().
  Boundaries boundaries() const;
  AttentionCore* attention() const;  // null: all tokens are here
  TokenExchange* experts() const { return exchange_.get(); }
  ExpertExchange* exchange() const { return exchange_.get(); }
  // Experts' rows of passes on this stream take communicators of their own, so that they may travel
  // beside those of other passes. Null: nobody's. Needs config().overlap.
  void set_backward_stream(const Stream* stream) { backward_ = stream; }

  // This rank's tokens of a micro-batch, and what the edges need to know of it.
  MicroBatch cut(const MicroBatch& whole) const;
  void begin_micro_batch(int64_t sequences);
  // Rows of the residual stream of a cut micro-batch.
  int64_t rows_of(const BatchTensors& batch) const;

  // Elements of a parameter of this rank, relative to its first, that no other rank counts: for
  // norms, and for who writes what. Replicas share these out.
  std::vector<FlatRange> counted(const ParamInfo& info) const;
  // Whether the figures of a whole sequence (a router's) are this rank's to tell; its ranks have
  // the same ones.
  bool tells_sequences() const { return place()[MeshAxis::tp] == 0 && place()[MeshAxis::cp] == 0; }
  // Whether the loss is.
  bool tells_losses() const { return place()[MeshAxis::tp] == 0; }

 private:
  void list_parameters();
  void make_experts(Communicator& world);
  Communicator* for_both_passes(Communicator* usual, std::unique_ptr<Communicator> other);
  void make_context(Communicator& world, Device& device);

  ModelConfig model_;
  PartConfig config_;
  Communicator& world_;
  Mesh mesh_;
  int rank_;
  MeshCommunicators groups_;
  Placement where_;
  bool both_ways_ = false;
  std::vector<Chunk> chunks_;
  std::vector<int> stages_;
  std::vector<ParamInfo> parameters_;
  size_t dense_ = 0;
  std::unique_ptr<Communicator> statistics_, ring_;
  std::unique_ptr<TensorParallel> tensor_;
  std::unique_ptr<SequenceEdges> sequences_;
  std::unique_ptr<RingAttention> ring_attention_;
  std::unique_ptr<AllToAllAttention> all_to_all_;
  NodeCommunicators expert_nodes_;
  std::unique_ptr<Communicator> slices_;  // of the same experts; null: they are whole
  std::vector<std::unique_ptr<Communicator>> both_passes_;  // and the backward passes' own
  const Stream* backward_ = nullptr;
  std::unique_ptr<ExpertExchange> exchange_;
};

}  // namespace shoestring
