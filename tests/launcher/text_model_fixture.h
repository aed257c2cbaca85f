#pragma once
// A run of a few steps on real text with a real tokenizer: what generate, eval and logits read.

#include "core/text.h"
#include "launcher/data_pack_command.h"
#include "launcher/loaded_model.h"
#include "tests/launcher/training_fixture.h"

namespace shoestring {

inline std::string test_data(const std::string& name) {
  return cat(SHOESTRING_SOURCE_DIR, "/tests/data/", name);
}

// Trains into folder/run and returns that path.
inline std::string train_text_model(const ScratchFolder& folder,
                                    const std::string& tokenizer = "tokenizer/trained_gpt2.json") {
  RunConfig c = small_config(folder);
  const std::string store = folder / "text.h5";
  data_pack({.inputs = {test_data("tiny/persuasion.jsonl")},
             .tokenizer = test_data(tokenizer),
             .out = store,
             .quiet = true});
  c.tokenizer = test_data(tokenizer);
  c.train.steps = 3;
  c.data.sources = {{.name = "text", .path = store, .weight = 1, .held_out = {}}};
  train_small(c);
  return c.run.directory;
}

}  // namespace shoestring
