#include "launcher/generator.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "core/check.h"
#include "core/counted.h"
#include "core/layers/cached_attention.h"
#include "core/text.h"

namespace shoestring {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Gives text out as soon as it cannot become part of a stop string any more.
class TextGate {
 public:
  // The new text goes on with the prompt, if there is one.
  TextGate(const Tokenizer& tokenizer, const std::vector<std::string>& stop, bool has_prompt)
      : decoder_(tokenizer, !has_prompt), stop_(&stop) {}

  // Returns the text that is certain now; sets done() when a stop string was met.
  std::string push(int32_t id) {
    held_ += decoder_.push(id);
    return release();
  }
  std::string finish() {
    if (done_) return "";
    held_ += decoder_.finish();
    std::string rest = release();
    return done_ ? rest : rest + std::exchange(held_, "");
  }
  bool done() const { return done_; }

 private:
  std::string release() {
    size_t keep = 0;
    for (const std::string& s : *stop_) {
      if (size_t at = held_.find(s); at != std::string::npos) {
        done_ = true;
        held_.resize(std::min(at, held_.size()));
      }
    }
    if (done_) return std::exchange(held_, "");
    for (const std::string& s : *stop_) {  // the longest end of the text that begins a stop string
      for (size_t n = std::min(s.size() - 1, held_.size()); n > keep; --n) {
        if (held_.compare(held_.size() - n, n, s, 0, n) == 0) keep = n;
      }
    }
    std::string text = held_.substr(0, held_.size() - keep);
    held_.erase(0, text.size());
    return text;
  }
  StreamDecoder decoder_;
  const std::vector<std::string>* stop_;
  std::string held_;
  bool done_ = false;
};

// One forward pass without a tape; rows of one sequence, or one row of each of several.
class Decoder {
 public:
  Decoder(Stream& stream, const Transformer& model, ParamSource& source, AttentionCore* core)
      : stream_(stream), model_(model), source_(source), core_(core) {}

  // Logits of the last token of one sequence.
  Tensor whole(const std::vector<int32_t>& ids) {
    const auto n = static_cast<int64_t>(ids.size());
    std::vector<int32_t> positions(ids.size());
    std::iota(positions.begin(), positions.end(), 0);
    return run(ids, positions, 1, n, {n - 1});
  }
  // Logits of one new token of each sequence at the given positions.
  Tensor step(const std::vector<int32_t>& ids, const std::vector<int32_t>& positions) {
    std::vector<int64_t> rows(ids.size());
    std::iota(rows.begin(), rows.end(), 0);
    return run(ids, positions, static_cast<int64_t>(ids.size()), 1, rows);
  }

 private:
  Tensor run(const std::vector<int32_t>& ids, const std::vector<int32_t>& positions, int64_t batch,
             int64_t length, const std::vector<int64_t>& rows) {
    const MicroBatch micro{.sequences = batch,
                           .length = length,
                           .tokens = ids,
                           .labels = std::vector<int32_t>(ids.size(), -1),
                           .positions = positions,
                           .first_key = std::vector<int32_t>(ids.size(), 0),
                           .sample_ids = {},
                           .sources = {}};
    const BatchTensors tensors = to_device(stream_.device(), micro);
    Tape tape(stream_, source_, Tape::Mode::inference);
    LayerContext context{.tape = tape, .batch = tensors, .attention = core_};
    return model_.logits(context, model_.run_blocks(context, model_.embed(context)), rows);
  }
  Stream& stream_;
  const Transformer& model_;
  ParamSource& source_;
  AttentionCore* core_;
};

struct Sequence {
  std::vector<int32_t> ids;  // prompt and what was generated
  size_t prompt_tokens = 0;
  Sampler sampler;
  TextGate gate;
  std::string text;
  bool done = false;
};

std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, const GenerateRequest& request,
                                   const std::string& prompt) {
  std::vector<int32_t> ids = tokenizer.encode(prompt);
  const std::vector<int32_t>& begin = request.begin_ids;
  const bool there =
      ids.size() >= begin.size() && std::equal(begin.begin(), begin.end(), ids.begin());
  if (!there) ids.insert(ids.begin(), begin.begin(), begin.end());
  if (!ids.empty()) return ids;
  if (!tokenizer.end_of_text_id()) {
    fail_usage("an empty prompt needs a tokenizer with an end-of-text token; give a prompt");
  }
  return {*tokenizer.end_of_text_id()};
}

