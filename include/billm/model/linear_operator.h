// Linear layers as a block applies them: y = x W^T, W being a decoded weight (dense_linear.h) or
// run from its packed planes, without a decoded copy.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "billm/base/worker_team.h"
#include "billm/pack/packed_layer.h"

namespace billm {

// y = x W^T.
class LinearOperator {
 public:
  virtual ~LinearOperator() = default;
  // x [tokens, in] fp32 on the operator's device -> [tokens, out].
  virtual at::Tensor apply(const at::Tensor& x) const = 0;
  // The same plus bias [out].
  virtual at::Tensor apply_with_bias(const at::Tensor& x, const at::Tensor& bias) const;
  virtual int64_t bytes() const = 0;  // read for one token
};

// Makes the operators of a model on one device; they share what it has and it must outlive them.
// One pass at a time.
class LinearRunner {
 public:
  virtual ~LinearRunner() = default;
  // Null if such a layer cannot be run packed on this device: unsupported().
  std::unique_ptr<LinearOperator> make(const PackedLayer& packed);
  // What of it keeps it from being run; empty if nothing does.
  virtual std::string unsupported(const PackedLayer& packed) const;
  // y = R x of a rotation. Throws Error{kFailure} on a device that has none.
  virtual std::unique_ptr<LinearOperator> make_rotation(const Rotation& rotation) = 0;
  // y = W x of a factor on a trellis. Likewise.
  virtual std::unique_ptr<LinearOperator> make_trellis(const PackedTrellis& packed) = 0;
  // The same planes until they have `bytes` in all, at least once: benchmarks use copies in turn,
  // so that caches hold none of them.
  virtual std::vector<std::unique_ptr<LinearOperator>> make_copies(const PackedPlanes& packed,
                                                                   int64_t bytes) = 0;
  virtual int threads() const = 0;  // for work on the CPU
  // What runs the products, for reports: "cpu, AVX3_ZEN4", "cuda".
  virtual std::string kernels() const = 0;
  // What else runs on the same threads; null on another device than the CPU.
  virtual WorkerTeam* team() { return nullptr; }
};

// A runner for `device`. Of a CUDA device: libbillm_cuda.so is loaded (kernels/cuda/cuda_api.h);
// throws Error{kFailure} where it is not there or does not work.
std::unique_ptr<LinearRunner> make_runner(c10::Device device, int threads);

// Threads, and room for inputs. The error that its products make is bounded in kernels/cpu/gemv.h.
class CpuRunner : public LinearRunner {
 public:
  explicit CpuRunner(int threads);
  ~CpuRunner() override;
  std::vector<std::unique_ptr<LinearOperator>> make_copies(const PackedPlanes& packed,
                                                           int64_t bytes) override;
  std::unique_ptr<LinearOperator> make_rotation(const Rotation& rotation) override;
  std::unique_ptr<LinearOperator> make_trellis(const PackedTrellis& packed) override;
  int threads() const override;
  std::string kernels() const override;
  WorkerTeam* team() override;

 private:
  friend class CpuLinear;
  friend class CpuRotation;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace billm
