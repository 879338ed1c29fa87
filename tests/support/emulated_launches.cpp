// See emulated_launches.h.
#include "support/emulated_launches.h"

#include "billm/base/half.h"

namespace billm::test {
namespace {

using namespace kernels::cuda;  // NOLINT: the functions stand for those of that namespace

// One instance of the kernel for each row of kPlaneSets, as gemv.cu has them.
template <int TokenBlocks, int Index = 0>
void run_set(EmulatedThread& thread, const GemvParams& params) {
  if constexpr (Index < kPlaneSetCount) {
    if (params.plan.plane_set == Index) {
      gemv_body<TokenBlocks, kPlaneSets[Index]>(thread, params);
    } else {
      run_set<TokenBlocks, Index + 1>(thread, params);
    }
  }
}

int blocks_of(int64_t items) { return static_cast<int>((items + kDenseWarps - 1) / kDenseWarps); }

}  // namespace

const char* EmulatedLaunches::check_device(int device) {
  return device == 0 ? nullptr : "product: the layer is on another device";
}

const char* EmulatedLaunches::gemv(const GemvParams& params) {
  const GemvPlan& plan = params.plan;
  if (plan.plane_set >= kPlaneSetCount) return "no such kernel";
  run_grid(plan.blocks, 1, plan.threads, plan.shared_bytes, order_, [&](EmulatedThread& thread) {
    if (plan.token_blocks == 1) {
      run_set<1>(thread, params);
    } else {
      run_set<2>(thread, params);
    }
  });
  return nullptr;
}

const char* EmulatedLaunches::prepare(const TokensParams& params, int64_t padded_tokens) {
  run_grid(static_cast<int>(padded_tokens), 1, kPrepareThreads, kPrepareThreads / kWarp * 4, order_,
           [&](EmulatedThread& thread) { prepare_token(thread, params); });
  return nullptr;
}

const char* EmulatedLaunches::gemm(const GemmParams& params) {
  const GemmPlan& plan = params.plan;
  run_grid(plan.grid_rows, plan.grid_tokens, kGemmThreads, plan.shared_bytes, order_,
           [&](EmulatedThread& thread) {
             if (plan.token_blocks == 16) {
               gemm_body<16>(thread, params);
             } else {
               gemm_body<8>(thread, params);
             }
           });
  return nullptr;
}

const char* EmulatedLaunches::dense(const DenseParams& params) {
  const DeviceLayer& layer = params.layer;
  run_grid(blocks_of(layer.tiles() * layer.strips), 1, kDenseWarps * kWarp, 0, order_,
           [&](EmulatedThread& thread) { dense_body(thread, params); });
  if (layer.scattered.start != nullptr) {
    run_grid(blocks_of(layer.rows), 1, kDenseWarps * kWarp, 0, order_,
             [&](EmulatedThread& thread) { dense_scattered_body(thread, params); });
  }
  return nullptr;
}

const char* EmulatedLaunches::scale(const ScaleParams& params, int64_t tokens) {
  run_grid(static_cast<int>(tokens), 1, kPrepareThreads, 0, order_,
           [&](EmulatedThread& thread) { scale_body(thread, params); });
  return nullptr;
}

const char* EmulatedLaunches::dense_product(const DenseProduct& product) {
  const auto* w = static_cast<const uint16_t*>(product.w);
  const auto* x = static_cast<const uint16_t*>(product.x);
  for (int64_t token = 0; token < product.tokens; ++token) {
    for (int64_t row = 0; row < product.rows; ++row) {
      double sum = 0;
      for (int64_t i = 0; i < product.cols; ++i) {
        sum += double{half_to_float(w[row * product.cols + i])} *
               half_to_float(x[token * product.cols + i]);
      }
      store_number(product.y, product.y_halves, token * product.y_stride + row,
                   static_cast<float>(sum * product.factor));
    }
  }
  return nullptr;
}

}  // namespace billm::test
