#pragma once
// A model's stages as the work of a pipeline rank: each stage a chunk of blocks, each of its
// micro-batches a tape.

#include <functional>
#include <memory>
#include <vector>

#include "core/model/transformer.h"
#include "parallel/activation_offload.h"
#include "parallel/parted_source.h"
#include "parallel/pipeline_engine.h"
#include "parallel/stage_segments.h"
#include "parallel/stage_sharding.h"

namespace shoestring {

// Blocks of each stage, embedding and head counted as nothing: as even as it goes, the first
// stages get what is left over. A usage error where there are more stages than blocks.
std::vector<int64_t> even_split(const ModelConfig& model, int stages);

// Which stages a rank holds, by chunk of the placement, and their parameters, each once.
std::vector<int> stages_of(const Placement& where, int rank);
std::vector<ParamInfo> parameters_of(const ModelConfig& model, const std::vector<Chunk>& chunks,
                                     const std::vector<int>& stages);

// What a micro-batch left at the last stage.
struct StageResult {
  HeadLoss::Result main;
  std::vector<PredictionResult> predictions;
};

struct ModelStagesOptions {
  Recompute recompute = Recompute::none;
  const Fp8Plan* fp8 = nullptr;
  bool exact = false;
  double z_loss = 0;
  AttentionCore* attention = nullptr;  // the seams of core/seams.h
  TokenExchange* tokens = nullptr;
  std::map<std::string, std::shared_ptr<ExpertLoad>>* loads = nullptr;
  bool predictions = true;  // whether prediction modules take part
  // Data parallel ranks: sums of gradients, and where the parameters are. Null: `source` has them.
  StageSharding* sharding = nullptr;
  // Activations of stages that are not the last wait there for their backward pass. Copies run on
  // the second.
  Device* host = nullptr;
  Stream* copies = nullptr;
  // Called in front of every forward pass, and behind it: for the statistics and figures that the
  // tape was told.
  using Hook = std::function<void(Tape& tape, int stage, int micro)>;
  Hook forward_begins = nullptr, forward_done = nullptr;
  // In front of every instruction, and behind it; of a pass in parts, of each while it computes.
  std::function<void(const Instruction&instruction)> begins = nullptr, ends = nullptr;
};

// Which stages, of which model; all outlive the work.
struct StagePlan {
  const ModelConfig& model;
  const std::vector<Chunk>& chunks;  // of every stage of the model (core/model/parameters.h, cut)
  const Placement& where;
  int rank = 0;
  Boundaries boundaries = {};
  // Ranks that share out the rows of the residual stream (core/model/boundaries.h).
  int row_ranks = 1;
};

class ModelStages : public StageWork {
 public:
  // `store` has this rank's parameters_of, and outlives the work as `source` and `compute` do.
  ModelStages(const StagePlan& plan, ParamStore& store, ParamSource& source, Stream& compute,
              ModelStagesOptions options);

  // The step's micro-batches, by their number in the schedule. Each seeds its gradients with
  // `loss_scale` (1 / the valid labels of the whole step).
  void begin(std::vector<BatchTensors> micros, double loss_scale, std::vector<double> shares);
  // One stage's forward pass of a micro-batch without recording; the last stage's loss goes to
  // `result`.
  Tensor evaluate(int stage, const BatchTensors& batch, const Tensor& input, StageResult& result);
  // By micro-batch; where the last stage is.
  const std::vector<StageResult>& results() const { return results_; }
  Transformer& stage(int stage) { return *held(stage).model; }

  Boundary boundary(int stage, int micro) override;
  Tensor forward(int stage, int micro, const Tensor& input) override;
  Tensor backward_input(int stage, int micro, const Tensor& gradient) override;
  void backward_weight(int stage, int micro) override;
  Tensor backward(int stage, int micro, const Tensor& gradient) override;
  void forward_parts(int stage, int micro, const Tensor& input, PartGate& gate) override;
  void backward_parts(int stage, int micro, const Tensor& gradient, PartGate& gate) override;
  void expect_gradient(int stage, int micro) override;
  void gather_weights(int stage, int micro) override;
  void release_weights(int stage, int micro) override;
  void reduce_gradients(int stage, int micro) override;

 private:
  // One (stage, micro-batch) between its instructions.
  struct Run {
    std::unique_ptr<ParamSource> source;         // of this micro-batch, if it has one of its own
    std::unique_ptr<ActivationOffload> offload;  // before it
    std::unique_ptr<PartedSource> parted;        // before both, of a forward pass in parts
    std::unique_ptr<Tape> tape;
    Value input, output;
  };
  struct Held {
    int stage = 0;
    StageSegments segments;
    std::unique_ptr<Transformer> model;
    std::vector<Run> runs;  // by micro-batch
  };
  class Running;
  class ToldGate;
  void make_tape(Held& held, int micro, Stream& stream, PartGate* gate);
  Held& held(int stage);
  Residual run_blocks(const Held& h, LayerContext& context, const Value& input) const;
  bool is_last(int stage) const { return stage + 1 == stages_; }
  Run& seeded(int stage, int micro, const Tensor& gradient);
  // On a tape that is ready.
  Tensor run_forward(Held& held, size_t micro, const Tensor& input);

  const ModelConfig& config_;
  int stages_, row_ranks_;
  ParamStore& store_;
  ParamSource& source_;
  Stream& compute_;
  ModelStagesOptions options_;
  std::vector<Held> held_;
  std::vector<BatchTensors> micros_;
  std::vector<double> shares_;
  std::vector<StageResult> results_;
  double loss_scale_ = 1;
};

}  // namespace shoestring
