#include "io/loader.h"

#include <algorithm>
#include <limits>

#include "core/check.h"
#include "core/counted.h"
#include "core/random.h"
#include "core/text.h"
#include "io/permutation.h"

namespace shoestring {
namespace {

constexpr int64_t kOpenEnd = std::numeric_limits<int64_t>::max();

MicroBatch empty_micro_batch(int64_t sequences, int64_t length) {
  if (sequences < 1 || length < 1) {
    fail_usage(cat("a micro-batch of ", counted(sequences, "sequence"), " of ",
                   counted(length, "token"), " is empty"));
  }
  MicroBatch out;
  out.sequences = sequences;
  out.length = length;
  const size_t tokens = static_cast<size_t>(sequences * length);
  for (auto* values : {&out.tokens, &out.labels, &out.positions, &out.first_key}) {
    values->reserve(tokens);
  }
  return out;
}

}  // namespace

TokenStores open_sources(const LoaderConfig& config) {
  TokenStores stores;
  for (const SourceConfig& source : config.sources) {
    stores.push_back(TokenStore::open(source.path));
    require_tokenizer(*stores.back(), stores.front()->facts().tokenizer_hash,
                      cat("the one of ", stores.front()->path()));
  }
  return stores;
}

Loader::Loader(const LoaderConfig& config, TokenStores stores, std::vector<LoadSegment> segments,
               uint64_t seed)
    : schedule_(std::move(segments)), cross_document_attention_(config.cross_document_attention) {
  for (const LoadSegment& segment : schedule_.segments()) {
    longest_ = std::max(longest_, segment.length);
  }
  add_sources(config, std::move(stores), seed);
  check_sizes();
  add_stages(config);
}

void Loader::add_sources(const LoaderConfig& config, TokenStores stores, uint64_t seed) {
  if (stores.empty()) {
    fail_usage("there is no token store to train on; add a [[data.sources]] with a path");
  }
  if (stores.size() != config.sources.size()) {
    fail(cat(config.sources.size(), " sources are configured, ", stores.size(), " are open"));
  }
  for (size_t i = 0; i < stores.size(); ++i) {
    const SourceConfig& from = config.sources[i];
    const double held_out = from.held_out.value_or(config.held_out);
    sources_.push_back({.name = from.label(),
                        .train = DocumentStream(stores[i], Split::train, held_out),
                        .held_out = DocumentStream(stores[i], Split::held_out, held_out),
                        .key = combine_keys(seed, hash_name(from.label()))});
    Source& source = sources_.back();
    source.blocks = std::max<int64_t>(0, (source.train.tokens() - 1) / longest_);
  }
}

void Loader::check_sizes() const {
  for (size_t i = 0; i < schedule_.segments().size(); ++i) {
    const LoadSegment& segment = schedule_.segments()[i];
    if (longest_ % segment.length != 0) {
      fail_usage(cat("stage ", i, " has sequences of ", segment.length,
                     " tokens, which do not divide the longest ones of ", longest_));
    }
    if (!segment.weights.empty() && segment.weights.size() != sources_.size()) {
      fail_usage(cat("stage ", i, " has ",
                     counted(static_cast<int64_t>(segment.weights.size()), "weight"), " for ",
                     counted(static_cast<int64_t>(sources_.size()), "source"), ""));
    }
  }
}

void Loader::add_stages(const LoaderConfig& config) {
  const auto& segments = schedule_.segments();
  const auto weights = [&](const LoadSegment& segment) {
    if (!segment.weights.empty()) return segment.weights;
    std::vector<double> out;
    for (const SourceConfig& source : config.sources) out.push_back(source.weight);
    return out;
  };
  std::vector<int64_t> next(sources_.size(), 0);
  for (size_t i = 0; i < segments.size(); ++i) {
    const int64_t first = schedule_.first_sample(static_cast<int64_t>(i));
    const bool same = i > 0 && segments[i].length == segments[i - 1].length &&
                      weights(segments[i]) == weights(segments[i - 1]);
    if (same) continue;
    if (!stages_.empty()) {
      Stage& before = stages_.back();
      const std::vector<int64_t> counts = before.mixture.counts(first - before.first_sample);
      const int64_t rows = longest_ / before.length;  // a block
      for (size_t s = 0; s < next.size(); ++s) {
        next[s] += (counts[s] + rows - 1) / rows;
        before.end_block[s] = next[s];
      }
    }
    stages_.push_back({.first_sample = first,
                       .length = segments[i].length,
                       .mixture = Mixture(weights(segments[i])),
                       .first_block = next,
                       .end_block = std::vector<int64_t>(next.size(), kOpenEnd)});
    for (size_t s = 0; s < sources_.size(); ++s) {
      if (sources_[s].blocks == 0 && stages_.back().mixture.share(static_cast<int64_t>(s)) > 0) {
        fail_usage(cat("source \"", sources_[s].name, "\" has ",
                       counted(sources_[s].train.tokens(), "token"),
                       " to train on, too few for a row of ", longest_,
                       " + 1; use a shorter sequence length, less held_out or more text"));
      }
    }
  }
}

const Loader::Stage& Loader::stage_of(int64_t sample) const {
  size_t i = stages_.size() - 1;
  while (i > 0 && stages_[i].first_sample > sample) --i;
  return stages_[i];
}

int64_t Loader::block_start(int64_t source, int64_t block) const {
  const Source& from = at(source);
  const uint64_t epoch = static_cast<uint64_t>(block / from.blocks);
  const uint64_t key = combine_keys(from.key, epoch);
  const Permutation order(key, static_cast<uint64_t>(from.blocks));
  const int64_t remainder = from.train.tokens() - 1 - from.blocks * longest_;
  const int64_t shift =
      static_cast<int64_t>(combine_keys(key, 0x73686966) % static_cast<uint64_t>(remainder + 1));
  return static_cast<int64_t>(order(static_cast<uint64_t>(block % from.blocks))) * longest_ + shift;
}

Loader::Place Loader::place(const Stage& stage, int64_t sample) const {
  const Mixture::Draw draw = stage.mixture.draw(sample - stage.first_sample);
  if (stage.length != longest_) return place_part(stage, draw);
  const int64_t block = stage.first_block[static_cast<size_t>(draw.source)] + draw.index;
  return {draw.source, block_start(draw.source, block)};
}

Loader::Place Loader::place_part(const Stage& stage, const Mixture::Draw& draw) const {
  // The stage's blocks [begin, end) fall into epochs; its rows are shuffled within each of them.
  const int64_t blocks = at(draw.source).blocks;
  const int64_t rows = longest_ / stage.length;
  const int64_t begin = stage.first_block[static_cast<size_t>(draw.source)];
  const int64_t end = stage.end_block[static_cast<size_t>(draw.source)];
  // As if the stage had begun with its first epoch: `index` counts rows from there.
  const int64_t skipped = begin % blocks * rows;
  const int64_t index = draw.index + skipped;
  const int64_t epoch = begin / blocks + index / (blocks * rows);
  const int64_t low = std::max(begin, epoch * blocks);
  const int64_t high = std::min(end, (epoch + 1) * blocks);
  const int64_t within = index + (begin / blocks) * blocks * rows - low * rows;
  const uint64_t key = combine_keys(at(draw.source).key ^ static_cast<uint64_t>(stage.length),
                                    static_cast<uint64_t>(low));
  const Permutation order(key, static_cast<uint64_t>((high - low) * rows));
  const int64_t row = static_cast<int64_t>(order(static_cast<uint64_t>(within)));
  return {draw.source, block_start(draw.source, low + row / rows) + row % rows * stage.length};
}

namespace {

// Documents with an end mark begin with the mark of the one before: it predicts their first token,
// as an empty prompt does later, and is itself the last label of its own document.
bool marked(const DocumentStream& stream) { return stream.store().facts().end_of_document >= 0; }

// Where the inputs of a document begin in the stream. One more document begins at the last mark.
int64_t input_start(const DocumentStream& stream, int64_t document) {
  if (document <= 0) return 0;
  if (document > stream.documents()) return stream.tokens();
  return stream.document_start(document) - (marked(stream) ? 1 : 0);
}

}  // namespace

void Loader::add_row(MicroBatch& to, const DocumentStream& stream, int64_t first_token) const {
  const int64_t S = to.length;
  const int64_t have = std::min(S, stream.tokens() - first_token);
  const int64_t read = std::min(S + 1, stream.tokens() - first_token);
  std::vector<int32_t> ids(static_cast<size_t>(S + 1), 0);
  stream.read(first_token, read, ids.data());
  int64_t document = stream.document_at(first_token);
  if (input_start(stream, document + 1) == first_token) ++document;
  int64_t column = 0;
  while (column < have) {
    const int64_t end = input_start(stream, document + 1) - first_token;
    const int64_t last = marked(stream) ? read : end;  // what a label must lie before
    for (int64_t i = column; i < std::min(end, have); ++i) {
      const bool labelled = i + 1 < last;
      const int64_t start = cross_document_attention_ ? 0 : column;
      to.tokens.push_back(ids[static_cast<size_t>(i)]);
      to.labels.push_back(labelled ? ids[static_cast<size_t>(i + 1)] : -1);
      to.positions.push_back(static_cast<int32_t>(i - start));
      to.first_key.push_back(static_cast<int32_t>(start));
      to.document_start.push_back(static_cast<int32_t>(column));
      to.valid_labels += labelled ? 1 : 0;
    }
    column = std::min(end, have);
    ++document;
  }
  for (int64_t i = have; i < S; ++i) {  // only the last row of an evaluation
    to.tokens.push_back(0);
    to.labels.push_back(-1);
    to.positions.push_back(static_cast<int32_t>(i - have));
    to.first_key.push_back(static_cast<int32_t>(have));
    to.document_start.push_back(static_cast<int32_t>(have));
  }
}

MicroBatch Loader::micro_batch(int64_t first_sample, int64_t sequences) const {
  if (first_sample < 0) fail(cat("there is no sample ", first_sample));
  const Stage& stage = stage_of(first_sample);
  MicroBatch out = empty_micro_batch(sequences, stage.length);
  if (&stage_of(first_sample + sequences - 1) != &stage) {
    fail(cat("samples ", first_sample, " to ", first_sample + sequences, " lie in two stages"));
  }
  for (int64_t n = first_sample; n < first_sample + sequences; ++n) {
    const Place from = place(stage, n);
    add_row(out, at(from.source).train, from.first_token);
    out.sample_ids.push_back(static_cast<uint64_t>(n));
    out.sources.push_back(static_cast<int32_t>(from.source));
  }
  return out;
}

int64_t Loader::valid_labels(int64_t first_sample, int64_t sequences) const {
  const Stage& stage = stage_of(first_sample);
  int64_t count = 0;
  for (int64_t n = first_sample; n < first_sample + sequences; ++n) {
    const Place from = place(stage, n);
    const DocumentStream& stream = at(from.source).train;
    const int64_t end = from.first_token + stage.length;
    const int64_t without = marked(stream) ? (end < stream.tokens() ? 0 : 1)
                                           : stream.starts_within(from.first_token, end);
    count += stage.length - without;
  }
  return count;
}

Batch Loader::batch(int64_t step, int64_t dp_rank, int64_t dp_size) const {
  if (dp_size < 1 || dp_rank < 0 || dp_rank >= dp_size) {
    fail(cat("there is no data-parallel rank ", dp_rank, " of ", dp_size));
  }
  const StepShape shape = schedule_.at(step);
  Batch out;
  out.step = step;
  out.global_micro_batches = shape.micro_batches;
  out.global_tokens = shape.tokens();
  for (int64_t g = 0; g < shape.micro_batches; ++g) {
    const int64_t first = shape.first_sample + g * shape.sequences;
    if (g % dp_size != dp_rank) {
      out.global_valid_labels += valid_labels(first, shape.sequences);
      continue;
    }
    out.global_indices.push_back(g);
    out.micro.push_back(micro_batch(first, shape.sequences));
    out.global_valid_labels += out.micro.back().valid_labels;
  }
  return out;
}

void Loader::prefetch(int64_t step, int64_t dp_rank, int64_t dp_size) const {
  const StepShape shape = schedule_.at(step);
  for (int64_t g = dp_rank; g < shape.micro_batches; g += dp_size) {
    for (int64_t i = 0; i < shape.sequences; ++i) {
      const int64_t sample = shape.first_sample + g * shape.sequences + i;
      const Place from = place(stage_of(sample), sample);
      at(from.source).train.prefetch(from.first_token, shape.length + 1);
    }
  }
}

std::vector<int64_t> Loader::tokens_drawn(int64_t samples) const {
  std::vector<int64_t> out(sources_.size(), 0);
  for (size_t i = 0; i < stages_.size() && stages_[i].first_sample < samples; ++i) {
    const Stage& stage = stages_[i];
    const int64_t end =
        i + 1 < stages_.size() ? std::min(samples, stages_[i + 1].first_sample) : samples;
    const std::vector<int64_t> counts = stage.mixture.counts(end - stage.first_sample);
    for (size_t s = 0; s < out.size(); ++s) out[s] += counts[s] * stage.length;
  }
  return out;
}

std::vector<double> Loader::epochs(int64_t samples) const {
  const Stage& stage = stage_of(samples);
  const std::vector<int64_t> counts = stage.mixture.counts(samples - stage.first_sample);
  std::vector<double> out;
  for (size_t s = 0; s < sources_.size(); ++s) {
    const double blocks =
        static_cast<double>(stage.first_block[s]) +
        static_cast<double>(counts[s] * stage.length) / static_cast<double>(longest_);
    out.push_back(sources_[s].blocks == 0 ? 0 : blocks / static_cast<double>(sources_[s].blocks));
  }
  return out;
}

int64_t Loader::eval_rows(int64_t source, int64_t length) const {
  const int64_t labels = at(source).held_out.tokens() - 1;
  return labels < 1 ? 0 : (labels + length - 1) / length;
}

MicroBatch Loader::eval_micro_batch(int64_t source, int64_t first_row, int64_t sequences,
                                    int64_t length) const {
  MicroBatch out = empty_micro_batch(sequences, length);
  if (first_row < 0 || first_row + sequences > eval_rows(source, length)) {
    fail(cat("rows ", first_row, " to ", first_row + sequences, " of ", eval_rows(source, length),
             " held-out rows of \"", source_name(source), "\""));
  }
  for (int64_t row = first_row; row < first_row + sequences; ++row) {
    add_row(out, at(source).held_out, row * length);
    out.sample_ids.push_back(static_cast<uint64_t>(row));
    out.sources.push_back(static_cast<int32_t>(source));
  }
  return out;
}

}  // namespace shoestring
