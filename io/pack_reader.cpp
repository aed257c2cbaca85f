#include "io/pack_reader.h"

#include <xxhash.h>

#include <utility>

#include "core/check.h"
#include "core/counted.h"
#include "core/log.h"
#include "core/text.h"

namespace shoestring {
namespace {

constexpr size_t kWorkBytes = 256 << 10;  // of text, that go to an encoder at once

}  // namespace

void PackReader::HashDeleter::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

PackReader::PackReader(const PackOptions& options, const std::vector<TextInput>& inputs,
                       PackState& state, PackPipeline& to)
    : options_(options),
      inputs_(inputs),
      state_(state),
      to_(to),
      open_(state.open),
      text_(options.text),
      hash_(XXH3_createState()) {
  text_.bad_utf8_hint = ", or use --bad-utf8 replace (or keep)";
  text_.field_hint = " (choose with --field)";
}

void PackReader::run(size_t first, std::vector<DocumentRecord> packed) {
  packed_ = std::move(packed);
  for (size_t i = first; i < inputs_.size(); ++i) {
    read_one(inputs_[i]);
    packed_.clear();
  }
  flush({});
}

void PackReader::read_one(const TextInput& input) {
  document_ = 0;
  XXH3_64bits_reset(hash_.get());
  const uint64_t before = bytes_read;
  const TextCounts counts = read_documents(
      input, text_, [&](TextPiece&& piece) { add(input, std::move(piece)); },
      [&](uint64_t bytes) { bytes_read = before + bytes; });
  if (document_ < packed_.size() || open_.text_bytes > 0) refuse(input);
  if (counts.cut > 0) {
    log_info(cat(input.path, ": tokenized in pieces: ", counted(counts.cut, "document"),
                 " of more than ", options_.text.piece_bytes, " bytes"));
  }
  PackedInput done{.path = input.path,
                   .bytes = counts.raw.bytes,
                   .digest = counts.raw.digest,
                   .modified = input.modified,
                   .documents = counts.documents,
                   .empty = counts.empty,
                   .cut = counts.cut,
                   .replaced = counts.replaced};
  flush([this, done = std::move(done)] {
    state_.inputs.push_back(done);
    state_.input_documents = 0;
  });
}

void PackReader::add(const TextInput& input, TextPiece&& piece) {
  XXH3_64bits_update(hash_.get(), piece.text.data(), piece.text.size());
  const bool first = bytes_ == 0;
  bytes_ += piece.text.size();
  PackItem item{.text = std::move(piece.text),
                .first = first,
                .last = piece.last,
                .text_hash = XXH3_64bits_digest(hash_.get()),
                .text_bytes = bytes_,
                .ids = {}};
  const bool skip = was_packed(input, item);
  if (piece.last) {
    bytes_ = 0;
    XXH3_64bits_reset(hash_.get());
    ++document_;
  }
  if (skip) return;
  work_.text_bytes += item.text.size();
  work_.items.push_back(std::move(item));
  if (work_.text_bytes >= kWorkBytes || work_.items.size() >= 4096) flush({});
}

// Whether this piece is in the raw files. The way there must be the same as it was.
bool PackReader::was_packed(const TextInput& input, const PackItem& item) {
  if (document_ < packed_.size()) {
    if (item.last && packed_[document_].text_hash != item.text_hash) refuse(input);
    return true;
  }
  const auto open_bytes = static_cast<uint64_t>(open_.text_bytes);
  if (open_bytes == 0) return false;
  const bool reached = item.text_bytes >= open_bytes;
  const bool same = item.text_bytes == open_bytes && item.text_hash == open_.text_hash;
  if (item.last || (reached && !same)) refuse(input);
  if (reached) open_ = {};
  return true;
}

void PackReader::flush(std::function<void()> at_end) {
  if (work_.items.empty() && !at_end) return;
  work_.at_end = std::move(at_end);
  to_.put(std::exchange(work_, {}));
}

void PackReader::refuse(const TextInput& input) const {
  fail_data(cat("cannot continue the unfinished packing: ", input.path,
                " has changed since (document ", document_, "); start again with --restart"));
}

}  // namespace shoestring
