// How scales and offsets are stored: fp32, fp16, or one byte on a logarithmic grid.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "billm/base/half.h"
#include "billm/base/log8.h"

namespace billm {

// Stored by name in the packed file: do not rename or renumber.
enum class ScaleFormat : uint8_t { kLog8 = 0, kF16 = 1, kF32 = 2 };
const char* scale_format_name(ScaleFormat format);
ScaleFormat scale_format_from_name(const std::string& name);  // throws Error{kBadInput}
int scale_format_bits(ScaleFormat format);

// The code whose value is nearest to `scale` (>= 0; above base: 255). Ties take the lower code.
uint8_t log8_encode(float scale, float base);

}  // namespace billm
