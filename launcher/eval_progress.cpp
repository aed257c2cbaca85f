#include "launcher/eval_progress.h"

#include <algorithm>
#include <utility>

#include "core/text.h"

namespace shoestring {

EvalProgress::EvalProgress(const std::vector<TextInput>& inputs, ProgressLine& line) : line_(line) {
  for (const TextInput& input : inputs) {
    total_ += input.bytes;
    known_ = known_ && input.path != "-";
  }
}

void EvalProgress::piece(size_t text_bytes) { text_ += piece_ = text_bytes; }

// Only behind a new piece: what is read and not yet taken up would count as text that takes no
// room.
void EvalProgress::read(uint64_t raw_bytes) {
  if (std::exchange(text_at_read_, text_) == text_ || raw_bytes == 0) return;
  text_a_byte_ = static_cast<double>(text_) / static_cast<double>(raw_bytes);
}

void EvalProgress::done(double part, int64_t labels) {
  const double text = static_cast<double>(text_) - (1 - part) * static_cast<double>(piece_);
  const double bytes = static_cast<double>(before_) + text / text_a_byte_;
  line_.tick([&] { return text_of(std::min(bytes, static_cast<double>(total_)), labels); });
}

void EvalProgress::end_of(const TextInput& input, int64_t labels) {
  before_ += input.bytes;
  labels_before_ += labels;
  text_ = text_at_read_ = piece_ = 0;
  text_a_byte_ = 1;
}

std::string EvalProgress::text_of(double bytes, int64_t labels) const {
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start_;
  const auto tokens = static_cast<double>(labels_before_ + labels);
  const std::string text =
      cat(text_of_count(tokens), " tokens  ", text_of_count(tokens / passed.count()), " tokens/s");
  if (!known_ || bytes <= 0) return text;
  const auto total = static_cast<double>(total_);
  return cat(text, "  left ", text_of_seconds(passed.count() * (total - bytes) / bytes), "  ",
             text_of_bytes(bytes), " of ", text_of_bytes(total));
}

}  // namespace shoestring
