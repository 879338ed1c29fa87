// What a block of the GEMV takes in (gemv_body.h): the planes of a warp, loaded ahead, and x, made
// ready in shared memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/decode.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/strips.h"

namespace billm::kernels::cuda {

struct GemvParams {
  DeviceLayer layer;
  GemvPlan plan;
  const void* x = nullptr;  // [tokens][x_stride]
  void* y = nullptr;        // [tokens][y_stride]
  int64_t x_stride = 0, y_stride = 0;
  bool x_halves = false, y_halves = false;
};

// The planes of one warp, loaded kRingSlots ahead. A lane reads only what it loaded itself.
template <typename Thread>
class PlaneRing {
  static_assert((kRingSlots & (kRingSlots - 1)) == 0);

 public:
  BILLM_KERNEL_BODY PlaneRing(Thread& thread, const DeviceLayer& layer, int64_t tile,
                              StripRange range, uint8_t* ring)
      : thread_(thread),
        layer_(layer),
        tile_(layer.planes + tile * layer.tile_bytes),
        strip_(range.first),
        last_(range.last),
        ring_(ring + (thread.index() % kWarp) * 16) {
    enter(group_of_strip(layer, range.first));
    BILLM_UNROLL
    for (unsigned i = 0; i < kRingSlots; ++i) load(i);
  }
  // The next `Count` plane strips stand in their slots.
  template <int Count>
  BILLM_KERNEL_BODY void await_next() {
    thread_.template wait_copies<kRingSlots - Count>();
  }
  BILLM_KERNEL_BODY void await_all() { thread_.template wait_copies<0>(); }
  // Words of the plane strip that is `ahead` of the current one.
  BILLM_KERNEL_BODY uint4 words(int ahead) const {
    const unsigned slot = (slot_ + static_cast<unsigned>(ahead)) % kRingSlots;
    return *reinterpret_cast<const uint4*>(ring_ + slot * kStripBytes);
  }
  // Frees the current slot and fills it again.
  BILLM_KERNEL_BODY void pop() {
    load(slot_);
    slot_ = (slot_ + 1) % kRingSlots;
  }

 private:
  // What is to be loaded next lies in this group.
  BILLM_KERNEL_BODY void enter(int g) {
    const StripGroup& group = layer_.groups[g];
    group_ = g;
    group_end_ = group.first_strip + group.strips;
    planes_ = group.stored;
    plane_ = 0;
    const int lane = thread_.index() % kWarp;
    lines_left_ = group.lines - (strip_ - group.first_strip) * kStripLines - (lane & 3);
    from_ = tile_ + lane_offset(group, strip_, 0, lane);
  }

  BILLM_KERNEL_BODY void load(unsigned slot) {
    if (strip_ < last_) {
      // A line that is not there is multiplied by x = 0, whatever its bits.
      if (lines_left_ > 0) {
        thread_.copy_16(ring_ + slot * kStripBytes, from_ + plane_ * kLineBytes);
      }
      if (++plane_ == planes_) {
        plane_ = 0;
        lines_left_ -= kStripLines;
        from_ += planes_ * kStripBytes;
        if (++strip_ == group_end_ && strip_ < last_) enter(group_ + 1);
      }
    }
    thread_.commit_copies();  // an empty one, too: wait_copies counts them
  }

  Thread& thread_;
  const DeviceLayer& layer_;
  const uint8_t* tile_;
  const uint8_t* from_;
  int strip_, last_;
  int group_, group_end_, planes_, plane_, lines_left_;
  unsigned slot_ = 0;
  uint8_t* ring_;
};

// x of strips [c0, c1) as bytes in shared memory. Of a strip and token 256 bytes:
//   [bit pair half][high, low][line][4 words], word k = the bytes of bit 7 - k of the line's
//   octets,
// so that the 8 lanes which load at once read 128 consecutive bytes.
template <typename Thread>
BILLM_KERNEL_BODY void prepare_x(Thread& thread, const GemvParams& p, int c0, int c1) {
  const DeviceLayer& layer = p.layer;
  const GemvPlan& plan = p.plan;
  constexpr int kAtOnce = 4;  // strips, so that their loads are under way together
  const int lane = thread.index() % kWarp, warps = plan.threads / kWarp;
  const int padded = plan.block_tokens * plan.token_blocks;
  auto* scales = reinterpret_cast<float*>(thread.shared() + plan.scale_offset);
  for (int s0 = c0 + thread.index() / kWarp; s0 < c1; s0 += kAtOnce * warps) {
    int32_t source[kAtOnce][4];
    float factor[kAtOnce][4];
    BILLM_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const int strip = s0 + i * warps;
      BILLM_UNROLL
      for (int j = 0; j < 4; ++j) source[i][j] = -1, factor[i][j] = 1;
      if (strip >= c1) continue;
      const int64_t at = (int64_t{strip} * kWarp + lane) * 4;
      const int4 four = *reinterpret_cast<const int4*>(layer.source + at);
      source[i][0] = four.x, source[i][1] = four.y, source[i][2] = four.z, source[i][3] = four.w;
      if (layer.column_scale == nullptr) continue;
      const float4 scale = *reinterpret_cast<const float4*>(layer.column_scale + at);
      factor[i][0] = scale.x, factor[i][1] = scale.y, factor[i][2] = scale.z;
      factor[i][3] = scale.w;
    }
    for (int token = 0; token < padded; ++token) {
      float x[kAtOnce][4];
      BILLM_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        BILLM_UNROLL
        for (int j = 0; j < 4; ++j) {
          x[i][j] = 0;
          if (source[i][j] < 0 || token >= plan.tokens) continue;
          x[i][j] = load_number(p.x, p.x_halves, token * p.x_stride + source[i][j]) * factor[i][j];
        }
      }
      BILLM_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        const int strip = s0 + i * warps;
        if (strip >= c1) continue;  // the same for the whole warp
        uint32_t largest = 0;
        BILLM_UNROLL
        for (int j = 0; j < 4; ++j) {
          const uint32_t size = float_bits(x[i][j]) & 0x7fffffffu;
          if (size > largest) largest = size;
        }
        const FixedScale scale = fixed_scale(thread.max_of_warp(largest));
        int q[4];
        BILLM_UNROLL
        for (int j = 0; j < 4; ++j) q[j] = to_fixed(x[i][j], scale.inverse);
        const int64_t at = int64_t{strip - c0} * padded + token;
        auto* words =
            reinterpret_cast<uint32_t*>(thread.shared() + plan.x_offset + at * 2 * kStripColumns);
        const int line = lane >> 3, k = lane & 7;
        const int word = (k >> 2) * 32 + line * 4 + (k & 3);
        words[word] =
            pack_bytes(high_byte(q[0]), high_byte(q[1]), high_byte(q[2]), high_byte(q[3]));
        words[word + 16] =
            pack_bytes(low_byte(q[0]), low_byte(q[1]), low_byte(q[2]), low_byte(q[3]));
        if (lane == 0) scales[at] = scale.scale;
      }
    }
  }
}

}  // namespace billm::kernels::cuda
