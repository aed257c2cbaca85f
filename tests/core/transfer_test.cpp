#include "core/transfer.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/check.h"

namespace shoestring {
namespace {

TEST(Transfer, CopiesBetweenTheMemoriesOfTwoDevices) {
  Device device(DeviceKind::cpu, 0, 1), host(DeviceKind::cpu, 0, 1);
  for (const bool worker : {false, true}) {
    Stream stream = worker ? Stream::worker(device, "offload") : Stream::immediate(device);
    std::vector<float> values(1000);
    std::iota(values.begin(), values.end(), 0.5f);
    const Tensor here = Tensor::from<float>(device, {10, 100}, values);
    const Tensor there(host, {1000}, Dtype::f32), back(device, {10, 100}, Dtype::f32);
    transfer(stream, there, here);
    transfer(stream, back, there);
    stream.synchronize();
    EXPECT_TRUE(std::equal(values.begin(), values.end(), back.data<float>()));
    EXPECT_EQ(host.ledger().current_total(), 4032);  // rounded up to 64
  }
}

TEST(Transfer, NothingAndTheWrongShape) {
  Device device(DeviceKind::cpu, 0, 1), host(DeviceKind::cpu, 0, 1);
  Stream stream = Stream::immediate(device);
  transfer(stream, Tensor(host, {0}, Dtype::f32), Tensor(device, {0}, Dtype::f32));
  const Tensor few(device, {3}, Dtype::f32), many(host, {4}, Dtype::f32);
  EXPECT_THROW(transfer(stream, many, few), Error);
  EXPECT_THROW(transfer(stream, Tensor(host, {3}, Dtype::bf16), few), Error);
}

}  // namespace
}  // namespace shoestring
