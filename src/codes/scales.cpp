// Scale formats: see include/billm/codes/scales.h and docs/format.md.
#include "billm/codes/scales.h"

#include <algorithm>

#include "billm/base/error.h"

namespace billm {
namespace {

struct FormatRow {
  ScaleFormat format;
  const char* name;
  int bits;
};
constexpr FormatRow kFormats[] = {{ScaleFormat::kLog8, "log8", 8},
                                  {ScaleFormat::kF16, "f16", 16},
                                  {ScaleFormat::kF32, "f32", 32}};

const FormatRow& format_row(ScaleFormat format) {
  for (const FormatRow& row : kFormats) {
    if (row.format == format) return row;
  }
  throw Error(ErrorCode::kFailure, "unknown scale format");
}

}  // namespace

const char* scale_format_name(ScaleFormat format) { return format_row(format).name; }
int scale_format_bits(ScaleFormat format) { return format_row(format).bits; }

ScaleFormat scale_format_from_name(const std::string& name) {
  for (const FormatRow& row : kFormats) {
    if (name == row.name) return row.format;
  }
  throw bad_input("unknown scale format '" + name + "': expected log8, f16 or f32");
}

uint8_t log8_encode(float scale, float base) {
  if (!(scale > 0) || !(base > 0)) return 0;
  // The grid is monotone, so the nearest value is one of two neighbours.
  int low = 0, high = 255;  // decode(low) <= scale (low = 0 means 0)
  if (scale >= log8_decode(255, base)) return 255;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (log8_decode(static_cast<uint8_t>(middle), base) <= scale ? low : high) = middle;
  }
  const float below = log8_decode(static_cast<uint8_t>(low), base);
  const float above = log8_decode(static_cast<uint8_t>(high), base);
  return static_cast<uint8_t>(above - scale < scale - below ? high : low);
}

int8_t offset8_encode(float offset, float largest) {
  if (!(largest > 0)) return 0;
  const float steps = std::nearbyint(offset / (largest * 0.0078125f));
  return static_cast<int8_t>(std::clamp(steps, -127.0f, 127.0f));
}

}  // namespace billm
