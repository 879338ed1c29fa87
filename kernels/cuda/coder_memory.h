// What a warp is to the coder of coder_body.h, and where it keeps a row's group.
#pragma once

#include "kernels/cuda/coder_params.h"
#include "kernels/cuda/decode.h"

namespace billm::kernels::cuda {

// The lanes of a warp of `Thread` (DeviceThread, or the tests' EmulatedThread).
template <typename Thread>
struct WarpLanes {
  static constexpr int kLanes = 32;
  Thread& thread;
  BILLM_HOST_DEVICE int lane() const { return thread.index() % kLanes; }
  // What lanes wrote to memory before, all may read after.
  BILLM_HOST_DEVICE void sync() const { thread.sync_warp(); }
  BILLM_HOST_DEVICE float sum(float value) const {  // the same bits in all lanes
    for (int mask = kLanes / 2; mask > 0; mask /= 2) value += thread.shuffle_xor(value, mask);
    return value;
  }
  BILLM_HOST_DEVICE float from(float value, int lane) const {
    return float_of_bits(
        static_cast<uint32_t>(thread.shuffle(static_cast<int>(float_bits(value)), lane)));
  }
};

// One lane that does it all.
struct OneLane {
  static constexpr int kLanes = 1;
  BILLM_HOST_DEVICE int lane() const { return 0; }
  BILLM_HOST_DEVICE void sync() const {}
  BILLM_HOST_DEVICE float sum(float value) const { return value; }
  BILLM_HOST_DEVICE float from(float value, int) const { return value; }
};

struct PrefixSums {
  double h, hw, hww;  // sum h, sum h|w| and sum h w^2
};
struct BestSplit {
  double error;
  int first, second;
};

// Where things are in a warp's memory (null: only how much is used), for groups of `width` columns.
// The split of magnitudes comes before the codes, and shares its memory with the normal equations.
struct RowMemory {
  BILLM_HOST_DEVICE RowMemory(uint8_t* memory, int width) {
    int padded = 1;
    while (padded < width) padded *= 2;
    sort_size = padded;
    int64_t at = 0;
    const auto take = [&](int64_t bytes) {
      uint8_t* const taken = memory == nullptr ? nullptr : memory + at;
      at += (bytes + 15) / 16 * 16;
      return taken;
    };
    prefix = reinterpret_cast<PrefixSums*>(take(int64_t{24} * (width + 1)));
    keys = reinterpret_cast<uint64_t*>(take(int64_t{8} * padded));
    splits = reinterpret_cast<BestSplit*>(take(int64_t{16} * 32));
    const int64_t end = at;
    at = 0;
    images = reinterpret_cast<float*>(take(int64_t{4} * kMaxUnknowns * width));
    if (at < end) at = end;
    float** const floats[] = {&w, &target, &delta, &residual, &q, &best_q};
    for (float** array : floats) *array = reinterpret_cast<float*>(take(int64_t{4} * width));
    uint8_t** const bytes[] = {&set, &keep, &sign, &cls, &best_sign, &best_cls};
    for (uint8_t** array : bytes) *array = take(width);
    used = at;
  }
  PrefixSums* prefix;  // [width + 1]
  uint64_t* keys;      // [sort_size]: magnitude bits, then column
  BestSplit* splits;   // [lanes]
  float* images;       // [unknowns][width]: Z R
  float *w, *target, *delta, *residual, *q, *best_q;
  uint8_t *set, *keep;  // keep: 1 binary, 0 not
  // 1 plus, 0 minus, 2 not binary; the class, or the code of an integer
  uint8_t *sign, *cls, *best_sign, *best_cls;
  int sort_size;
  int64_t used;
};

}  // namespace billm::kernels::cuda
