#pragma once
// The README.md of an exported model: what was trained, on what, for how much.

#include <string>
#include <string_view>

#include "io/hugging_face/config.h"
#include "launcher/model_source.h"

namespace shoestring {

// A line of every card: what was exported here is known by it.
inline constexpr std::string_view card_mark = "A language model exported by Shoestring.";

struct ModelCard {
  std::string name;                 // title
  HuggingFaceConfig exported = {};  // family and type of what is in the folder
  std::string summary = {};         // text of the run's summary.json; empty when there is none
};

// Markdown with the header that model hubs read. Says only what the run's own files say; of a model
// that was converted and not trained here, that.
std::string model_card_text(const ModelSource& source, const ModelCard& card);

}  // namespace shoestring
