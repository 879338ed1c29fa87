// Linears that are run from their packed planes, without a decoded copy of the weight.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "billm/pack/packed_linear.h"

namespace billm {

// y = x W^T.
class LinearOperator {
 public:
  virtual ~LinearOperator() = default;
  // x [tokens, in] fp32 -> [tokens, out].
  virtual at::Tensor apply(const at::Tensor& x) const = 0;
  virtual int64_t bytes() const = 0;  // read for one token
  // The same in other memory: benchmarks rotate copies, so that caches hold none of them.
  virtual std::unique_ptr<LinearOperator> copy() const = 0;
};

// What the operators of a model share: threads, and room for inputs. One pass at a time.
class CpuRunner {
 public:
  explicit CpuRunner(int threads);
  ~CpuRunner();
  int threads() const;

  // An operator that uses this runner, which must outlive it; null if such a layer cannot be run
  // packed (PlaneTiles::unsupported). The error that it makes is bounded in kernels/cpu/gemv.h.
  std::unique_ptr<LinearOperator> make(const PackedLinear& packed);

 private:
  friend class CpuLinear;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace billm
