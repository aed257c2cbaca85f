// Tokenizers: an input is a tokenizer.json, or a tiktoken file when it does not begin with a brace.
// What loads must encode any text and give its bytes back.

#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "io/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_target.h"

using namespace shoestring;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    Tokenizer tokenizer = input.starts_with("{") ? Tokenizer::from_json(input, "fuzz.json")
                                                 : Tokenizer::from_tiktoken(input, "fuzz.tiktoken");
    for (std::string_view text : {std::string_view("It was  a dark\n\tnight'll 1234 \xff\xc3\xa4"),
                                  input.substr(input.size() / 2)}) {
      std::vector<int32_t> ids = tokenizer.encode(text);
      StreamDecoder stream(tokenizer);
      std::string joined;
      for (int32_t id : ids) {
        check(tokenizer.has_id(id), "an id without a token");
        joined += stream.push(id);
      }
      check(joined + stream.finish() == tokenizer.decode(ids), "a stream of other text");
    }
  } catch (const Error& error) {
    if (error.code() != ExitCode::data) throw;
  }
  return 0;
}
