#include "parallel/comm/traced.h"

#include "parallel/comm/decorator.h"

namespace shoestring {
namespace {

using Clock = std::chrono::steady_clock;

class Traced : public Decorator {
 public:
  template <class Inner>
  Traced(Inner&& inner, CommunicationListener listener)
      : Decorator(std::forward<Inner>(inner)), listener_(std::move(listener)) {}

 protected:
  void before(const Call& call, Stream& stream) override {
    span_ = std::make_shared<CommunicationSpan>();
    span_->op = call.op;
    span_->communicator = name();
    span_->bytes = bytes_sent(call, rank(), size());
    stream.run([span = span_] { span->begin = Clock::now(); });
  }
  void after(const Call&, Stream& stream) override {
    stream.run([span = std::move(span_), listener = listener_] {
      span->end = Clock::now();
      listener(*span);
    });
  }
  std::unique_ptr<Communicator> wrap(std::unique_ptr<Communicator> child) override {
    return std::make_unique<Traced>(std::move(child), listener_);
  }

 private:
  CommunicationListener listener_;
  std::shared_ptr<CommunicationSpan> span_;  // of the call that is being enqueued
};

}  // namespace

std::unique_ptr<Communicator> traced(Communicator& inner, CommunicationListener listener) {
  return std::make_unique<Traced>(inner, std::move(listener));
}

}  // namespace shoestring
