// See products.h.
#include "kernels/cuda/products.h"

#include <algorithm>
#include <new>

#include "kernels/cuda/layer_memory.h"

namespace billm::kernels::cuda {
namespace {

const char* check_product(const CudaProduct& product, Launches& launches) {
  if (product.layer == nullptr) return "product: no layer";
  const DeviceLayer& layer = product.layer->layer;
  if (product.x.data == nullptr || product.y.data == nullptr) return "product: no x or y";
  if (product.tokens < 1) return "product: expected one token or more";
  if (product.tokens > 1 && (product.x.stride < layer.cols || product.y.stride < layer.rows)) {
    return "product: rows of x or y overlap";
  }
  return launches.check_device(product.layer->device);
}

CudaGemmPath choose(const CudaProduct& product, CudaGemmPath path, Launches& launches) {
  if (path != CudaGemmPath::kAuto) return path;
  const CudaLayer& layer = *product.layer;
  return choose_gemm(layer.layer, product.tokens, layer.coefficients, layer.limits,
                     launches.has_blas());
}

int64_t aligned(int64_t bytes) {
  return (bytes + kPartAlignment - 1) / kPartAlignment * kPartAlignment;
}

// Parts of the workspace: x as halves, scales of its tokens, and W for the dense way.
struct Workspace {
  int64_t scale = 0, w = 0, bytes = 0;
};
Workspace workspace_of(const DeviceLayer& layer, int64_t padded_tokens, bool dense) {
  const int64_t columns = int64_t{layer.strips} * kStripColumns;
  Workspace result;
  result.scale = aligned(padded_tokens * columns * 2);
  result.w = result.scale + aligned(padded_tokens * 4);
  result.bytes = result.w + (dense ? aligned(layer.rows * columns * 2) : 0);
  return result;
}

// The padded tokens of a path other than kGemv.
const char* padded_tokens_of(const CudaProduct& product, CudaGemmPath path, GemmPlan* plan) {
  if (path == CudaGemmPath::kDense) {
    plan->padded_tokens = product.tokens;
    return nullptr;
  }
  const CudaLayer& layer = *product.layer;
  return plan_gemm(layer.layer, product.tokens, layer.coefficients, layer.limits, plan);
}

}  // namespace

const char* make_layer(const PlaneTilesView& view, void* memory, const DeviceLimits& limits,
                       int device, CopyIn copy, void* context, CudaLayer** layer) {
  LayerPlan plan;
  const char* problem = plan_layer(view, &plan);
  if (problem != nullptr) return problem;
  CudaLayer result;
  result.limits = limits;
  result.device = device;
  const DeviceLayer in_host = layer_in_host_memory(view, plan);
  result.coefficients = strip_coefficients(in_host, in_host.schedules[2].of_strip);
  GemvPlan gemv;  // says now, not at the first product, what there is no kernel for
  problem = plan_gemv(in_host, kMaxTokens, limits, &gemv);
  if (problem != nullptr) return problem;
  result.layer = layer_in_memory(view, plan, memory, copy, context, &problem);
  if (problem != nullptr) return problem;
  result.bytes = weight_bytes(view);
  *layer = new (std::nothrow) CudaLayer(result);
  return *layer == nullptr ? "out of memory" : nullptr;
}

const char* gemv_params(const CudaProduct& product, Launches& launches, GemvParams* params) {
  const char* problem = check_product(product, launches);
  if (problem != nullptr) return problem;
  if (product.tokens > kMaxTokens) return "gemv: expected 1 to 8 tokens";
  params->layer = product.layer->layer;
  params->x = product.x.data;
  params->x_stride = product.x.stride;
  params->x_halves = product.x.halves;
  params->y = product.y.data;
  params->y_stride = product.y.stride;
  params->y_halves = product.y.halves;
  return plan_gemv(params->layer, static_cast<int>(product.tokens), product.layer->limits,
                   &params->plan);
}

const char* run_gemv(const CudaProduct& product, Launches& launches) {
  GemvParams params;
  const char* problem = gemv_params(product, launches, &params);
  return problem != nullptr ? problem : launches.gemv(params);
}

const char* gemm_workspace(const CudaProduct& product, CudaGemmPath path, Launches& launches,
                           int64_t* bytes) {
  const char* problem = check_product(product, launches);
  if (problem != nullptr) return problem;
  path = choose(product, path, launches);
  *bytes = 0;
  if (path == CudaGemmPath::kGemv) return nullptr;
  GemmPlan plan;
  problem = padded_tokens_of(product, path, &plan);
  if (problem != nullptr) return problem;
  *bytes =
      workspace_of(product.layer->layer, plan.padded_tokens, path == CudaGemmPath::kDense).bytes;
  return nullptr;
}

const char* run_gemm(const CudaProduct& product, CudaGemmPath path, void* workspace, int64_t bytes,
                     Launches& launches) {
  int64_t needed = 0;
  const char* problem = gemm_workspace(product, path, launches, &needed);
  if (problem != nullptr) return problem;
  if (needed > 0 && (workspace == nullptr || bytes < needed)) return "gemm: workspace too small";
  if (reinterpret_cast<uintptr_t>(workspace) % kPartAlignment != 0)
    return "gemm: workspace not aligned";
  path = choose(product, path, launches);
  if (path == CudaGemmPath::kGemv) {
    for (int64_t token = 0; token < product.tokens; token += kMaxTokens) {
      CudaProduct part = product;
      part.tokens = std::min<int64_t>(kMaxTokens, product.tokens - token);
      const auto move = [&](CudaMatrix& matrix) {
        matrix.data =
            static_cast<uint8_t*>(matrix.data) + token * matrix.stride * (matrix.halves ? 2 : 4);
      };
      move(part.x);
      move(part.y);
      problem = run_gemv(part, launches);
      if (problem != nullptr) return problem;
    }
    return nullptr;
  }

  const DeviceLayer& layer = product.layer->layer;
  const bool dense = path == CudaGemmPath::kDense;
  GemmPlan plan;
  problem = padded_tokens_of(product, path, &plan);
  if (problem != nullptr) return problem;
  const Workspace parts = workspace_of(layer, plan.padded_tokens, dense);
  auto* memory = static_cast<uint8_t*>(workspace);
  auto* x = reinterpret_cast<uint16_t*>(memory);
  auto* scale = reinterpret_cast<float*>(memory + parts.scale);
  TokensParams tokens;
  tokens.layer = layer;
  tokens.x = product.x.data;
  tokens.x_stride = product.x.stride;
  tokens.x_halves = product.x.halves;
  tokens.tokens = product.tokens;
  tokens.in_blocks = !dense;
  tokens.out = x;
  tokens.scale = scale;
  problem = launches.prepare(tokens, plan.padded_tokens);
  if (problem != nullptr) return problem;

  if (!dense) {
    GemmParams params;
    params.layer = layer;
    params.plan = plan;
    params.x = x;
    params.scale = scale;
    params.y = product.y.data;
    params.y_stride = product.y.stride;
    params.y_halves = product.y.halves;
    params.tokens = product.tokens;
    return launches.gemm(params);
  }
  auto* w = reinterpret_cast<uint16_t*>(memory + parts.w);
  problem = launches.dense({layer, w});
  if (problem != nullptr) return problem;
  DenseProduct inner;
  inner.w = w;
  inner.x = x;
  inner.y = product.y.data;
  inner.rows = layer.rows;
  inner.cols = int64_t{layer.strips} * kStripColumns;
  inner.tokens = product.tokens;
  inner.y_stride = product.tokens > 1 ? product.y.stride : layer.rows;
  inner.y_halves = product.y.halves;
  inner.factor = layer.unit;
  problem = launches.dense_product(inner);
  if (problem != nullptr) return problem;
  return launches.scale({scale, product.y.data, product.y.stride, layer.rows, product.y.halves},
                        product.tokens);
}

}  // namespace billm::kernels::cuda
