#pragma once
// Whether a run is to stop, asked in the middle of its work so that every rank gets the same answer
// at the same place, whichever of them got the signal.

#include <chrono>

#include "parallel/communicator.h"

namespace shoestring {

// One a rank. Once the answer was yes it stays yes and nobody is asked any more.
class StopCheck {
 public:
  StopCheck(Communicator& ranks, Stream& stream) : ranks_(ranks), stream_(stream) {}

  // All ranks call.
  bool now();
  // All ranks call as often: between micro-batches, between rounds of an evaluation. The others are
  // asked only when work of about a quarter of a second lies behind, by the slowest rank's pace.
  bool between();
  // What one such piece of work took here; it counts from the next question on.
  void pace(double seconds_a_piece) { pace_ = seconds_a_piece; }

  // Work that rank 0 does alone while the others are in follow(), which returns when it is done or
  // when all are to stop. After a yes of lead() there is no lead_done().
  bool lead();
  void lead_done();
  void follow();

  bool stopped() const { return stopped_; }

 private:
  using Clock = std::chrono::steady_clock;
  // Returns whether the leader is done.
  bool ask(bool done);

  Communicator& ranks_;
  Stream& stream_;
  bool stopped_ = false;
  double pace_ = 0;
  int64_t every_ = 1, calls_ = 0;  // of between()
  Clock::time_point asked_ = Clock::now();
};

}  // namespace shoestring
