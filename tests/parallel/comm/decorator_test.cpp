#include "parallel/comm/decorator.h"

#include <gtest/gtest.h>

#include "parallel/comm/in_process.h"

namespace shoestring {
namespace {

// Writes down what it sees.
class Notes : public Decorator {
 public:
  template <class Inner>
  Notes(Inner&& inner, std::vector<std::string>& notes)
      : Decorator(std::forward<Inner>(inner)), notes_(notes) {}

 protected:
  void before(const Call& call, Stream&) override {
    notes_.push_back("before " + std::string(name_of(call.op)));
    last_ = call;
  }
  void after(const Call& call, Stream&) override {
    notes_.push_back("after " + std::string(name_of(call.op)));
  }
  void before_split() override { notes_.push_back("split"); }
  std::unique_ptr<Communicator> wrap(std::unique_ptr<Communicator> child) override {
    return std::make_unique<Notes>(std::move(child), notes_);
  }

 public:
  Call last_;

 private:
  std::vector<std::string>& notes_;
};

TEST(Decorator, SeesEachCallBeforeAndAfterIt) {
  std::vector<std::string> notes;
  InProcessWorld world(1);
  const auto inner = world.communicator(0);
  Notes outer(*inner, notes);
  Device device(DeviceKind::cpu, 0, 1);
  Stream stream = Stream::immediate(device);
  std::vector<float> x{1, 2, 3};
  const std::vector<int64_t> counts{3};
  const Buffer all = buffer_of(std::span(x));
  std::vector<float> y(3);
  const Buffer out = buffer_of(std::span(y));

  outer.all_reduce(all, Reduce::max, stream);
  EXPECT_EQ(outer.last_.reduce, Reduce::max);
  outer.reduce_scatter(all, counts, out, Reduce::min, stream);
  EXPECT_EQ(outer.last_.in.data, all.data);
  EXPECT_EQ(outer.last_.out.data, out.data);
  EXPECT_EQ(y, x);
  outer.all_gather(all, counts, out, stream);
  outer.all_to_all(all, counts, out, counts, stream);
  outer.broadcast(all, 0, stream);
  const Transfer list[] = {Transfer::send(0, all), Transfer::receive(0, out)};
  outer.exchange(list, stream);
  EXPECT_EQ(outer.last_.transfers.size(), 2u);
  const auto child = outer.split(0, 0);
  child->broadcast(all, 0, stream);
  EXPECT_EQ(outer.split(-1, 0), nullptr);

  std::vector<std::string> wanted;
  for (const char* op :
       {"all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "exchange"}) {
    wanted.push_back(std::string("before ") + op);
    wanted.push_back(std::string("after ") + op);
  }
  wanted.insert(wanted.end(), {"split", "before broadcast", "after broadcast", "split"});
  EXPECT_EQ(notes, wanted);
  EXPECT_EQ(outer.name(), "world");
}

TEST(Decorator, PassesAnAbortOn) {
  std::vector<std::string> notes;
  InProcessWorld world(2);
  const auto inner = world.communicator(0), peer = world.communicator(1);
  Notes outer(*inner, notes);
  outer.abort("enough");
  Device device(DeviceKind::cpu, 0, 1);
  Stream stream = Stream::immediate(device);
  try {
    barrier(*peer, stream);
    FAIL() << "no error";
  } catch (const PeerFailure& error) {
    EXPECT_NE(std::string(error.what()).find("rank 0 failed: enough"), std::string::npos);
  }
}

}  // namespace
}  // namespace shoestring
