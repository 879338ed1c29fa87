// See integer_grid.h.
#include "integer_grid.h"

#include <algorithm>
#include <cmath>

#include "billm/base/half.h"

namespace billm {
namespace {

constexpr float kLargestHalf = 65504.0f;

float inverse_of(float step) { return step > 0 ? 1.0f / step : 0.0f; }

}  // namespace

AffineGrid affine_grid(float low, float high, int bits) {
  const auto last = static_cast<float>((1 << bits) - 1);
  low = std::min(low, 0.0f);
  high = std::max(high, 0.0f);
  AffineGrid grid;
  grid.step = round_to_half(std::min((high - low) / last, kLargestHalf));
  grid.zero =
      static_cast<uint8_t>(std::clamp(std::nearbyint(-low * inverse_of(grid.step)), 0.0f, last));
  return grid;
}

uint8_t nearest_code(const AffineGrid& grid, int bits, float w) {
  const auto last = static_cast<float>((1 << bits) - 1);
  const float place = w * inverse_of(grid.step) + static_cast<float>(grid.zero);
  return static_cast<uint8_t>(std::nearbyint(std::clamp(place, 0.0f, last)));
}

void set_lane(const AffineGrid& grid, int lane, kernels::IntegerGrid* grids) {
  grids->step[lane] = grid.step;
  grids->inverse[lane] = inverse_of(grid.step);
  grids->zero[lane] = static_cast<float>(grid.zero);
}

}  // namespace billm
