#pragma once
// Pre-tokenizer steps: each cuts a text into pieces, without gaps. The patterns that published
// tokenizers use have hand-written scanners (several times faster than a regular expression
// engine); any other pattern runs through Regex.

#include <memory>
#include <string>
#include <string_view>

#include "io/tokenizer/regex.h"

namespace shoestring {

// The published patterns, as they stand in tokenizer.json files.
namespace patterns {
extern const std::string_view gpt2;
extern const std::string_view llama3;  // also cl100k
extern const std::string_view qwen2;   // llama3 with single digits
// DeepSeek-V3 applies three in sequence.
extern const std::string_view deepseek_numbers;
extern const std::string_view deepseek_cjk;
extern const std::string_view deepseek_words;
}  // namespace patterns

class SplitStep {
 public:
  // Matches of a pattern and the gaps between them become pieces. Known patterns get a scanner
  // unless `with_scanner` is false. Throws fail_data for a broken pattern.
  static SplitStep from_pattern(std::string_view pattern, bool with_scanner = true);
  // Runs of numeric characters, or each numeric character, become pieces.
  static SplitStep digits(bool individual);

  // The end of the piece that begins at `at`, at < end. `begin` is where the step's text begins.
  const char* next(const char* begin, const char* at, const char* end,
                   Regex::Scratch& scratch) const;

  // What the step does, for hashes and messages: the pattern, or "digits", "single digits".
  const std::string& name() const { return name_; }
  // Whether the pattern is known to match every text from end to end.
  bool leaves_no_gaps() const;
  bool has_scanner() const { return scanner_ != nullptr; }

 private:
  using Scanner = const char* (*)(const char* at, const char* end);

  std::string name_;
  Scanner scanner_ = nullptr;
  std::shared_ptr<const Regex> regex_;
};

}  // namespace shoestring
