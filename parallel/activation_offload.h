#pragma once
// Saved activations of a tape that wait in host memory for their backward pass: what a segment
// saved goes there when nobody reads it any more before then, and comes back one segment ahead of
// its use. Copies run on a stream beside compute; the bits are the same.
//
// The passes of a tape may run on other threads, one at a time, and beside passes of other tapes:
// of these nothing is touched but the stream of the copies, which all may share.
//
//   ActivationOffload offload(source, host, copies);
//   Tape tape(compute, offload, Tape::Mode::training);
//   offload.attach(tape);

#include <deque>
#include <set>
#include <vector>

#include "core/tape.h"

namespace shoestring {

class ActivationOffload : public ParamSource {
 public:
  // Hands everything on to `inner`. `copies`: a stream of the tape's device. All outlive this.
  ActivationOffload(ParamSource& inner, Device& host, Stream& copies)
      : inner_(inner), host_(host), copies_(copies) {}
  ~ActivationOffload() override;
  ActivationOffload(const ActivationOffload&) = delete;
  ActivationOffload& operator=(const ActivationOffload&) = delete;

  void attach(Tape& tape) { tape_ = &tape; }
  // What may go now; by itself at the end of every segment of the forward pass.
  void offload();
  // The backward pass is near: what it reads first comes back. Behind the last offload().
  void expect_backward();
  int64_t bytes() const { return bytes_; }  // that went to the host

  void acquire(int segment, Phase phase) override;
  void release(int segment, Phase phase) override;
  Tensor weight(const Param& p) override { return inner_.weight(p); }
  Tensor gradient(const Param& p) override { return inner_.gradient(p); }
  void gradient_ready(const Param& p) override { inner_.gradient_ready(p); }

 private:
  struct Moved {
    BlockPtr block;
    int segment = 0;
    Tensor copy;  // bytes, on the host; empty: on its way back
    Event back;
  };
  void fetch(int segment);

  ParamSource& inner_;
  Device& host_;
  Stream& copies_;
  Tape* tape_ = nullptr;
  std::vector<Moved> moved_;
  std::deque<Event> in_flight_;
  bool backward_ = false;
  int64_t bytes_ = 0;
};

}  // namespace shoestring
