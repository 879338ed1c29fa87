// What a warp of the GEMV sums up (gemv_body.h, which opens with how and why): signs times bytes of
// x on the tensor cores, and levels times these sums.
#pragma once

#include <cstdint>

#include "kernels/cuda/decode.h"
#include "kernels/cuda/gemv_input.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/strips.h"

namespace billm::kernels::cuda {

// Which column of the mma a lane has. As supplier of B it is column lane / 4: pair lane / 8, high
// or low; as owner of sums (C) it has the pair lane % 4. A pair is a slot and a token.
struct Pair {
  int slot, token;
};
BILLM_HOST_DEVICE inline Pair pair_of(int index, int block_tokens) {
  return {index / block_tokens, index % block_tokens};
}

// One warp's sums over a range of strips of one plane group, P planes (integers: kIntegers, any
// number).
inline constexpr int kIntegers = 0;
static_assert(kIntegerSet == 1 << kIntegers);
template <int TokenBlocks, int P, typename Thread>
class WarpSums {
  static constexpr int kSets = P == kIntegers ? 1 : P;

 public:
  BILLM_KERNEL_BODY WarpSums(Thread& thread, const GemvParams& p, int64_t tile, int c0,
                             StripRange range, int planes)
      : thread_(thread),
        p_(p),
        schedule_(p.layer.schedules[schedule_index(p.plan.slots)]),
        tile_(tile),
        c0_(c0),
        range_(range),
        planes_(P == kIntegers ? planes : P) {
    const int lane = thread.index() % kWarp;
    group_ = lane >> 2;
    line_ = lane & 3;
    supplied_ = pair_of(lane >> 3, p.plan.block_tokens);
    owned_ = pair_of(line_, p.plan.block_tokens);
  }

  // Strips [first, last), a part of the range.
  BILLM_KERNEL_BODY void add(int first, int last, PlaneRing<Thread>& ring,
                             float (&y)[TokenBlocks][4]) {
    const int slots = p_.plan.slots;
    int round = -1;
    for (int strip = first; strip < last; ++strip) {
      const PlaceRange places = schedule_.of_strip[strip];
      const uint32_t of_octets = *reinterpret_cast<const uint32_t*>(
          schedule_.place_of_octet + strip * kStripOctets + line_ * kLineOctets);
      uint32_t x[TokenBlocks][8];
      load_x(strip, x);
      const int last_round = places.last / slots;
      for (int r = places.first / slots; r <= last_round; ++r) {
        if (r != round) {
          if (round >= 0) flush(y);
          begin(r);
          round = r;
        }
        const uint32_t mask =
            bytes_equal(of_octets, static_cast<uint32_t>(r * slots + supplied_.slot) & 255u);
        uint32_t b[TokenBlocks][8];
        BILLM_UNROLL
        for (int n = 0; n < TokenBlocks; ++n) {
          BILLM_UNROLL
          for (int k = 0; k < 8; ++k) b[n][k] = x[n][k] & mask;
        }
        multiply(b, r < last_round, ring);
      }
    }
    if (round >= 0) flush(y);
  }

 private:
  // The words of B for this lane: word k is for bit 7 - k.
  BILLM_KERNEL_BODY void load_x(int strip, uint32_t (&x)[TokenBlocks][8]) const {
    const int lane = thread_.index() % kWarp, padded = p_.plan.block_tokens * TokenBlocks;
    BILLM_UNROLL
    for (int n = 0; n < TokenBlocks; ++n) {
      const int64_t at = int64_t{strip - c0_} * padded + n * p_.plan.block_tokens + supplied_.token;
      const uint8_t* bytes = thread_.shared() + p_.plan.x_offset + at * 2 * kStripColumns +
                             (group_ & 1) * 64 + (lane & 3) * 16;
      const uint4 one = *reinterpret_cast<const uint4*>(bytes);
      const uint4 two = *reinterpret_cast<const uint4*>(bytes + kStripColumns);
      x[n][0] = one.x, x[n][1] = one.y, x[n][2] = one.z, x[n][3] = one.w;
      x[n][4] = two.x, x[n][5] = two.y, x[n][6] = two.z, x[n][7] = two.w;
    }
  }

