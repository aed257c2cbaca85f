#pragma once
// What one rank does in one training step, as data. A program is a list of instructions; it prints,
// reads back, validates, simulates and runs.
//
// Text form: `<stage><op><micro-batch>`, blank-separated, a line a rank; a pair that runs
// interleaved is joined by `&`: "0F0 0F1 1I0 1W0 0F2&1B1". At the grain of segments `.<segment>`
// follows, and `~` where the part only moves rows between ranks: "1I1.2~ 0F2.0 1I1.1 1W1.1".

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

// F forward, B full backward, I backward for the input, W backward for the weights (B = I and W).
// Between ranks, put in by a pass (parallel/passes.h): SA sends the activation that leaves a stage,
// RA posts the receipt of what enters it, SG sends the gradient of what entered it, RG posts the
// receipt of that of what left it. Posting waits for nothing.
// Between data parallel ranks, put in by another (parallel/sharding_pass.h): G gathers the weights
// of a stage, R lets go of them, S reduces and shares out the gradients that its micro-batches have
// made up to this one.
enum class Do : uint8_t { F, B, I, W, SA, RA, SG, RG, G, R, S };
std::string_view name_of(Do what);
inline bool is_compute(Do what) { return what <= Do::W; }
inline bool is_sharding(Do what) { return what >= Do::G; }
inline bool is_transfer(Do what) { return !is_compute(what) && !is_sharding(what); }
inline bool is_receipt(Do what) { return what == Do::RA || what == Do::RG; }

struct Instruction {
  Do what = Do::F;
  bool with_next : 1 = false;  // interleaved with the instruction that follows
  bool travels : 1 = false;    // a part that moves rows: what follows runs beside it
  int16_t stage = 0;           // contiguous slice of the model, 0 first
  int16_t micro = 0;           // micro-batch of the step, 0 first
  int16_t part = -1;           // the stage's segment that F, I or W is of; -1: all of them

  bool whole() const { return part < 0; }

  bool operator==(const Instruction&) const = default;
};
static_assert(sizeof(Instruction) == 8);
using Program = std::vector<Instruction>;

// What a segment of a stage does (core/layers/decoder_block.h). edge: embedding, head, projection
// of a prediction module. dispatch and combine move rows between ranks and compute nothing.
enum class SegmentKind : uint8_t { edge, attention, mlp, dispatch, experts, combine };
inline constexpr size_t segment_kinds = 6;
std::string_view name_of(SegmentKind kind);
inline bool travels(SegmentKind kind) {
  return kind == SegmentKind::dispatch || kind == SegmentKind::combine;
}
using StageSegments = std::vector<SegmentKind>;  // of a stage, in order of the forward pass
// "attention,dispatch,experts,combine"; a usage error names what is no kind.
StageSegments parse_segments(std::string_view text);

// Which rank holds a stage. `loop`: stage s on rank s mod p. `vee`: two stages a rank, down and
// back up, r and 2p - 1 - r. `both_ways`: every rank holds two stages of a p-stage model, r for the
// first half of the micro-batches, p - 1 - r for the second, which runs the other way (DualPipe).
enum class StageOrder : uint8_t { loop, vee, both_ways };

struct Placement {
  StageOrder order = StageOrder::loop;
  int ranks = 1;
  int chunks = 1;  // stages a rank holds
  int micros = 1;

  int stages() const { return order == StageOrder::both_ways ? ranks : ranks * chunks; }
  int rank_of(int stage, int micro) const;
  // Of a rank's chunks, 0 first: c p + r (loop), r and 2p - 1 - r (vee), r and p - 1 - r (both
  // ways).
  int stage_of(int rank, int chunk) const;
  // The other way round; the rank holds the stage.
  int chunk_of(int rank, int stage) const {
    if (order == StageOrder::loop) return stage / ranks;
    return stage == rank ? 0 : 1;
  }
  // Of a rank's whole share of the model: what a stage costs.
  double share_of_stage() const { return order == StageOrder::both_ways ? 1.0 : 1.0 / chunks; }
};

// Where an instruction stands in the text that it was read from, counted from 1.
struct TextPlace {
  int line = 0, column = 0;
};
using ProgramPlaces = std::vector<TextPlace>;  // of each instruction of a program

struct Schedule {
  std::string name;
  Placement where;
  std::vector<Program> ranks;
  bool transfers = false;                    // the programs say when values go from rank to rank
  std::vector<StageSegments> segments = {};  // of each stage; empty: not told, no parts
  // Of the ranks' programs in the file `name`; empty where they were not read or have changed.
  std::vector<ProgramPlaces> places = {};

  int parts_of(int stage) const {
    return segments.empty() ? 0 : static_cast<int>(segments[static_cast<size_t>(stage)].size());
  }
};

std::string instruction_text(const Instruction& instruction);  // "3I12", "3I12.0"
std::string program_text(const Program& program);
std::string schedule_text(const Schedule& schedule);
// "p.txt:2:17: " of an instruction and "p.txt:2: " of a rank's line, where these are known, else
// "".
std::string place_text(const Schedule& schedule, int rank, size_t number);
std::string line_text(const Schedule& schedule, int rank);
// How complaints begin: "p.txt:2:17: rank 1, 1F3 (number 5): ".
std::string complaint_head(const Schedule& schedule, int rank, size_t number);
// A line a rank; blank lines and what follows `#` are skipped. A usage error names line, column and
// the word. Stages and micro-batches are not compared with a placement here (complaints_of() does
// that). `places`: of the instructions, filled in.
std::vector<Program> parse_programs(std::string_view text, std::string_view name,
                                    std::vector<ProgramPlaces>* places = nullptr);

}  // namespace shoestring
