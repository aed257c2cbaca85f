#pragma once
// From token stores to batches. batch(step, rank, size) is a pure function of (stores, config,
// seed, step): any rank can make any batch at any time, in any order, and the rows of a step are
// the same for every number of ranks. The whole state of the loader is the number of samples taken
// before a step (StepShape::first_sample).
//
// From sample to row. Sample n of the run lies in a data stage (neighbouring segments of the batch
// schedule with the same length and mixture are one stage). The stage's Mixture gives its source
// and how many samples of the stage that source gave before (j). The source's training documents
// are one stream of T tokens, cut into blocks of L + 1 tokens that overlap by one, L being the
// longest sequence length of the run: N = (T - 1) / L blocks an epoch, shifted by a random part of
// the remainder; what the remainder leaves out differs from epoch to epoch. An epoch is a keyed
// permutation of the blocks. With length S = L a row is a block; a stage with S < L takes L / S
// rows from each block (S must divide L), in an order shuffled over all the blocks that the stage
// takes from that epoch.
//
// Changing stages: a source's blocks are taken in one order through all stages. A stage starts with
// the first block that no earlier stage has touched, so nothing is repeated within an epoch; per
// source and change of stage at most part of one block is left out. The last stage has no end; when
// a stage with S < L is added behind it later, the earlier stage's order of rows changes: declare
// all stages from the start.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/batch.h"
#include "io/batch_schedule.h"
#include "io/document_stream.h"
#include "io/loader_config.h"
#include "io/mixture.h"
#include "io/token_store.h"

namespace shoestring {

using TokenStores = std::vector<std::shared_ptr<const TokenStore>>;

// Opens the stores of all sources, in order; data error when two of them were packed with
// different tokenizers.
TokenStores open_sources(const LoaderConfig& config);

class Loader {
 public:
  // Usage error for impossible sizes: a length that does not divide the longest one, a source with
  // fewer tokens than one row, weights that do not fit the sources.
  Loader(const LoaderConfig& config, TokenStores stores, std::vector<LoadSegment> segments,
         uint64_t seed);

  // This rank's part of a step: micro-batch g of the step belongs to rank g % dp_size. A rank has
  // none when there are more ranks than micro-batches. global_valid_labels counts all ranks' labels
  // without reading their tokens.
  Batch batch(int64_t step, int64_t dp_rank, int64_t dp_size) const;
  // Samples [first_sample, first_sample + sequences), all of one stage.
  MicroBatch micro_batch(int64_t first_sample, int64_t sequences) const;
  int64_t valid_labels(int64_t first_sample, int64_t sequences) const;
  // Asks the system to read a rank's part of a step ahead.
  void prefetch(int64_t step, int64_t dp_rank, int64_t dp_size) const;

  const BatchSchedule& schedule() const { return schedule_; }
  int64_t sources() const { return static_cast<int64_t>(sources_.size()); }
  const std::string& source_name(int64_t source) const { return at(source).name; }
  const DocumentStream& train_stream(int64_t source) const { return at(source).train; }
  // Tokens of each source in samples [0, samples).
  std::vector<int64_t> tokens_drawn(int64_t samples) const;
  // Epochs of each source that samples [0, samples) use up.
  std::vector<double> epochs(int64_t samples) const;

  // Held-out documents of a source, in the order of the store: rows of `length` tokens that
  // together hold every label once. The last row is filled up with tokens that have no label.
  const DocumentStream& held_out_stream(int64_t source) const { return at(source).held_out; }
  int64_t eval_rows(int64_t source, int64_t length) const;
  MicroBatch eval_micro_batch(int64_t source, int64_t first_row, int64_t sequences,
                              int64_t length) const;

 private:
  struct Source {
    std::string name;
    DocumentStream train, held_out;
    int64_t blocks = 0;  // N, an epoch
    uint64_t key = 0;
  };
  struct Stage {
    int64_t first_sample = 0, length = 0;
    Mixture mixture;
    std::vector<int64_t> first_block;  // per source: blocks taken before, over all epochs
    std::vector<int64_t> end_block;    // per source: INT64_MAX in the last stage
  };
  struct Place {
    int64_t source = 0;
    int64_t first_token = 0;  // in the source's training stream
  };
  const Source& at(int64_t source) const { return sources_[static_cast<size_t>(source)]; }
  void add_sources(const LoaderConfig& config, TokenStores stores, uint64_t seed);
  void add_stages(const LoaderConfig& config);
  void check_sizes() const;
  const Stage& stage_of(int64_t sample) const;
  Place place(const Stage& stage, int64_t sample) const;
  Place place_part(const Stage& stage, const Mixture::Draw& draw) const;
  int64_t block_start(int64_t source, int64_t block) const;
  void add_row(MicroBatch& to, const DocumentStream& stream, int64_t first_token) const;

  BatchSchedule schedule_;
  bool cross_document_attention_;
  int64_t longest_ = 0;  // L
  std::vector<Source> sources_;
  std::vector<Stage> stages_;
};

}  // namespace shoestring
