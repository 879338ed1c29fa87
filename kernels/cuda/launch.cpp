// Launch geometry: see launch.h.
#include "kernels/cuda/launch.h"

#include <algorithm>

namespace billm::kernels::cuda {
namespace {

constexpr int kLog8Bytes = 256 * 4;

constexpr int64_t kGemvTokens = 32;  // up to here four GEMVs are the quickest

// cuBLAS reaches the rate of Hopper's and Blackwell's tensor cores, which mma.sync does not; from
// here on decoding the layer first is the smaller loss. Estimated, never measured: see
// docs/measurements/gpu.md. 12.x has mma.sync as its only tensor instructions.
constexpr int kDenseFromMajor = 9, kDenseBeforeMajor = 12;
constexpr int64_t kDenseTokens = 1024;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

const char* plan_gemv(const DeviceLayer& layer, int tokens, const DeviceLimits& limits,
                      GemvPlan* plan) {
  if (tokens < 1 || tokens > kMaxTokens) return "gemv: expected 1 to 8 tokens";
  if (layer.rows < 1 || layer.strips < 1) return "gemv: empty layer";
  if (limits.sm_count < 1) return "gemv: device without multiprocessors";
  GemvPlan result;
  result.tokens = tokens;
  result.block_tokens = tokens > 2 ? 4 : tokens;
  result.token_blocks = tokens > 4 ? 2 : 1;
  result.slots = 4 / result.block_tokens;

  int set = 0;
  for (int g = 0; g < layer.group_count; ++g) {
    set |= layer.level_kind == LevelKind::kInteger ? kIntegerSet : 1 << layer.groups[g].planes;
  }
  while (result.plane_set < kPlaneSetCount && (kPlaneSets[result.plane_set] & set) != set) {
    ++result.plane_set;
  }
  if (result.plane_set == kPlaneSetCount) return "gemv: no kernel for these numbers of planes";

  // How many tiles a block has: each brings its own work, x is prepared once for all. Blocks are
  // the size of a multiprocessor, so what counts is how many each must do. Units: a warp's
  // instructions for a plane strip, and for x of a strip and token (roughly, in the SASS of sm_90).
  const int64_t tiles = layer.tiles();
  const int64_t tile_work = work_before(layer, layer.strips) * 80;
  const int64_t x_work = int64_t{layer.strips} * 90 * tokens;
  int64_t best = -1;
  for (int each = 1; each <= max_warps(result.token_blocks); ++each) {
    const int64_t waves = ceil_div(ceil_div(tiles, each), limits.sm_count);
    const int64_t cost = waves * (each * tile_work + x_work);
    if (best >= 0 && cost >= best) continue;
    best = cost;
    result.tiles_per_block = each;
  }
  result.parts =
      std::min({max_warps(result.token_blocks) / result.tiles_per_block, kMaxParts, layer.strips});
  const int warps = result.tiles_per_block * result.parts;
  result.threads = warps * kWarp;
  const int64_t blocks = ceil_div(tiles, result.tiles_per_block);
  if (blocks > 0x7fffffff) return "gemv: too many rows";
  result.blocks = static_cast<int>(blocks);

  const int padded = result.block_tokens * result.token_blocks;
  result.ring_offset = kLog8Bytes;
  result.x_offset = result.ring_offset + warps * kRingSlots * kStripBytes;
  const int scattered =
      layer.scattered.start == nullptr
          ? 0
          : result.tiles_per_block * kTileRows * tokens * static_cast<int>(sizeof(float));
  const int per_strip = padded * (2 * kStripColumns + static_cast<int>(sizeof(float)));
  const int left = limits.shared_bytes - result.x_offset - scattered;
  if (left < per_strip) return "gemv: too little shared memory";
  result.chunk_strips = std::min(layer.strips, left / per_strip);
  result.scale_offset = result.x_offset + result.chunk_strips * padded * 2 * kStripColumns;
  result.scattered_offset =
      result.scale_offset + result.chunk_strips * padded * static_cast<int>(sizeof(float));
  result.shared_bytes = result.scattered_offset + scattered;
  *plan = result;
  return nullptr;
}

int strip_coefficients(const DeviceLayer& layer, const PlaceRange* of_strip) {
  int most = 0;
  for (int strip = 0; strip < layer.strips; ++strip) {
    const StripGroup& group = layer.groups[group_of_strip(layer, strip)];
    const int each = group.planes + (layer.constants != nullptr ? 1 : 0);
    most = std::max(most, (of_strip[strip].last - of_strip[strip].first + 1) * each);
  }
  return most;
}

CudaGemmPath choose_gemm(const DeviceLayer& layer, int64_t tokens, int coefficients,
                         const DeviceLimits& limits, bool blas) {
  if (tokens <= kGemvTokens) return CudaGemmPath::kGemv;
  GemmPlan plan;
  const bool fused = plan_gemm(layer, tokens, coefficients, limits, &plan) == nullptr;
  if (!blas) return fused ? CudaGemmPath::kFused : CudaGemmPath::kGemv;
  const bool newer = limits.major >= kDenseFromMajor && limits.major < kDenseBeforeMajor;
  return !fused || (newer && tokens >= kDenseTokens) ? CudaGemmPath::kDense : CudaGemmPath::kFused;
}

const char* plan_gemm(const DeviceLayer& layer, int64_t tokens, int coefficients,
                      const DeviceLimits& limits, GemmPlan* plan) {
  if (tokens < 1) return "gemm: expected one token or more";
  if (layer.rows < 1 || layer.strips < 1) return "gemm: empty layer";
  if (layer.scattered.start != nullptr) return "gemm: scattered integers need the dense path";
  int planes = 0;
  for (int g = 0; g < layer.group_count; ++g) planes = std::max(planes, layer.groups[g].stored);
  for (const int token_blocks : {16, 8}) {
    GemmPlan result;
    const int block = token_blocks * kTokenBlock;
    // Small products: fewer tokens a block, so that there are blocks for all multiprocessors.
    const int64_t grid_rows = ceil_div(layer.tiles(), kGemmTiles);
    if (token_blocks == 16 &&
        (tokens <= 64 || grid_rows * ceil_div(tokens, block) < limits.sm_count)) {
      continue;
    }
    result.token_blocks = token_blocks;
    result.planes = planes;
    result.weight_offset = token_blocks * kXStripBytes;
    result.coefficient_offset = result.weight_offset + kGemmTiles * planes * kStripBytes;
    result.stage_bytes = result.coefficient_offset + coefficients * kGemmTiles * kTileRows * 2;
    result.stage_bytes = (result.stage_bytes + 15) / 16 * 16;
    result.shared_bytes = kGemmStages * result.stage_bytes;
    if (result.shared_bytes > limits.shared_bytes) continue;
    const int64_t grid_tokens = ceil_div(tokens, block);
    if (grid_tokens > 65535 || grid_rows > 0x7fffffff) return "gemm: too many rows or tokens";
    result.grid_rows = static_cast<int>(grid_rows);
    result.grid_tokens = static_cast<int>(grid_tokens);
    result.padded_tokens = grid_tokens * block;
    *plan = result;
    return nullptr;
  }
  return "gemm: the coefficients of a strip do not fit into shared memory";
}

}  // namespace billm::kernels::cuda
