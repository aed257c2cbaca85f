#include "parallel/comm/counting.h"

#include "parallel/comm/decorator.h"

namespace shoestring {
namespace {

class Counting : public Decorator {
 public:
  template <class Inner>
  Counting(Inner&& inner, std::shared_ptr<Traffic> traffic, bool own = true)
      : Decorator(std::forward<Inner>(inner)), traffic_(std::move(traffic)), own_(own) {}

 protected:
  void before(const Call& call, Stream&) override {
    if (!own_) return;
    const auto op = static_cast<size_t>(call.op);
    traffic_->bytes_sent[op] += bytes_sent(call, rank(), size());
    traffic_->calls[op] += 1;
  }
  void after(const Call&, Stream&) override {}
  std::unique_ptr<Communicator> wrap(std::unique_ptr<Communicator> child) override {
    return std::make_unique<Counting>(std::move(child), traffic_);
  }

 private:
  std::shared_ptr<Traffic> traffic_;
  bool own_;  // or of splits alone
};

}  // namespace

int64_t Traffic::total_bytes() const {
  int64_t sum = 0;
  for (const auto& b : bytes_sent) sum += b.load();
  return sum;
}

void Traffic::reset() {
  for (auto& b : bytes_sent) b = 0;
  for (auto& c : calls) c = 0;
}

std::unique_ptr<Communicator> counting(Communicator& inner, std::shared_ptr<Traffic> traffic) {
  return std::make_unique<Counting>(inner, std::move(traffic));
}

std::unique_ptr<Communicator> counting_splits(Communicator& world,
                                              std::shared_ptr<Traffic> traffic) {
  return std::make_unique<Counting>(world, std::move(traffic), false);
}

}  // namespace shoestring
