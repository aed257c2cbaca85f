#pragma once
// How fast the last steps were: the one window of all the rates on the console.

namespace shoestring {

class RecentSpeed {
 public:
  struct Step {
    double tokens = 0, flop = 0, seconds = 0;
  };
  // Earlier steps count 0.9 of what they did, so that about the last ten make the figure.
  void add(const Step& step);
  double tokens_per_second() const;  // 0 before the first step
  double flop_per_second() const;

 private:
  Step sum_;
};

}  // namespace shoestring