std::vector<Sequence> encode_prompts(const Tokenizer& tokenizer, const GenerateRequest& request,
                                     const ModelConfig& model) {
  if (request.max_tokens < 0) {
    fail_usage(cat("--max-tokens must be at least 0 but is ", request.max_tokens));
  }
  if (std::find(request.stop.begin(), request.stop.end(), "") != request.stop.end()) {
    fail_usage("--stop is empty, and every text would end before it began; leave it out");
  }
  std::vector<Sequence> list;
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    std::vector<int32_t> ids = encode_prompt(tokenizer, request, request.prompts[i]);
    if (request.max_tokens > model.max_positions - static_cast<int64_t>(ids.size())) {
      fail_usage(cat("prompt ", i, " has ", counted(static_cast<int64_t>(ids.size()), "token"),
                     " and ", request.max_tokens, " are wanted, but the model has ",
                     model.max_positions, " positions; shorten the prompt or --max-tokens"));
    }
    list.push_back({.ids = ids,
                    .prompt_tokens = ids.size(),
                    .sampler = Sampler(request.sampler, i),
                    .gate = TextGate(tokenizer, request.stop, !request.prompts[i].empty()),
                    .text = {}});
  }
  return list;
}

bool ends_text(int32_t id, const Tokenizer& tokenizer, const GenerateRequest& request) {
  const std::vector<int64_t>& ends = request.end_ids;
  return tokenizer.end_of_text_id() == id || tokenizer.eos_id() == id ||
         std::find(ends.begin(), ends.end(), id) != ends.end();
}

// Takes the next token of one sequence and hands out its text.
void advance(Sequence& s, size_t index, std::span<const float> logits, const Tokenizer& tokenizer,
             const GenerateRequest& request) {
  const int32_t id = s.sampler.next(logits, s.ids);
  if (ends_text(id, tokenizer, request)) {
    s.done = true;
  } else {
    s.ids.push_back(id);
    const std::string piece = s.gate.push(id);
    s.text += piece;
    if (request.on_text && !piece.empty()) request.on_text(index, piece);
    s.done =
        s.gate.done() || static_cast<int64_t>(s.ids.size() - s.prompt_tokens) >= request.max_tokens;
  }
  if (!s.done) return;
  const std::string rest = s.gate.finish();
  s.text += rest;
  if (request.on_text && !rest.empty()) request.on_text(index, rest);
  if (request.on_end) request.on_end(index);
}

// Embedding rows beyond the tokenizer's ids are padding and are never chosen.
std::span<const float> row_of(const Tensor& logits, size_t row, const Tokenizer& tokenizer) {
  const auto columns = std::min<int64_t>(logits.columns(), tokenizer.vocabulary_size());
  return {logits.data<float>() + static_cast<int64_t>(row) * logits.columns(),
          static_cast<size_t>(columns)};
}

}  // namespace

GenerateResult generate(Stream& stream, const Transformer& model, ParamSource& source,
                        const Tokenizer& tokenizer, const GenerateRequest& request) {
  std::vector<Sequence> sequences = encode_prompts(tokenizer, request, model.config());
  int64_t longest = 0;
  for (const Sequence& s : sequences) {
    longest = std::max(longest, static_cast<int64_t>(s.ids.size()) + request.max_tokens);
  }
  CachedAttention cache(stream.device(), model.config().layers,
                        static_cast<int64_t>(sequences.size()), longest);
  Decoder decoder(stream, model, source, request.cached ? &cache : nullptr);
  GenerateResult result;
  auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < sequences.size(); ++i) {
    cache.prefill(static_cast<int64_t>(i));
    const Tensor logits = decoder.whole(sequences[i].ids);
    if (request.max_tokens > 0) {
      advance(sequences[i], i, row_of(logits, 0, tokenizer), tokenizer, request);
    }
  }
  result.prefill_seconds = seconds_since(start);
  start = std::chrono::steady_clock::now();
  while (request.max_tokens > 0) {
    std::vector<int64_t> active;
    std::vector<int32_t> ids, positions;
    for (size_t i = 0; i < sequences.size(); ++i) {
      if (sequences[i].done) continue;
      active.push_back(static_cast<int64_t>(i));
      ids.push_back(sequences[i].ids.back());
      positions.push_back(static_cast<int32_t>(sequences[i].ids.size()) - 1);
    }
    if (active.empty() || (request.stop_early && request.stop_early())) break;
    if (request.cached) {
      cache.decode(active);
      const Tensor logits = decoder.step(ids, positions);
      for (size_t r = 0; r < active.size(); ++r) {
        const auto i = static_cast<size_t>(active[r]);
        advance(sequences[i], i, row_of(logits, r, tokenizer), tokenizer, request);
      }
    } else {
      for (int64_t i : active) {
        Sequence& s = sequences[static_cast<size_t>(i)];
        const Tensor logits = decoder.whole(s.ids);
        advance(s, static_cast<size_t>(i), row_of(logits, 0, tokenizer), tokenizer, request);
      }
    }
  }
  result.decode_seconds = seconds_since(start);
  for (Sequence& s : sequences) {
    result.ids.emplace_back(s.ids.begin() + static_cast<std::ptrdiff_t>(s.prompt_tokens),
                            s.ids.end());
    result.tokens += static_cast<int64_t>(result.ids.back().size());
    result.texts.push_back(std::move(s.text));
  }
  return result;
}

}  // namespace shoestring
