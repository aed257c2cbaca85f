#include "core/layers/moe_config.h"

#include "core/counted.h"
#include "core/text.h"

namespace shoestring {

void MoeConfig::validate(Complaints& c) const {
  if (!on()) return;
  if (ffn == 0) c.add("ffn", "must be given: the inner width of one expert");
  if (chosen > experts) {
    c.add("chosen", cat("is ", chosen, " of ", counted(experts, "expert")));
  }
  if (experts % groups != 0) {
    c.add("groups", cat("must divide experts (", experts, ") but is ", groups));
    return;
  }
  if (groups_chosen > groups) {
    c.add("groups_chosen", cat("is ", groups_chosen, " of ", counted(groups, "group")));
  } else if (groups_chosen * (experts / groups) < chosen) {
    c.add("groups_chosen",
          cat(counted(groups_chosen, "group"), " of ", counted(experts / groups, "expert"),
              ": fewer than chosen = ", chosen));
  }
  if (group_score == "top2" && groups > 1 && experts / groups < 2) {
    c.add("group_score", "top2 needs groups of at least two experts");
  }
  if (balance.bias_centred && balance.bias_speed == 0) {
    c.add("balance.bias_centred", "has no effect without balance.bias_speed");
  }
}

}  // namespace shoestring
