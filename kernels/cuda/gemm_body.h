// y = x W^T for many tokens: bodies of the kernels, also run on the emulated GPU of the tests.
//
//   prepare_tokens   x as halves, in the order of the strips and of the mma's fragments
//   gemm_body        decodes W in registers, straight into operand A of mma.m16n8k16: the lanes
//   hold
//                    what it wants (strips.h), so W never goes through shared memory as halves. A
//                    block has 4 tiles, a warp each, and 64 or 128 tokens, whose x comes by
//                    cp.async, one strip ahead.
//   dense_body       W as a dense matrix of halves in run order, for a library's GEMM
//
// Per plane and two weights: shift, logic, and an add for each plane after the first. With 128
// tokens a warp does 32 mma for 8 such pairs: 40 instructions for two planes beside 256 clocks of
// the tensor cores' time at the A100's rate (128 at twice it).
//
// Halves: W is scaled by the layer's unit, a power of two, so that it is at most 1, and x of a
// token by another one if it is beyond 32,768. Sums are fp32.
#pragma once

#include <cstdint>

#include "kernels/cuda/decode.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/scattered.h"
#include "kernels/cuda/strips.h"

namespace billm::kernels::cuda {

inline constexpr int kPrepareThreads = 256;
inline constexpr float kLargestToken = 32768;

struct TokensParams {
  DeviceLayer layer;
  const void* x = nullptr;  // [tokens][x_stride]
  int64_t x_stride = 0, tokens = 0;
  bool x_halves = false;
  bool in_blocks = false;   // of 8 tokens, for gemm_body; else row by row
  uint16_t* out = nullptr;  // [padded tokens][strips][128] or [blocks of 8][strips][4][8][4][8]
  float* scale = nullptr;   // [padded tokens]: what y must be multiplied by
};

// Index of 8 halves (chunk `q` of a line) in TokensParams::out, in units of 8.
BILLM_HOST_DEVICE inline int64_t token_chunk(bool in_blocks, int strips, int64_t token, int strip,
                                             int line, int q) {
  if (!in_blocks) return ((token * strips + strip) * kStripLines + line) * 4 + q;
  return (((token / kTokenBlock * strips + strip) * 4 + q) * kTokenBlock + token % kTokenBlock) *
             kStripLines +
         line;
}

// A block has one token; its grid, the padded tokens. Shared memory: a word for each warp.
template <typename Thread>
BILLM_KERNEL_BODY void prepare_token(Thread& thread, const TokensParams& p) {
  const DeviceLayer& layer = p.layer;
  const int64_t token = thread.block_x();
  const bool inside = token < p.tokens;
  const auto value = [&](int64_t at) {
    const int32_t source = layer.source[at];
    if (source < 0 || !inside) return 0.0f;
    const float x = load_number(p.x, p.x_halves, token * p.x_stride + source);
    return layer.column_scale == nullptr ? x : x * layer.column_scale[at];
  };
  uint32_t largest = 0;
  for (int64_t at = thread.index(); at < int64_t{layer.strips} * kStripColumns;
       at += kPrepareThreads) {
    const uint32_t size = float_bits(value(at)) & 0x7fffffffu;
    if (size > largest) largest = size;
  }
  auto* of_warp = reinterpret_cast<uint32_t*>(thread.shared());
  largest = thread.max_of_warp(largest);
  if (thread.index() % kWarp == 0) of_warp[thread.index() / kWarp] = largest;
  thread.sync();
  for (int w = 0; w < kPrepareThreads / kWarp; ++w) {
    if (of_warp[w] > largest) largest = of_warp[w];
  }
  // 2^-n by its exponent bits; what is not finite stays so.
  int shift = static_cast<int>(largest >> 23) - 127 - 14;
  if (shift < 0 || largest >= 0x7f800000u) shift = 0;
  const float down = float_of_bits(static_cast<uint32_t>(127 - shift) << 23);
  if (thread.index() == 0) {
    p.scale[token] = float_of_bits(static_cast<uint32_t>(127 + shift) << 23);
  }
  for (int i = thread.index(); i < layer.strips * kStripLines * 4; i += kPrepareThreads) {
    const int strip = i / 16, line = i / 4 % 4, q = i % 4;
    uint32_t words[4] = {};
    BILLM_UNROLL
    for (int j = 0; j < 8; ++j) {
      const int bit = half_bit(8 * q + j);
      const int64_t at =
          int64_t{strip} * kStripColumns + column_at(line * kLineOctets + bit / 8, bit % 8);
      words[j / 2] |= uint32_t{float_to_half_bits(value(at) * down)} << (16 * (j & 1));
    }
    const int64_t chunk = token_chunk(p.in_blocks, layer.strips, token, strip, line, q);
    *reinterpret_cast<uint4*>(p.out + chunk * 8) = {words[0], words[1], words[2], words[3]};
  }
}

struct GemmParams {
  DeviceLayer layer;
  GemmPlan plan;
  const uint16_t* x = nullptr;   // of prepare_token, in blocks
  const float* scale = nullptr;  // [padded tokens]
  void* y = nullptr;
  int64_t y_stride = 0, tokens = 0;
  bool y_halves = false;
};

// Minus the coefficients of a row's planes and its constant, as halves of unit 1:
// coefficient [place][planes, constant][row of the block].
template <typename Thread>
BILLM_KERNEL_BODY void load_coefficients(Thread& thread, const GemmParams& p, int strip,
                                         uint16_t* coefficient) {
  const DeviceLayer& layer = p.layer;
  const Schedule& schedule = layer.schedules[schedule_index(1)];
  const StripGroup& group = layer.groups[group_of_strip(layer, strip)];
  const int64_t tile = int64_t{thread.block_x()} * kGemmTiles + thread.index() / kWarp;
  const int row = thread.index() % kWarp;
  const bool inside = tile < layer.tiles();
  const bool constants = layer.constants != nullptr;
  const int each = group.planes + (constants ? 1 : 0);
  const PlaceRange places = schedule.of_strip[strip];
  const int levels = stored_levels(layer.level_kind, layer.pruned, group.planes);
  for (int i = places.first; i <= places.last; ++i) {
    uint16_t* out = coefficient + (i - places.first) * each * kGemmThreads + thread.index();
    const Place place = schedule.places[i];
    float level[kMaxPlanes] = {}, c[kMaxPlanes] = {};
    for (int l = 0; l < levels; ++l) {
      if (inside) level[l] = level_at(layer, layer.log8, tile, place.level_row + l, row);
    }
    plane_coefficients(layer.level_kind, layer.pruned, group.planes, level, c);
    for (int plane = 0; plane < group.planes; ++plane) {
      out[plane * kGemmThreads] = float_to_half_bits(-c[plane] / layer.unit);
    }
    if (!constants) continue;
    const float constant =
        inside ? layer.constants[(tile * layer.segments + place.segment) * kTileRows + row] : 0.0f;
    out[group.planes * kGemmThreads] = float_to_half_bits(constant / layer.unit);
  }
}

template <typename Thread>
BILLM_KERNEL_BODY void load_stage(Thread& thread, const GemmParams& p, int token_blocks, int strip,
                                  uint8_t* stage) {
  const DeviceLayer& layer = p.layer;
  const int warp = thread.index() / kWarp, lane = thread.index() % kWarp;
  static_assert(kGemmThreads * 16 == kXStripBytes);
  for (int n = 0; n < token_blocks; ++n) {
    const int64_t block = int64_t{thread.block_y()} * token_blocks + n;
    const auto* from = reinterpret_cast<const uint8_t*>(p.x) +
                       (block * layer.strips + strip) * kXStripBytes + thread.index() * 16;
    thread.copy_16(stage + n * kXStripBytes + thread.index() * 16, from);
  }
  const int64_t tile = int64_t{thread.block_x()} * kGemmTiles + warp;
  const StripGroup& group = layer.groups[group_of_strip(layer, strip)];
  for (int plane = 0; plane < group.stored && tile < layer.tiles(); ++plane) {
    // A line that is not there is multiplied by x = 0, whatever its bits.
    const int64_t offset = lane_offset(group, strip, plane, lane);
    if (offset < 0) continue;
    thread.copy_16(
        stage + p.plan.weight_offset + (warp * p.plan.planes + plane) * kStripBytes + lane * 16,
        layer.planes + tile * layer.tile_bytes + offset);
  }
  thread.commit_copies();
}

// One of the planes that unfold() makes.
BILLM_HOST_DEVICE inline uint32_t unfold_plane(uint32_t sign, uint32_t low, uint32_t high,
                                               int plane) {
  uint32_t planes[kFoldedPlanes];
  unfold(sign, low, high, planes);
  return plane == 0 ? planes[0] : plane == 1 ? planes[1] : plane == 2 ? planes[2] : planes[3];
}

// The weights of one half of a strip's columns as operands A: a[j][k] is the row 4 g + j, the bits
// 15 - 8 half - k and 31 - 8 half - k of its word.
template <typename Thread>
BILLM_KERNEL_BODY void decode_half_strip(Thread& thread, const GemmParams& p, int strip, int half,
                                         const uint8_t* stage, uint32_t (&a)[4][8]) {
  const DeviceLayer& layer = p.layer;
  const Schedule& schedule = layer.schedules[schedule_index(1)];
  const StripGroup& group = layer.groups[group_of_strip(layer, strip)];
  const int warp = thread.index() / kWarp, lane = thread.index() % kWarp;
  const int first = schedule.of_strip[strip].first & 255;
  const uint32_t of_octets = *reinterpret_cast<const uint32_t*>(
      schedule.place_of_octet + strip * kStripOctets + (lane & 3) * kLineOctets);
  const int each = group.planes + (layer.constants != nullptr ? 1 : 0);
  const auto* all = reinterpret_cast<const uint16_t*>(stage + p.plan.coefficient_offset) +
                    warp * kWarp + (lane >> 2) * 4;
  const uint16_t* low =
      all + ((static_cast<int>(of_octets >> (8 * (1 - half))) - first) & 255) * each * kGemmThreads;
  const uint16_t* high =
      all + ((static_cast<int>(of_octets >> (8 * (3 - half))) - first) & 255) * each * kGemmThreads;
  for (int plane = 0; plane < each; ++plane) {
    const uint2 one = *reinterpret_cast<const uint2*>(low + plane * kGemmThreads);
    const uint2 two = *reinterpret_cast<const uint2*>(high + plane * kGemmThreads);
    const uint32_t c[4] = {(one.x & 0xffffu) | two.x << 16, one.x >> 16 | (two.x & 0xffff0000u),
                           (one.y & 0xffffu) | two.y << 16, one.y >> 16 | (two.y & 0xffff0000u)};
    if (plane == group.planes) {
      BILLM_UNROLL
      for (int j = 0; j < 4; ++j) {
        BILLM_UNROLL
        for (int k = 0; k < 8; ++k) a[j][k] = add_halves(a[j][k], c[j]);
      }
      break;
    }
    const auto stored = [&](int i) {
      return *reinterpret_cast<const uint4*>(stage + p.plan.weight_offset +
                                             (warp * p.plan.planes + i) * kStripBytes + lane * 16);
    };
    const bool folded = group.stored < group.planes;
    const uint4 four = stored(folded ? 0 : plane);
    uint32_t w[4] = {four.x, four.y, four.z, four.w};
    if (folded) {
      const uint4 low = stored(1), high = stored(2);
      w[0] = unfold_plane(w[0], low.x, high.x, plane);
      w[1] = unfold_plane(w[1], low.y, high.y, plane);
      w[2] = unfold_plane(w[2], low.z, high.z, plane);
      w[3] = unfold_plane(w[3], low.w, high.w, plane);
    }
    BILLM_UNROLL
    for (int j = 0; j < 4; ++j) {
      BILLM_UNROLL
      for (int k = 0; k < 8; ++k) {
        const uint32_t value = signs_to_halves(w[j], 8 * half + k, c[j]);
        a[j][k] = plane == 0 ? value : add_halves(a[j][k], value);
      }
    }
  }
}

template <int TokenBlocks, typename Thread>
BILLM_KERNEL_BODY void gemm_body(Thread& thread, const GemmParams& p) {
  const DeviceLayer& layer = p.layer;
  const int warp = thread.index() / kWarp, lane = thread.index() % kWarp;
  const int64_t tile = int64_t{thread.block_x()} * kGemmTiles + warp;
  const auto stage = [&](int strip) {
    return thread.shared() + strip % kGemmStages * p.plan.stage_bytes;
  };
  const auto load = [&](int strip) {
    load_stage(thread, p, TokenBlocks, strip, stage(strip));
    load_coefficients(thread, p, strip,
                      reinterpret_cast<uint16_t*>(stage(strip) + p.plan.coefficient_offset));
  };
  float sums[TokenBlocks][2][4] = {};
  load(0);
  for (int strip = 0; strip < layer.strips; ++strip) {
    thread.template wait_copies<0>();
    thread.sync();  // this stage is there, and no one reads the other any more
    if (strip + 1 < layer.strips) load(strip + 1);
    BILLM_UNROLL
    for (int half = 0; half < 2; ++half) {
      uint32_t a[4][8];
      decode_half_strip(thread, p, strip, half, stage(strip), a);
      thread.sync_warp();  // lanes part where places differ; an mma wants all of them
      BILLM_UNROLL
      for (int q = 0; q < 2; ++q) {
        BILLM_UNROLL
        for (int n = 0; n < TokenBlocks; ++n) {
          const uint4 b = *reinterpret_cast<const uint4*>(stage(strip) + n * kXStripBytes +
                                                          ((2 * half + q) * kWarp + lane) * 16);
          BILLM_UNROLL
          for (int m = 0; m < 2; ++m) {
            const auto& one = a[2 * m];
            const auto& two = a[2 * m + 1];
            thread.mma_halves(sums[n][m], one[4 * q], two[4 * q], one[4 * q + 1], two[4 * q + 1],
                              b.x, b.y);
            thread.mma_halves(sums[n][m], one[4 * q + 2], two[4 * q + 2], one[4 * q + 3],
                              two[4 * q + 3], b.z, b.w);
          }
        }
      }
    }
  }
  if (tile >= layer.tiles()) return;
  // Sums 0, 2 are the rows 4 g + 2 m, + 1 of token 2 t, sums 1, 3 those of token 2 t + 1.
  const int64_t row = tile * kTileRows + (lane >> 2) * 4;
  BILLM_UNROLL
  for (int n = 0; n < TokenBlocks; ++n) {
    BILLM_UNROLL
    for (int odd = 0; odd < 2; ++odd) {
      const int64_t token =
          (int64_t{thread.block_y()} * TokenBlocks + n) * kTokenBlock + 2 * (lane & 3) + odd;
      if (token >= p.tokens) continue;
      const float scale = p.scale[token] * layer.unit;
      BILLM_UNROLL
      for (int j = 0; j < 4; ++j) {
        if (row + j >= layer.rows) continue;
        store_number(p.y, p.y_halves, token * p.y_stride + row + j,
                     sums[n][j >> 1][2 * (j & 1) + odd] * scale);
      }
    }
  }
}

// --- W as a dense matrix -----------------------------------------------------------------------

struct DenseParams {
  DeviceLayer layer;
  uint16_t* w = nullptr;  // [rows][strips][128] halves of unit 1, columns as prepare_token has them
};

inline constexpr int kDenseWarps = 8;  // of a block, a strip of a tile each

template <typename Thread>
BILLM_KERNEL_BODY void dense_body(Thread& thread, const DenseParams& p) {
  const DeviceLayer& layer = p.layer;
  const int lane = thread.index() % kWarp;
  const int64_t item = int64_t{thread.block_x()} * kDenseWarps + thread.index() / kWarp;
  const int64_t tile = item / layer.strips;
  const int strip = static_cast<int>(item % layer.strips);
  if (tile >= layer.tiles()) return;
  const Schedule& schedule = layer.schedules[schedule_index(1)];
  const StripGroup& group = layer.groups[group_of_strip(layer, strip)];
  const int first = schedule.of_strip[strip].first;
  const int levels = stored_levels(layer.level_kind, layer.pruned, group.planes);
  for (int j = 0; j < 4; ++j) {
    const int of_tile = (lane >> 2) * 4 + j;
    const int64_t row = tile * kTileRows + of_tile;
    if (row >= layer.rows) return;
    uint32_t word[kMaxPlanes] = {};
    for (int plane = 0; plane < group.stored; ++plane) {
      const int64_t offset = lane_offset(group, strip, plane, lane);
      if (offset < 0) continue;
      word[plane] = *reinterpret_cast<const uint32_t*>(layer.planes + tile * layer.tile_bytes +
                                                       offset + 4 * j);
    }
    if (group.stored < group.planes) unfold<uint32_t>(word[0], word[1], word[2], word);
    float value[8 * kLineOctets];  // in the order of half_bit
    for (int octet = 0; octet < kLineOctets; ++octet) {
      const int index =
          schedule.place_of_octet[strip * kStripOctets + (lane & 3) * kLineOctets + octet];
      const Place place = schedule.places[first + ((index - first) & 255)];
      float level[kMaxPlanes] = {}, c[kMaxPlanes] = {};
      for (int l = 0; l < levels; ++l) {
        level[l] = level_at(layer, layer.log8, tile, place.level_row + l, of_tile);
      }
      plane_coefficients(layer.level_kind, layer.pruned, group.planes, level, c);
      const float constant =
          layer.constants == nullptr
              ? 0.0f
              : layer.constants[(tile * layer.segments + place.segment) * kTileRows + of_tile];
      for (int bit = 8 * octet; bit < 8 * octet + 8; ++bit) {
        float sum = constant;
        for (int plane = 0; plane < group.planes; ++plane) {
          sum += ((word[plane] >> bit) & 1) != 0 ? c[plane] : -c[plane];
        }
        value[bit < 16 ? 2 * (15 - bit) : 2 * (31 - bit) + 1] = sum / layer.unit;
      }
    }
    for (int q = 0; q < 4; ++q) {
      uint32_t words[4];
      BILLM_UNROLL
      for (int i = 0; i < 4; ++i) {
        words[i] = uint32_t{float_to_half_bits(value[8 * q + 2 * i])} |
                   uint32_t{float_to_half_bits(value[8 * q + 2 * i + 1])} << 16;
      }
      const int64_t chunk = token_chunk(false, layer.strips, row, strip, lane & 3, q);
      *reinterpret_cast<uint4*>(p.w + chunk * 8) = {words[0], words[1], words[2], words[3]};
    }
  }
}

// Adds the scattered integers to dense_body's matrix, a warp a row.
template <typename Thread>
BILLM_KERNEL_BODY void dense_scattered_body(Thread& thread, const DenseParams& p) {
  const DeviceLayer& layer = p.layer;
  const int64_t row = int64_t{thread.block_x()} * kDenseWarps + thread.index() / kWarp;
  if (row >= layer.rows) return;
  for_scattered(thread, layer, row, [&](int octet, int bit, float weight) {
    const int in_line = octet % kLineOctets * 8 + bit;
    const int h = in_line < 16 ? 2 * (15 - in_line) : 2 * (31 - in_line) + 1;
    const int line = octet % kStripOctets / kLineOctets;
    const int64_t chunk = token_chunk(false, layer.strips, row, octet / kStripOctets, line, h / 8);
    uint16_t& value = p.w[chunk * 8 + h % 8];
    value = float_to_half_bits(half_bits_to_float(value) + weight / layer.unit);
  });
}

// y *= scale[token], where the library's GEMM cannot. A block has a token.
struct ScaleParams {
  const float* scale = nullptr;
  void* y = nullptr;
  int64_t y_stride = 0, rows = 0;
  bool y_halves = false;
};

template <typename Thread>
BILLM_KERNEL_BODY void scale_body(Thread& thread, const ScaleParams& p) {
  const float scale = p.scale[thread.block_x()];
  if (scale == 1) return;
  for (int64_t row = thread.index(); row < p.rows; row += kPrepareThreads) {
    const int64_t at = thread.block_x() * p.y_stride + row;
    store_number(p.y, p.y_halves, at, load_number(p.y, p.y_halves, at) * scale);
  }
}

}  // namespace billm::kernels::cuda
