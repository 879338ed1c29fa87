// y = W x for 1 to 8 tokens: the body of the kernel, which also runs on the emulated GPU of the
// tests. `Thread` is a thread of a GPU (device_thread.h) or of the emulator.
//
// How signs are decoded, and why. At 60 % of an H100's 3.35 TB/s a multiprocessor gets 9 bytes a
// clock, so each of its four schedulers must do with 57 instructions for the 32 words of plane bits
// that a warp loads at once (34 at 100 %), and with half as many integer and logic instructions,
// since those pipes are half as wide. Per such word (32 weights a lane):
//   XOR into the signs of half2 activations: shift, xor, add for two weights and one token: 48, and
//     sums in fp16;
//   bytes +-1 by __byte_perm and dp4a: 28 + 8 for each token after the first;
//   tables of 16 partial sums in shared memory: 8 x (extract, load, add) = 28 and 8 passes of the
//     load unit, for each token, and the tables must be made;
//   tensor cores, +-1.0 as halves: shift and logic for two weights: 32 + 4 mma, for 8 tokens;
//   tensor cores, +-64 as bytes: shift and logic for four weights: 15 + 2 mma.m16n8k32, for 8
//     columns of bytes.
// The last is the cheapest, and takes 16-bit activations: x = scale * (256 high + low), one scale
// for 128 columns, high and low two of the mma's eight columns. Four pairs (high, low) are left for
// four tokens, or, for one token, for four places (strips.h) beside each other, whose sums are then
// in the four lanes of a group and are multiplied by their levels at once. The sums are integers,
// so exact; the error is that of rounding x to 1/65,024 of the largest of its 128 columns, a
// sixteenth of what fp16 loses there. (5 to 8 tokens: two mma.)
//
// A layer is read once; activations are made ready in each block's shared memory while the first
// planes are on their way. No part of a sum depends on timing.
#pragma once

#include <cstdint>

#include "kernels/cuda/decode.h"
#include "kernels/cuda/gemv_input.h"
#include "kernels/cuda/gemv_sums.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/scattered.h"
#include "kernels/cuda/strips.h"

