// Launch geometry of the CUDA kernels: within every device's limits, all work shared out once.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "kernels/cuda/gemm_body.h"
#include "kernels/cuda/launch.h"

namespace billm::test {
namespace {

namespace cuda = kernels::cuda;

cuda::DeviceLayer layer_of(int64_t rows, std::vector<std::pair<int, int>> groups) {
  cuda::DeviceLayer layer;
  layer.rows = rows;
  for (const auto& [planes, octets] : groups) {
    cuda::StripGroup& group = layer.groups[layer.group_count++];
    group.planes = group.stored = planes;
    group.lines = (octets + 3) / 4;
    group.first_strip = layer.strips;
    group.strips = (octets + 15) / 16;
    layer.strips += group.strips;
  }
  layer.cols = int64_t{128} * layer.strips;
  return layer;
}

TEST(CudaLaunch, PartsHaveEveryStripOnceAndAboutTheSameWork) {
  for (int strips = 1; strips < 300; strips = strips * 5 / 4 + 1) {
    for (const auto& layer :
         {layer_of(32, {{1, strips * 16}}), layer_of(32, {{1, strips * 16}, {3, 40}}),
          layer_of(32, {{4, 100}, {2, strips * 16 - 7}})}) {
      for (int parts = 1; parts <= 16; ++parts) {
        for (const int chunk : {layer.strips, 7, 1}) {
          for (int c0 = 0; c0 < layer.strips; c0 += chunk) {
            const int c1 = std::min(layer.strips, c0 + chunk);
            const double fair =
                static_cast<double>(cuda::work_before(layer, c1) - cuda::work_before(layer, c0)) /
                parts;
            int next = c0;
            for (int part = 0; part < parts; ++part) {
              const cuda::StripRange range = cuda::strips_of_part(layer, c0, c1, part, parts);
              ASSERT_EQ(range.first, next);
              ASSERT_LE(range.first, range.last);
              next = range.last;
              const auto work = static_cast<double>(cuda::work_before(layer, range.last) -
                                                    cuda::work_before(layer, range.first));
              ASSERT_LE(work, fair + 2 * 5);  // a strip of four planes more at either end
            }
            ASSERT_EQ(next, c1);
          }
        }
      }
    }
  }
}

constexpr int kSharedLimits[] = {99 * 1024, 163 * 1024, 227 * 1024};  // sm_86, 80, 90

TEST(CudaLaunch, GemvWithinTheLimitsOfDevices) {
  for (int64_t rows = 1; rows < 300000; rows = rows * 3 / 2 + 1) {
    for (int octets = 1; octets < 20000; octets = octets * 2 + 1) {
      const auto layer = layer_of(rows, {{2, octets}, {1, 24}});
      for (int tokens = 1; tokens <= cuda::kMaxTokens; ++tokens) {
        for (const int shared : kSharedLimits) {
          const cuda::DeviceLimits limits = {.sm_count = 132, .shared_bytes = shared};
          cuda::GemvPlan plan;
          ASSERT_EQ(cuda::plan_gemv(layer, tokens, limits, &plan), nullptr);
          ASSERT_LE(plan.shared_bytes, shared);
          ASSERT_EQ(plan.threads, 32 * plan.parts * plan.tiles_per_block);
          ASSERT_LE(plan.threads, plan.token_blocks == 1 ? 512 : 256);
          ASSERT_GE(int64_t{plan.blocks} * plan.tiles_per_block, layer.tiles());
          ASSERT_LT(int64_t{plan.blocks - 1} * plan.tiles_per_block, layer.tiles());
          ASSERT_GE(plan.block_tokens * plan.token_blocks, tokens);
          ASSERT_EQ(plan.slots * plan.block_tokens, 4);
          ASSERT_GE(plan.chunk_strips, 1);
          // Parts of shared memory do not overlap, and what is read in 16 bytes is aligned to 16.
          const int padded = plan.block_tokens * plan.token_blocks;
          ASSERT_GE(plan.ring_offset, 1024);
          ASSERT_GE(plan.x_offset, plan.ring_offset + plan.threads / 32 * 8 * 512);
          ASSERT_GE(plan.scale_offset, plan.x_offset + plan.chunk_strips * padded * 256);
          ASSERT_GE(plan.scattered_offset, plan.scale_offset + plan.chunk_strips * padded * 4);
          ASSERT_EQ(plan.ring_offset % 16, 0);
          ASSERT_EQ(plan.x_offset % 16, 0);
        }
      }
    }
  }
}

// The shapes of large models fill an H100: one wave, nearly all multiprocessors.
TEST(CudaLaunch, GemvFillsTheDevice) {
  const std::pair<int64_t, int> shapes[] = {{4096, 4096},  {11008, 4096}, {4096, 11008},
                                            {14336, 4096}, {8192, 28672}, {28672, 8192}};
  for (const auto& [rows, cols] : shapes) {
    for (const int planes : {1, 2}) {
      cuda::GemvPlan plan;
      ASSERT_EQ(cuda::plan_gemv(layer_of(rows, {{planes, cols / 8}}), 1,
                                {.sm_count = 132, .shared_bytes = 227 * 1024}, &plan),
                nullptr);
      EXPECT_TRUE(plan.blocks >= 112 && plan.blocks <= 132) << rows << " " << plan.blocks;
      EXPECT_GE(plan.threads, 12 * 32) << rows;
      EXPECT_EQ(plan.chunk_strips, cols / 128) << rows;
    }
  }
}

TEST(CudaLaunch, GemmWithinTheLimitsOfDevices) {
  for (int64_t rows = 1; rows < 300000; rows = rows * 3 / 2 + 1) {
    const auto layer = layer_of(rows, {{3, 520}, {4, 24}});
    for (int64_t tokens = 1; tokens < 100000; tokens = tokens * 3 / 2 + 1) {
      for (const int shared : kSharedLimits) {
        cuda::GemmPlan plan;
        const char* problem = cuda::plan_gemm(layer, tokens, 12, {108, shared}, &plan);
        ASSERT_EQ(problem, nullptr) << problem;
        ASSERT_LE(plan.shared_bytes, shared);
        ASSERT_EQ(plan.stage_bytes % 16, 0);
        ASSERT_GE(int64_t{plan.grid_rows} * 4, layer.tiles());
        ASSERT_GE(plan.padded_tokens, tokens);
        ASSERT_EQ(plan.padded_tokens, int64_t{plan.grid_tokens} * plan.token_blocks * 8);
        ASSERT_LE(plan.grid_tokens, 65535);
        ASSERT_GE(plan.weight_offset, plan.token_blocks * 2048);
        ASSERT_GE(plan.coefficient_offset, plan.weight_offset + 4 * 4 * 512);
        ASSERT_GE(plan.stage_bytes, plan.coefficient_offset + 12 * 128 * 2);
      }
    }
  }
  cuda::GemmPlan plan;
  EXPECT_NE(cuda::plan_gemm(layer_of(64, {{8, 16}}), 64, 16 * 9, {108, 48 * 1024}, &plan), nullptr);
}

// Where halves of x go: every chunk once, in both orders.
TEST(CudaLaunch, TokenChunksStandOnce) {
  for (const bool in_blocks : {false, true}) {
    std::set<int64_t> chunks;
    for (int token = 0; token < 24; ++token) {
      for (int strip = 0; strip < 5; ++strip) {
        for (int i = 0; i < 16; ++i) {
          chunks.insert(cuda::token_chunk(in_blocks, 5, token, strip, i / 4, i % 4));
        }
      }
    }
    EXPECT_EQ(chunks.size(), 24u * 5 * 16);
    EXPECT_EQ(*chunks.rbegin(), 24 * 5 * 16 - 1);
  }
}

}  // namespace
}  // namespace billm::test
