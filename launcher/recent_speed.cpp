#include "launcher/recent_speed.h"

namespace shoestring {

void RecentSpeed::add(const Step& step) {
  constexpr double kept = 0.9;
  sum_ = {kept * sum_.tokens + step.tokens, kept * sum_.flop + step.flop,
          kept * sum_.seconds + step.seconds};
}

double RecentSpeed::tokens_per_second() const {
  return sum_.seconds > 0 ? sum_.tokens / sum_.seconds : 0;
}

double RecentSpeed::flop_per_second() const {
  return sum_.seconds > 0 ? sum_.flop / sum_.seconds : 0;
}

}  // namespace shoestring
