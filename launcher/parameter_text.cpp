#include "launcher/parameter_text.h"

#include "core/counted.h"
#include "core/model/parameters.h"
#include "core/text.h"
#include "launcher/progress.h"

namespace shoestring {

std::string text_of_parameters(const ModelConfig& model) {
  const ParamCounts counts = count_parameters(model);
  const auto all = static_cast<double>(counts.total + counts.prediction);
  if (model.mtp.depth == 0) return cat(text_of_count(all), " parameters");
  return cat(text_of_count(all), " parameters, ",
             text_of_count(static_cast<double>(counts.prediction)), " of them in ",
             counted(model.mtp.depth, "prediction module"));
}

}  // namespace shoestring