  // A round begins: its sums are 0, and what its place is worth is fetched while they are summed.
  BILLM_KERNEL_BODY void begin(int round) {
    BILLM_UNROLL
    for (int n = 0; n < TokenBlocks; ++n) {
      BILLM_UNROLL
      for (int i = 0; i < 4; ++i) {
        ones_[n][i] = 0;
        BILLM_UNROLL
        for (int set = 0; set < kSets; ++set) sums_[set][n][0][i] = sums_[set][n][1][i] = 0;
      }
    }
    const int4 place =
        *reinterpret_cast<const int4*>(schedule_.places + round * p_.plan.slots + owned_.slot);
    place_.strip = place.x;
    place_.level_row = place.y;
    place_.segment = place.z;
    mine_ = place_.strip >= range_.first && place_.strip < range_.last;
    if (p_.layer.level_kind != LevelKind::kLog8 || !mine_) return;
    const uint8_t* codes =
        p_.layer.codes + (tile_ * p_.layer.level_rows + place_.level_row) * kTileRows + group_ * 4;
    BILLM_UNROLL
    for (int i = 0; i < kSets; ++i) {
      const int stored = i - (p_.layer.pruned ? 1 : 0);
      codes_[i] = stored < 0 ? 0 : *reinterpret_cast<const uint32_t*>(codes + stored * kTileRows);
    }
  }

  // Adds a strip's planes. `keep`: they are wanted again.
  BILLM_KERNEL_BODY void multiply(const uint32_t (&b)[TokenBlocks][8], bool keep,
                                  PlaneRing<Thread>& ring) {
    thread_.sync_warp();  // lanes part in flush(); an mma wants all of them
    if (keep) ring.await_all();
    if constexpr (P == kIntegers) {
      for (int plane = 0; plane < planes_; ++plane) {
        int one[TokenBlocks][2][4] = {};
        multiply_plane(b, keep, plane, ring, one);
        BILLM_UNROLL
        for (int n = 0; n < TokenBlocks; ++n) {
          BILLM_UNROLL
          for (int i = 0; i < 4; ++i) {
            sums_[0][n][0][i] += one[n][0][i] * (1 << plane);
            sums_[0][n][1][i] += one[n][1][i] * (1 << plane);
          }
        }
      }
    } else if constexpr (P == kFoldedPlanes) {
      if (!keep) ring.template await_next<kFoldedStored>();
      const uint4 sign = ring.words(0), low = ring.words(1), high = ring.words(2);
      uint32_t w[4][kFoldedPlanes];
      unfold(sign.x, low.x, high.x, w[0]);
      unfold(sign.y, low.y, high.y, w[1]);
      unfold(sign.z, low.z, high.z, w[2]);
      unfold(sign.w, low.w, high.w, w[3]);
      BILLM_UNROLL
      for (int plane = 0; plane < P; ++plane) {
        multiply_words(b, {w[0][plane], w[1][plane], w[2][plane], w[3][plane]}, sums_[plane]);
      }
      for (int i = 0; i < kFoldedStored && !keep; ++i) ring.pop();
    } else {
      BILLM_UNROLL
      for (int plane = 0; plane < P; ++plane) {
        multiply_plane(b, keep, plane, ring, sums_[plane]);
      }
    }
    if (p_.layer.constants == nullptr) return;
    BILLM_UNROLL
    for (int s = 0; s < 4; ++s) {
      BILLM_UNROLL
      for (int n = 0; n < TokenBlocks; ++n) {
        thread_.mma_bytes(ones_[n], kAllOnes, kAllOnes, kAllOnes, kAllOnes, b[n][2 * s],
                          b[n][2 * s + 1]);
      }
    }
  }

  BILLM_KERNEL_BODY void multiply_plane(const uint32_t (&b)[TokenBlocks][8], bool keep, int plane,
                                        PlaneRing<Thread>& ring, int (&sums)[TokenBlocks][2][4]) {
    if (!keep) ring.template await_next<1>();
    multiply_words(b, ring.words(keep ? plane : 0), sums);
    if (!keep) ring.pop();
  }

