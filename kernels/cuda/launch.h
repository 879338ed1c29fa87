// Launch geometry: how the rows and columns of a layer are shared out among blocks and warps. Plain
// C++, tested on the CPU over many shapes.
#pragma once

#include <cstdint>

#include "kernels/cuda/cuda_api.h"
#include "kernels/cuda/strips.h"

namespace billm::kernels::cuda {

// What a kernel may use, of the device that runs it.
struct DeviceLimits {
  int sm_count = 1;
  int shared_bytes = 48 * 1024;  // of a block, opted in
  int major = 0;                 // of the compute capability
};

// --- GEMV --------------------------------------------------------------------------------------

inline constexpr int kMaxTokens = 8;  // of one GEMV
// Warps of a block, which is all that a multiprocessor runs: 128 registers a thread, or 255 with
// two mma beside each other.
BILLM_HOST_DEVICE constexpr int max_warps(int token_blocks) { return token_blocks == 1 ? 16 : 8; }
inline constexpr int kRingSlots = 8;  // plane strips that a warp has loaded or on their way
inline constexpr int kMaxParts = 16;

// A kernel is compiled for some sets of numbers of planes: bit P stands for P planes, and a layer
// takes the first set that has all that its groups have. One kernel for all would keep its sums in
// memory, not in registers. With integers, of up to 8 planes, the planes are added up before they
// are summed: kIntegerSet.
inline constexpr int kIntegerSet = 1;
inline constexpr int kPlaneSets[] = {kIntegerSet,     1 << 1,          1 << 2,
                                     1 << 1 | 1 << 2, 1 << 1 | 1 << 3, 1 << 2 | 1 << 3,
                                     1 << 2 | 1 << 4, 1 << 3 | 1 << 4};
inline constexpr int kPlaneSetCount = sizeof kPlaneSets / sizeof kPlaneSets[0];
static_assert(kRingSlots >= kMaxPlanes);  // a strip with several rounds is kept whole
static_assert(kRingSlots * kStripBytes >= kMaxTokens * kTileRows * 4);  // partial sums reuse it

// A block has tiles_per_block tiles, and `parts` warps for each: they share its columns. Its shared
// memory: log8 table, rings, x, scales of x; sums of scattered integers.
struct GemvPlan {
  int blocks = 0, threads = 0;
  int tiles_per_block = 0, parts = 0;
  int chunk_strips = 0;  // columns are worked off in chunks of so many strips, whose x fits
  int tokens = 0;
  int block_tokens = 0;  // tokens of one mma: 1, 2, 4
  int token_blocks = 0;  // mma beside each other: 1, 2
  int slots = 0;         // places of one mma: 4 / block_tokens
  int plane_set = 0;     // index in kPlaneSets
  int ring_offset = 0, x_offset = 0, scale_offset = 0, scattered_offset = 0;  // in shared memory
  int shared_bytes = 0;
};

// y = W x for 1..kMaxTokens tokens. Returns null, or why there is no such launch.
const char* plan_gemv(const DeviceLayer& layer, int tokens, const DeviceLimits& limits,
                      GemvPlan* plan);

// --- GEMM --------------------------------------------------------------------------------------

inline constexpr int kGemmTiles = 4;  // tiles of a block, a warp each
inline constexpr int kGemmThreads = kGemmTiles * kWarp;
inline constexpr int kGemmStages = 2;
inline constexpr int kTokenBlock = 8;                                 // tokens of one mma
inline constexpr int kXStripBytes = kTokenBlock * kStripColumns * 2;  // of 8 tokens

// A block has kGemmTiles * 32 rows and token_blocks * 8 tokens.
struct GemmPlan {
  int grid_rows = 0, grid_tokens = 0;
  int token_blocks = 0;  // 8 or 16
  int planes = 0;        // stored, of the group that has most
  int64_t padded_tokens = 0;
  int weight_offset = 0, coefficient_offset = 0;  // in a stage, after x
  int stage_bytes = 0;
  int shared_bytes = 0;
};

// `coefficients`: the most (planes + constants) * places of a strip of the layer.
const char* plan_gemm(const DeviceLayer& layer, int64_t tokens, int coefficients,
                      const DeviceLimits& limits, GemmPlan* plan);

// What kAuto stands for (cuda_api.h); `blas`: whether cuBLAS is there.
CudaGemmPath choose_gemm(const DeviceLayer& layer, int64_t tokens, int coefficients,
                         const DeviceLimits& limits, bool blas);

// Most coefficients of a strip, for plan_gemm.
int strip_coefficients(const DeviceLayer& layer, const PlaceRange* of_strip);

}  // namespace billm::kernels::cuda
