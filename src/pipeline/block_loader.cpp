// See block_loader.h.
#include "block_loader.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

namespace billm {

BlockLoader::Loaded BlockLoader::load_beside(int64_t index) const {
  const at::NoGradGuard no_grad;  // of this thread
  Loaded loaded;
  if (!device_.is_cuda()) {
    loaded.block = load_block(weights_, spec_, index, threads_, device_);
    return loaded;
  }
  const c10::Stream stream =
      c10::impl::VirtualGuardImpl(device_.type()).getStreamFromGlobalPool(device_, false);
  const c10::StreamGuard guard(stream);
  loaded.block = load_block(weights_, spec_, index, threads_, device_);
  loaded.copied.emplace(device_.type());
  loaded.copied->record(stream);
  return loaded;
}

Block BlockLoader::in_current_stream(Loaded loaded) const {
  if (!loaded.copied) return std::move(loaded.block);
  const c10::Stream stream = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  loaded.copied->block(stream);
  Block& block = loaded.block;
  // Their memory was taken in the other stream, which may use it again only when this one is done.
  for (auto* tensors : {&block.norms, &block.biases}) {
    for (auto& [suffix, tensor] : *tensors) tensor.record_stream(stream);
  }
  for (const auto& [suffix, linear] : block.linears) {
    at::Tensor weight = block.weight(suffix);
    weight.record_stream(stream);
  }
  return std::move(block);
}

Block BlockLoader::take(int64_t index) {
  Block block;
  if (next_.valid() && next_index_ == index) {
    block = in_current_stream(next_.get());
  } else {
    const at::NoGradGuard no_grad;
    block = load_block(weights_, spec_, index, threads_, device_);
  }
  if (ahead_ && index + 1 < spec_.blocks()) {
    next_index_ = index + 1;
    next_ = std::async(std::launch::async, &BlockLoader::load_beside, this, next_index_);
  }
  return block;
}

}  // namespace billm
