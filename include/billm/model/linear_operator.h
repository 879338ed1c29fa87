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

// Makes the operators of a model on one device; they share what it has and it must outlive them.
// One pass at a time.
class LinearRunner {
 public:
  virtual ~LinearRunner() = default;
  // Null if such a layer cannot be run packed (PlaneTiles::unsupported).
  virtual std::unique_ptr<LinearOperator> make(const PackedLinear& packed) = 0;
  virtual int threads() const = 0;  // for work on the CPU
};

// Threads, and room for inputs. The error that its products make is bounded in kernels/cpu/gemv.h.
class CpuRunner : public LinearRunner {
 public:
  explicit CpuRunner(int threads);
  ~CpuRunner() override;
  std::unique_ptr<LinearOperator> make(const PackedLinear& packed) override;
  int threads() const override;

 private:
  friend class CpuLinear;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace billm
