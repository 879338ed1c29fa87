// The integers scattered among a row's binary weights (PB-LLM), by one warp.
#pragma once

#include <cstdint>

#include "kernels/cuda/strips.h"

namespace billm::kernels::cuda {

// Calls entry(octet, bit, weight) for what is to be added to the planes of a row: at octet `octet`,
// counted 16 to a strip. Each lane has a segment, of which it finds its entries by the counts of
// the lanes before it: a row's segment has some ten integers, too few for a warp.
template <typename Thread, typename Entry>
BILLM_KERNEL_BODY void for_scattered(Thread& thread, const DeviceLayer& layer, int64_t row,
                                     Entry entry) {
  const ScatteredLayer& scattered = layer.scattered;
  const int lane = thread.index() % kWarp;
  const float step = scattered.step[row];
  uint32_t start = scattered.start[row];
  for (int s0 = 0; s0 < layer.segments; s0 += kWarp) {
    const int segment = s0 + lane;
    const int64_t at = row * layer.segments + segment;
    const bool inside = segment < layer.segments;
    const int count = inside ? scattered.count[at] : 0;
    int up_to = count;
    BILLM_UNROLL
    for (int d = 1; d < kWarp; d *= 2) {
      const int other = thread.shuffle(up_to, lane >= d ? lane - d : lane);
      if (lane >= d) up_to += other;
    }
    const uint32_t begin = start + static_cast<uint32_t>(up_to - count);
    start += static_cast<uint32_t>(thread.shuffle(up_to, kWarp - 1));
    if (!inside) continue;
    const float shift = scattered.shift[at];
    const int first_octet = scattered.first_octet[segment];
    for (uint32_t e = begin; e < begin + static_cast<uint32_t>(count); ++e) {
      const int column = scattered.column[e];
      entry(first_octet + column / 8, column % 8,
            static_cast<float>(scattered.code[e]) * step + shift);
    }
  }
}

}  // namespace billm::kernels::cuda
