// A device that takes over the heavy work of quantizing a layer (a GPU). The methods see this and
// nothing of how it is done; without one everything runs on the CPU, with the same bits on every
// machine, which a device's results do not have: they differ in rounding.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace billm {

namespace kernels::cuda {
struct CudaApi;
}

class Accelerator {
 public:
  virtual ~Accelerator() = default;

  // Factors H (matrix [width, width], symmetric) with `added` [width] on its diagonal, rows and
  // columns taken in the order `order` ([width]; empty: as they are): R [width, width], upper
  // triangular with R R^T equal to that, 0 below the diagonal. In fp64, rounded once at the end.
  // Empty if it is not positive definite.
  virtual std::vector<float> factor(const std::vector<float>& matrix,
                                    const std::vector<double>& added,
                                    const std::vector<int64_t>& order) const = 0;

  // The kernels that code binary layers, and the device they are to run on; null: the CPU codes.
  virtual const kernels::cuda::CudaApi* kernels() const = 0;
  virtual int device() const = 0;
  // Gives memory of the device back that is kept for later and not in use: the kernels have another
  // allocator.
  virtual void give_back_memory() const = 0;
};

}  // namespace billm
