#include "parallel/parted_source.h"

#include <gtest/gtest.h>

#include "core/text.h"

namespace shoestring {
namespace {

class Notes : public PartGate, public ParamSource {
 public:
  explicit Notes(Device& device) : stream_(Stream::immediate(device)) {}
  Stream& stream() override { return stream_; }
  void enter(Do what, int part) override { append(text, "enter ", name_of(what), part, " "); }
  void travel() override { text += "travel "; }
  void leave() override { text += "leave "; }
  void give(Tensor) override {}
  void acquire(int segment, Phase) override { append(text, "acquire ", segment, " "); }
  void release(int segment, Phase) override { append(text, "release ", segment, " "); }
  Tensor weight(const Param&) override { return {}; }
  Tensor gradient(const Param&) override { return {}; }
  void gradient_ready(const Param& p) override { append(text, "ready ", p.index, " "); }

  std::string text;

 private:
  Stream stream_;
};

TEST(PartedSource, TellsTheGateOfBordersWhileThereIsOne) {
  Device device(DeviceKind::cpu, 0, 1);
  Notes notes(device);
  const StageSegments segments = parse_segments("attention,dispatch");
  PartedSource source(notes, segments);
  source.set_gate(&notes);
  for (const int segment : {0, 1}) {
    source.acquire(segment, Phase::forward);
    source.release(segment, Phase::forward);
  }
  // Weights are asked for and given back while the pass has the right to compute.
  EXPECT_EQ(notes.text, "enter F0 acquire 0 release 0 enter F1 acquire 1 travel leave release 1 ");
  notes.text.clear();
  source.set_gate(nullptr);
  source.acquire(1, Phase::input);
  source.release(1, Phase::input);
  source.gradient_ready({.info = {}, .index = 7});
  EXPECT_EQ(notes.text, "acquire 1 release 1 ready 7 ");
}

}  // namespace
}  // namespace shoestring
