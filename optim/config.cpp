#include "optim/config.h"

#include "core/text.h"

namespace shoestring {

void ScheduleConfig::validate(Complaints& c) const {
  if (warmup_steps > 0 && warmup_tokens > 0) {
    c.add("warmup_tokens", cat("set warmup_steps or warmup_tokens, not both (they are ",
                               warmup_steps, " and ", warmup_tokens, ")"));
  }
  if (drive == "steps" && warmup_tokens > 0) {
    c.add("warmup_tokens", "a schedule driven by steps needs warmup_steps instead");
  }
  if (milestones.size() != factors.size()) {
    c.add("factors", cat("must have one factor per milestone, but there are ", factors.size(),
                         " factors and ", milestones.size(), " milestones"));
  }
  for (size_t i = 1; i < milestones.size(); ++i) {
    if (milestones[i] <= milestones[i - 1]) {
      c.add("milestones", cat("must ascend, but ", milestones[i], " follows ", milestones[i - 1]));
    }
  }
  if (decay_until < flat_until) {
    c.add("decay_until", cat(decay_until, " lies before flat_until (", flat_until, ")"));
  }
  if (final_from < decay_until) {
    c.add("final_from", cat(final_from, " lies before decay_until (", decay_until, ")"));
  }
}

void RampConfig::validate(Complaints& c) const {
  if (tokens.size() != sequences.size()) {
    c.add("sequences", cat("must have one batch size per token count, but there are ",
                           sequences.size(), " sizes and ", tokens.size(), " counts"));
  }
  for (size_t i = 1; i < tokens.size(); ++i) {
    if (tokens[i] <= tokens[i - 1]) {
      c.add("tokens", cat("must ascend, but ", tokens[i], " follows ", tokens[i - 1]));
    }
  }
}

}  // namespace shoestring