  BILLM_KERNEL_BODY void multiply_words(const uint32_t (&b)[TokenBlocks][8], uint4 four,
                                        int (&sums)[TokenBlocks][2][4]) {
    const uint32_t w[4] = {four.x, four.y, four.z, four.w};
    BILLM_UNROLL
    for (int s = 0; s < 4; ++s) {
      BILLM_UNROLL
      for (int m = 0; m < 2; ++m) {
        const uint32_t a0 = signs_to_bytes(w[2 * m], 2 * s);
        const uint32_t a1 = signs_to_bytes(w[2 * m + 1], 2 * s);
        const uint32_t a2 = signs_to_bytes(w[2 * m], 2 * s + 1);
        const uint32_t a3 = signs_to_bytes(w[2 * m + 1], 2 * s + 1);
        BILLM_UNROLL
        for (int n = 0; n < TokenBlocks; ++n) {
          thread_.mma_bytes(sums[n][m], a0, a1, a2, a3, b[n][2 * s], b[n][2 * s + 1]);
        }
      }
    }
  }

  // A round ends: y += what its place is worth times its sums. Row j of the lane's four.
  BILLM_KERNEL_BODY void flush(float (&y)[TokenBlocks][4]) {
    if (!mine_) return;  // the sums are 0
    const DeviceLayer& layer = p_.layer;
    const auto* log8 = reinterpret_cast<const float*>(thread_.shared());
    const auto* scales = reinterpret_cast<const float*>(thread_.shared() + p_.plan.scale_offset);
    float scale[TokenBlocks];
    BILLM_UNROLL
    for (int n = 0; n < TokenBlocks; ++n) {
      scale[n] = scales[(place_.strip - c0_) * p_.plan.block_tokens * TokenBlocks +
                        n * p_.plan.block_tokens + owned_.token] *
                 (1.0f / kSignUnit);
    }
    float levels[kSets][4];
    BILLM_UNROLL
    for (int i = 0; i < kSets; ++i) {
      const int stored = i - (layer.pruned ? 1 : 0);
      if (stored < 0) {
        set_row(levels[i], {0, 0, 0, 0});
      } else if (layer.level_kind == LevelKind::kLog8) {
        const uint32_t four = codes_[i];
        set_row(levels[i], {log8[four & 255u], log8[(four >> 8) & 255u], log8[(four >> 16) & 255u],
                            log8[four >> 24]});
      } else {
        const int64_t row = tile_ * layer.level_rows + place_.level_row + stored;
        set_row(levels[i], rows_of_lane(layer.levels, row));
      }
    }
    float constants[4];
    set_row(constants, {0, 0, 0, 0});
    if (layer.constants != nullptr) {
      set_row(constants, rows_of_lane(layer.constants, tile_ * layer.segments + place_.segment));
    }
    BILLM_UNROLL
    for (int j = 0; j < 4; ++j) {
      float level[kSets], coefficient[kSets];
      BILLM_UNROLL
      for (int i = 0; i < kSets; ++i) level[i] = levels[i][j];
      if constexpr (P == kIntegers) {
        coefficient[0] = 0.5f * level[0];
      } else {
        coefficients_of_levels(level, coefficient);
      }
      BILLM_UNROLL
      for (int n = 0; n < TokenBlocks; ++n) {
        float sum = 0;
        BILLM_UNROLL
        for (int set = 0; set < kSets; ++set) {
          const int high = sums_[set][n][j >> 1][2 * (j & 1)];
          const int low = sums_[set][n][j >> 1][2 * (j & 1) + 1];
          sum +=
              coefficient[set] * (P == kIntegers ? join_large(high, low) : join_bytes(high, low));
        }
        if (layer.constants != nullptr) sum += constants[j] * join_bytes(ones_[n][0], ones_[n][1]);
        y[n][j] += scale[n] * sum;
      }
    }
  }

  // The lane's four rows of a table [...][32].
  BILLM_KERNEL_BODY float4 rows_of_lane(const float* table, int64_t row) const {
    return *reinterpret_cast<const float4*>(table + row * kTileRows + group_ * 4);
  }
  BILLM_KERNEL_BODY static void set_row(float (&to)[4], float4 from) {
    to[0] = from.x, to[1] = from.y, to[2] = from.z, to[3] = from.w;
  }

  Thread& thread_;
  const GemvParams& p_;
  const Schedule& schedule_;
  int64_t tile_;
  int c0_;
  StripRange range_;
  int planes_;
  int group_, line_;
  Pair supplied_, owned_;
  Place place_;
  bool mine_ = false;
  uint32_t codes_[kSets];
  int sums_[kSets][TokenBlocks][2][4];
  int ones_[TokenBlocks][4];
};

}  // namespace billm::kernels::cuda
