#include "parallel/comm/in_process.h"

#include <mutex>

#include "core/check.h"
#include "core/text.h"
#include "parallel/comm/collectives.h"
#include "parallel/comm/in_process_transport.h"

namespace shoestring {

InProcessWorld::InProcessWorld(int ranks, InProcessOptions options) {
  if (ranks < 1) fail_usage(cat("a world of ", ranks, " ranks"));
  shared_ = std::make_shared<Shared>(ranks, std::move(options));
}

std::unique_ptr<Communicator> InProcessWorld::communicator(int rank) {
  check(rank >= 0 && rank < static_cast<int>(shared_->left.size()), "a rank outside of its world");
  return make_communicator(in_process_transport(shared_, rank));
}

void InProcessWorld::leave(int rank) noexcept {
  std::lock_guard lock(shared_->mutex);
  shared_->left[static_cast<size_t>(rank)] = true;
  shared_->none_left = false;
  shared_->wake_all();
}

}  // namespace shoestring