namespace billm::kernels::cuda {

// All plane groups of a range of strips. `Set` is one of kPlaneSets.
template <int TokenBlocks, int Set, typename Thread>
BILLM_KERNEL_BODY void add_strips(Thread& thread, const GemvParams& p, int64_t tile, int c0,
                                  StripRange range, PlaneRing<Thread>& ring,
                                  float (&y)[TokenBlocks][4]) {
  for (int g = 0; g < p.layer.group_count; ++g) {
    const StripGroup& group = p.layer.groups[g];
    const int first = range.first > group.first_strip ? range.first : group.first_strip;
    const int end = group.first_strip + group.strips;
    const int last = range.last < end ? range.last : end;
    if (first >= last) continue;
    const auto run = [&](auto planes) {
      constexpr int kPlanes = decltype(planes)::value;
      if constexpr ((Set >> kPlanes & 1) != 0) {
        if (kPlanes != kIntegers && group.planes != kPlanes) return;
        WarpSums<TokenBlocks, kPlanes, Thread> sums(thread, p, tile, c0, range, group.planes);
        sums.add(first, last, ring, y);
      }
    };
    run(Number<kIntegers>{});
    run(Number<1>{});
    run(Number<2>{});
    run(Number<3>{});
    run(Number<4>{});
  }
}

// Scattered integers of a tile's rows, a warp a row: out [tokens][32].
template <typename Thread>
BILLM_KERNEL_BODY void add_scattered(Thread& thread, const GemvParams& p, int64_t tile, int part,
                                     float* out) {
  const DeviceLayer& layer = p.layer;
  for (int i = part; i < kTileRows; i += p.plan.parts) {
    const int64_t row = tile * kTileRows + i;
    if (row >= layer.rows) return;
    float sum[kMaxTokens] = {};
    for_scattered(thread, layer, row, [&](int octet, int bit, float weight) {
      const int64_t place = place_in_strips(octet, bit);
      if (layer.column_scale != nullptr) weight *= layer.column_scale[place];
      const int64_t source = layer.source[place];
      BILLM_UNROLL
      for (int token = 0; token < kMaxTokens; ++token) {
        if (token >= p.plan.tokens) break;
        sum[token] += weight * load_number(p.x, p.x_halves, token * p.x_stride + source);
      }
    });
    BILLM_UNROLL
    for (int token = 0; token < kMaxTokens; ++token) {
      if (token >= p.plan.tokens) break;
      BILLM_UNROLL
      for (int d = kWarp / 2; d > 0; d /= 2) sum[token] += thread.shuffle_xor(sum[token], d);
      if (thread.index() % kWarp == 0) out[token * kTileRows + i] = sum[token];
    }
  }
}

template <int TokenBlocks, int Set, typename Thread>
BILLM_KERNEL_BODY void gemv_body(Thread& thread, const GemvParams& p) {
  const DeviceLayer& layer = p.layer;
  const GemvPlan& plan = p.plan;
  const int lane = thread.index() % kWarp, warp = thread.index() / kWarp;
  const int local = warp / plan.parts, part = warp % plan.parts;
  const int64_t tile = int64_t{thread.block_x()} * plan.tiles_per_block + local;
  const bool active = tile < layer.tiles();
  const int tokens = plan.tokens;
  uint8_t* shared = thread.shared();
  uint8_t* rings = shared + plan.ring_offset;

  if (layer.level_kind == LevelKind::kLog8) {
    for (int i = thread.index(); i < 256; i += plan.threads) {
      reinterpret_cast<float*>(shared)[i] = layer.log8[i];
    }
  }
  float y[TokenBlocks][4] = {};
  for (int c0 = 0; c0 < layer.strips; c0 += plan.chunk_strips) {
    const int c1 = c0 + plan.chunk_strips < layer.strips ? c0 + plan.chunk_strips : layer.strips;
    StripRange range = strips_of_part(layer, c0, c1, part, plan.parts);
    if (!active) range.last = range.first;
    PlaneRing<Thread> ring(thread, layer, active ? tile : 0, range,
                           rings + warp * kRingSlots * kStripBytes);
    prepare_x(thread, p, c0, c1);
    thread.sync();
    add_strips<TokenBlocks, Set>(thread, p, tile, c0, range, ring, y);
    ring.await_all();
    thread.sync();  // x is written again, and the rings become `partial`
  }

  // The slots of a token are added within the four lanes of a group, the parts of a tile through
  // shared memory: partial [warp][token][32].
  auto* partial = reinterpret_cast<float*>(rings) + warp * tokens * kTileRows;
  auto* scattered = reinterpret_cast<float*>(shared + plan.scattered_offset);
  BILLM_UNROLL
  for (int n = 0; n < TokenBlocks; ++n) {
    BILLM_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (plan.block_tokens == 1) y[n][j] += thread.shuffle_xor(y[n][j], 1);
      if (plan.block_tokens <= 2) y[n][j] += thread.shuffle_xor(y[n][j], 2);
      const int token = n * 4 + (lane & 3);  // one block of tokens has 4 if there are two
      if ((lane & 3) < plan.block_tokens && token < tokens) {
        partial[token * kTileRows + (lane >> 2) * 4 + j] = y[n][j];
      }
    }
  }
  if (layer.scattered.start != nullptr && active) {
    add_scattered(thread, p, tile, part, scattered + local * tokens * kTileRows);
  }
  thread.sync();
  const auto* all = reinterpret_cast<const float*>(rings);
  for (int i = thread.index(); i < plan.tiles_per_block * tokens * kTileRows; i += plan.threads) {
    const int of_tile = i / (tokens * kTileRows), inside = i % (tokens * kTileRows);
    const int64_t row = (int64_t{thread.block_x()} * plan.tiles_per_block + of_tile) * kTileRows +
                        inside % kTileRows;
    if (row >= layer.rows) continue;
    float sum = layer.scattered.start == nullptr ? 0.0f : scattered[i];
    for (int w = 0; w < plan.parts; ++w) {
      sum += all[(of_tile * plan.parts + w) * tokens * kTileRows + inside];
    }
    store_number(p.y, p.y_halves, inside / kTileRows * p.y_stride + row, sum);
  }
}

}  // namespace billm::kernels::cuda
