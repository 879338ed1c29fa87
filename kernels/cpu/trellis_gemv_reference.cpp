// Plain loops over the arithmetic of trellis_gemv.h: what every other kernel is tested against, and
// what runs where there are no vectors.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/trellis_gemv.h"

namespace billm::kernels {

int TrellisInput::entry(int64_t group, int state) const {
  const uint8_t* table = tables() + group * kTrellisTableBytes;
  if (split_) {
    return table[state] +
           (table[kTrellisStates + state] - kTrellisHighBias) * (1 << kTrellisLowBits);
  }
  int16_t entry;
  std::memcpy(&entry, table + sizeof(entry) * static_cast<size_t>(state), sizeof(entry));
  return entry;
}

void trellis_chunk_reference(const TrellisTable& table, const float* x, int16_t* entries,
                             float* step) {
  constexpr int kSize = kTrellisChunk * kTrellisColumns;
  float largest = 0;
  bool finite = true;
  for (int i = 0; i < kSize; ++i) {
    largest = std::max(largest, std::fabs(x[i]));
    finite = finite && std::isfinite(x[i]);
  }
  if (!finite || largest < kTrellisSmallest) {
    std::fill_n(entries, kTrellisChunk * kTrellisStates, int16_t{0});
    *step = finite ? 0.0f : NAN;
    return;
  }
  const float inverse = 1.0f / largest;
  float longest = 0;
  for (int g = 0; g < kTrellisChunk; ++g) {
    float square[kTrellisColumns];
    for (int j = 0; j < kTrellisColumns; ++j) {
      const float value = x[g * kTrellisColumns + j] * inverse;
      square[j] = value * value;
    }
    longest = std::max(longest, (square[0] + square[1]) + (square[2] + square[3]));
  }
  longest = std::sqrt(longest);
  const float steps = trellis_input_steps(table) / longest;
  *step = largest / steps * 2048.0f;
  for (int g = 0; g < kTrellisChunk; ++g) {
    int16_t* to = entries + g * kTrellisStates;
    int input[kTrellisColumns];
    for (int j = 0; j < kTrellisColumns; ++j) {
      input[j] = static_cast<int>(std::lrint((x[g * kTrellisColumns + j] * inverse) * steps));
    }
    for (int s = 0; s < kTrellisStates; ++s) {
      int sum = 0;
      for (int j = 0; j < kTrellisColumns; ++j) {
        sum += (input[j] * table.wide[j][s] + (1 << 14)) >> 15;
      }
      to[s] = static_cast<int16_t>((sum + 8) >> 4);
    }
  }
}

void trellis_gemv_reference(const TrellisTilesView& view, const TrellisInput* inputs, int tokens,
                            int64_t first, int64_t count, float* y, int64_t stride) {
  for (int64_t row = first * kTrellisTileRows;
       row < std::min((first + count) * kTrellisTileRows, view.rows); ++row) {
    const int64_t tile = row / kTrellisTileRows;
    const int in_tile = static_cast<int>(row % kTrellisTileRows);
    for (int t = 0; t < tokens; ++t) {
      float total = 0;
      for (int64_t begin = 0; begin < view.groups; begin += kTrellisChunk) {
        const float step = inputs[t].step()[begin / kTrellisChunk];
        const int64_t end = std::min(begin + kTrellisChunk, view.groups);
        for (int p = 0; p < view.plane_count; ++p) {
          const TrellisTilesView::Plane& plane = view.planes[p];
          int sum = 0;
          for (int64_t g = begin; g < end; ++g) {
            const uint8_t* bytes = plane.bytes + tile * view.tile_bytes(plane.k) +
                                   g * TrellisTilesView::group_bytes(plane.k);
            sum += inputs[t].entry(g, trellis_state(bytes, plane.k, in_tile));
          }
          total += static_cast<float>(sum) * (plane.gain * step);
        }
      }
      y[t * stride + row] = total * view.scale[row];
    }
  }
}

void trellis_decode_reference(const TrellisTilesView& view, int64_t first, int64_t count,
                              float* out, int64_t stride) {
  for (int64_t i = 0; i < count * kTrellisTileRows; ++i) {
    const int64_t row = first * kTrellisTileRows + i, tile = row / kTrellisTileRows;
    for (int64_t c = 0; c < view.cols; ++c) {
      float value = 0;
      for (int p = 0; p < view.plane_count; ++p) {
        const TrellisTilesView::Plane& plane = view.planes[p];
        const uint8_t* bytes = plane.bytes + tile * view.tile_bytes(plane.k) +
                               c / kTrellisColumns * TrellisTilesView::group_bytes(plane.k);
        const int state = trellis_state(bytes, plane.k, static_cast<int>(i % kTrellisTileRows));
        value += plane.gain * view.table->column[c % kTrellisColumns][state];
      }
      out[c * stride + i] = value * view.scale[row];
    }
  }
}

}  // namespace billm::kernels
