// Layers for the tests of CUDA kernels: a random layer in the kernels' order, in host memory as it
// would be on a GPU.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "billm/pack/plane_tiles.h"
#include "kernels/cuda/layer_plan.h"
#include "support/random_layer.h"

namespace billm::test {

struct CudaLayer {
  CudaLayer(const LinearShape& shape, uint32_t seed)
      : linear(random_codes(shape, seed)),
        w(dequantize(linear)),
        tiles(pack(linear), kernels::cuda::kCudaTileOrder, 1) {
    const char* problem = kernels::cuda::plan_layer(tiles.view(), &plan);
    if (problem != nullptr) throw std::runtime_error(problem);
    layer = kernels::cuda::layer_in_host_memory(tiles.view(), plan);
  }

  QuantizedLinear linear;
  std::vector<float> w;  // [rows, cols]
  PlaneTiles tiles;
  kernels::cuda::LayerPlan plan;
  kernels::cuda::DeviceLayer layer;
};

// Every kind of layer that the kernels run, thinned out.
inline std::vector<LinearShape> cuda_shapes(int every) {
  std::vector<LinearShape> shapes;
  const auto add = [&](const std::vector<LinearShape>& more) {
    for (const LinearShape& shape : more) {
      if (PlaneTiles::unsupported(shape).empty()) shapes.push_back(shape);
    }
  };
  add(shape_sweep(every));
  add(shape_sweep_of_kinds(every));
  return shapes;
}

}  // namespace billm::test
