#pragma once
// Seconds and calls of every op of a step, by op and phase.

#include <map>
#include <ostream>
#include <string>

#include "core/tape.h"

namespace shoestring {

class OpTimes : public OpObserver {
 public:
  void begin(std::string_view op, Phase phase) override;
  void end() override;
  void clear() { rows_.clear(); }
  void print(std::ostream& out, int steps) const;  // per step, slowest first

  // Work outside of the tape.
  class Span {
   public:
    Span(OpTimes& times, std::string_view name) : times_(times) {
      times_.begin(name, Phase::forward);
    }
    ~Span() { times_.end(); }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    OpTimes& times_;
  };

 private:
  struct Row {
    double seconds = 0;
    int64_t calls = 0;
  };
  std::map<std::string, Row> rows_;
  std::string open_;
  double began_ = 0;
};

}  // namespace shoestring
