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
  return log8_nearest(scale, base, kLog8Factors.data());
}

}  // namespace billm
