#pragma once
// `shoestring tokenize` and `shoestring detokenize`: text to ids and back, between streams.

#include <iosfwd>
#include <string>

namespace shoestring {

struct TokenizeOptions {
  std::string tokenizer;         // tokenizer.json, a .tiktoken file or a folder
  bool whole = false;            // the input is one text; otherwise each line is one
  bool special_as_text = false;  // strings of special tokens are ordinary text
};

// Writes one JSON list of ids a text; adds no special tokens. A line's text is without its line
// end.
int run_tokenize(const TokenizeOptions& options, std::istream& in, std::ostream& out);

// The inverse: one JSON list of ids a line in, the texts out, one a line; with `whole` the input is
// one list and the text is written as it is. Data errors name the line.
int run_detokenize(const TokenizeOptions& options, std::istream& in, std::ostream& out);

}  // namespace shoestring
