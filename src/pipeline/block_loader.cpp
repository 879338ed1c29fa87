// See block_loader.h.
#include "block_loader.h"

#include <ATen/core/grad_mode.h>

namespace billm {

Block BlockLoader::take(int64_t index) {
  const auto load = [this](int64_t i) {
    const at::NoGradGuard no_grad;  // of this thread
    return load_block(weights_, spec_, i, threads_, device_);
  };
  Block block;
  if (next_.valid() && next_index_ == index) {
    block = next_.get();
  } else {
    block = load(index);
  }
  if (ahead_ && index + 1 < spec_.blocks()) {
    next_index_ = index + 1;
    next_ = std::async(std::launch::async, load, next_index_);
  }
  return block;
}

}  // namespace billm
