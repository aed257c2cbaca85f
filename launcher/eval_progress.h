#pragma once
// How far an evaluation of text files is, for people: tokens, their rate, and, by the bytes of the
// files as they are on disk, the time left.

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "io/text_source.h"
#include "launcher/progress.h"

namespace shoestring {

class EvalProgress {
 public:
  EvalProgress(const std::vector<TextInput>& inputs, ProgressLine& line);
  // A piece of the present input's text is taken up.
  void piece(size_t text_bytes);
  // So many bytes of it are read by now, compressed or with all that is no text.
  void read(uint64_t raw_bytes);
  // `part` of the last piece is done; `labels` of the present input were predicted.
  void done(double part, int64_t labels);
  void end_of(const TextInput& input, int64_t labels);

 private:
  std::string text_of(double bytes, int64_t labels) const;

  ProgressLine& line_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  uint64_t total_ = 0, before_ = 0;  // bytes on disk: of all inputs, of those done
  bool known_ = true;                // standard input may be of any length
  int64_t labels_before_ = 0;
  // Of the present input: text taken up, how much of it at the last read(), and its last piece.
  size_t text_ = 0, text_at_read_ = 0, piece_ = 0;
  double text_a_byte_ = 1;
};

}  // namespace shoestring
