#include "parallel/expert_traffic.h"

namespace shoestring {

ExpertTraffic sent_by(const ExpertPlan& plan) {
  const int64_t given = rows_given(plan.choices);
  ExpertTraffic sent{.tokens = bytes_there(plan.tokens, 1) - given,
                     .choices = bytes_there(plan.choices, 1) - given,
                     .given = given};
  if (plan.choices.legs.size() < 2) return sent;
  const ExpertLeg& across = plan.choices.legs.front();
  sent.choices_across = total(across.sent) - across.sent[static_cast<size_t>(across.ranks->rank())];
  return sent;
}

ExpertTraffic sent_to(std::span<const int32_t> received, const ExpertGroup& group) {
  const int slices = group.slices == nullptr ? 1 : group.slices->size();
  const int slice = group.slices == nullptr ? 0 : group.slices->rank();
  int64_t all = 0, own = 0;  // rows that came straight to this rank; of these, its own
  for (size_t i = 0; i + 1 < received.size(); ++i) {
    const int source = static_cast<int>(static_cast<int64_t>(i) % group.sources());
    if (source % slices != slice) continue;
    const int64_t rows = received[i + 1] - received[i];
    all += rows;
    own += source / slices == group.ranks->rank() ? rows : 0;
  }
  return {.tokens = all - own, .choices = all - own, .given = all * (slices - 1)};
}

}  // namespace shoestring
