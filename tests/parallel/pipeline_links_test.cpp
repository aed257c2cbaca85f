#include "parallel/pipeline_links.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "parallel/comm/in_process.h"
#include "parallel/passes.h"
#include "parallel/schedules/catalogue.h"

namespace shoestring {
namespace {

Tensor filled(Device& device, float value) {
  Tensor t(device, {5}, Dtype::f32);
  std::ranges::fill(t.span<float>(), value);
  return t;
}

const Schedule& two_ranks() {
  static const Schedule schedule =
      add_transfers(make_schedule({.name = "1f1b", .ranks = 2, .micros = 4}));
  return schedule;
}

// Both ranks send first: were the ways not apart, each would wait for the other.
TEST(PipelineLinks, DirectionsDoNotWaitForOneAnother) {
  run_ranks(2, [](Communicator& pipeline) {
    Device device(DeviceKind::cpu, 0, 1);
    PipelineLinks links(pipeline, device, two_ranks());
    const bool first = pipeline.rank() == 0;
    const Channel out = first ? Channel{0, 1, Do::SA} : Channel{1, 0, Do::SG};
    const Channel in = first ? Channel{1, 0, Do::SG} : Channel{0, 1, Do::SA};
    for (int round = 0; round < 3; ++round) {
      // Nobody else holds what is on its way.
      links.send(out, filled(device, static_cast<float>(10 * pipeline.rank() + round)), {});
    }
    for (int round = 0; round < 3; ++round) {
      const Tensor got = filled(device, -1);
      links.receive(in, got).wait();
      EXPECT_EQ(got.span<float>()[4], static_cast<float>(10 * (1 - pipeline.rank()) + round));
    }
    links.finish();
    EXPECT_EQ(device.ledger().current_total(), 0);
  });
}

TEST(PipelineLinks, WhatTheScheduleDoesNotSendIsRefused) {
  run_ranks(2, [](Communicator& pipeline) {
    Device device(DeviceKind::cpu, 0, 1);
    EXPECT_THROW(
        PipelineLinks(pipeline, device, make_schedule({.name = "1f1b", .ranks = 2, .micros = 4})),
        Error);
    PipelineLinks links(pipeline, device, two_ranks());
    EXPECT_THROW(links.send({1, 0, Do::SA}, filled(device, 0), {}), Error);
  });
}

TEST(PipelineLinks, AnAbortEndsTheOthersWait) {
  const auto run = [] {
    run_ranks(2, [](Communicator& pipeline) {
      Device device(DeviceKind::cpu, 0, 1);
      PipelineLinks links(pipeline, device, two_ranks());
      if (pipeline.rank() == 0) {
        links.abort("the test says so");
        return;
      }
      const Tensor into = filled(device, 0);
      links.receive({0, 1, Do::SA}, into).wait();
    });
  };
  try {
    run();
    FAIL() << "a value that was never sent has arrived";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("the test says so"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace shoestring
