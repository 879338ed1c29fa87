// Plain loops over kernels/plane_tiles.h: what every other kernel is tested against.
#include <algorithm>
#include <vector>

#include "billm/base/log8.h"
#include "kernels/cpu/gemv.h"

namespace billm::kernels {
namespace {

// Coefficients of the planes of one row in one segment.
void row_coefficients(const PlaneTilesView& view, const PlaneGroup& group,
                      const PlaneSegment& segment, int64_t tile, int row, float* coefficient) {
  float level[kMaxPlanes];
  for (int i = 0; i < segment.levels; ++i) {
    const int64_t at =
        (tile * view.level_rows + segment.level_row + i) * view.order.tile_rows + row;
    level[i] = view.level_kind == LevelKind::kLog8 ? log8_decode(view.codes[at], view.base)
                                                   : view.levels[at];
  }
  plane_coefficients(view.level_kind, view.pruned, group.planes, level, coefficient);
}

// Calls weight(place in run order, value) for the weights of a row but for scattered integers.
template <typename Weight>
void for_weights(const PlaneTilesView& view, int64_t tile, int row, Weight weight) {
  const uint8_t* bytes = view.planes + tile * view.tile_bytes;
  for (int g = 0; g < view.group_count; ++g) {
    const PlaneGroup& group = view.groups[g];
    for (int s = group.first_segment; s < group.first_segment + group.segments; ++s) {
      const PlaneSegment& segment = view.segments[s];
      float coefficient[kMaxPlanes];
      row_coefficients(view, group, segment, tile, row, coefficient);
      float constant = 0;
      if (view.constants != nullptr) {
        constant = view.constants[(tile * view.segment_count + s) * view.order.tile_rows + row];
      }
      for (int o = segment.first_octet; o < segment.first_octet + segment.octets; ++o) {
        uint8_t octet[kMaxPlanes];
        plane_octets(bytes, view.order, group, o, row, octet);
        for (int bit = 0; bit < 8; ++bit) {
          float value = constant;
          for (int p = 0; p < group.planes; ++p) {
            value += ((octet[p] >> bit) & 1) != 0 ? coefficient[p] : -coefficient[p];
          }
          weight(8 * o + bit, value);
        }
      }
    }
  }
}

// Calls weight(place in run order, what to add there) for a row's scattered integers.
template <typename Weight>
void for_integers(const PlaneTilesView& view, int64_t row, Weight weight) {
  const ScatteredView& scattered = view.scattered;
  if (scattered.start == nullptr) return;
  uint32_t entry = scattered.start[row];
  for (int s = 0; s < view.segment_count; ++s) {
    const int64_t at = row * view.segment_count + s;
    for (const uint32_t end = entry + scattered.count[at]; entry < end; ++entry) {
      const auto code = static_cast<float>(scattered.code[entry]);
      weight(8 * view.segments[s].first_octet + scattered.column[entry],
             code * scattered.step[row] + scattered.shift[at]);
    }
  }
}

}  // namespace

void gemv_reference(const PlaneTilesView& view, const float* x, int64_t first, int64_t count,
                    float* y) {
  for (int64_t tile = first; tile < first + count; ++tile) {
    for (int i = 0; i < view.order.tile_rows; ++i) {
      const int64_t row = tile * view.order.tile_rows + i;
      if (row >= view.rows) break;
      double sum = 0;
      const auto add = [&](int64_t place, float value) { sum += double{value} * x[place]; };
      for_weights(view, tile, i, add);
      for_integers(view, row, add);
      y[row] = static_cast<float>(sum);
    }
  }
}

void decode_reference(const PlaneTilesView& view, int64_t first, int64_t count, float* out,
                      int64_t stride) {
  for (int64_t column = 0; column < view.cols; ++column) {
    std::fill_n(out + column * stride, count * view.order.tile_rows, 0.0f);
  }
  for (int64_t tile = first; tile < first + count; ++tile) {
    for (int i = 0; i < view.order.tile_rows; ++i) {
      const int64_t row = tile * view.order.tile_rows + i;
      float* to = out + (tile - first) * view.order.tile_rows + i;
      if (row >= view.rows) break;
      const auto add = [&](int64_t place, float value) {
        const int32_t column = view.source[place];
        if (column < 0) return;
        to[column * stride] +=
            view.column_scale == nullptr ? value : value * view.column_scale[column];
      };
      for_weights(view, tile, i, add);
      for_integers(view, row, add);
    }
  }
}

}  // namespace billm::kernels
