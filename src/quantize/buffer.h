// 64-byte aligned floats, zero-filled: what the tile kernels load.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "billm/base/error.h"

namespace billm {

class Buffer {
 public:
  explicit Buffer(int64_t count)
      : data_(static_cast<float*>(
            std::aligned_alloc(64, (static_cast<size_t>(count) * 4 + 63) / 64 * 64))) {
    if (data_ == nullptr) throw Error(ErrorCode::kFailure, "out of memory");
    std::memset(data_.get(), 0, static_cast<size_t>(count) * 4);
  }
  float* get() { return data_.get(); }
  const float* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float[], Free> data_;
};

}  // namespace billm
