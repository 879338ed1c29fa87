// The lengths of a RegionCodes's vectors.
#pragma once

#include <cstddef>

#include "billm/codes/region_codes.h"

namespace billm {

struct CodeSizes {
  size_t weights = 0;  // region, code
  size_t salient = 0, scales = 0, offsets = 0, column_scales = 0;
  size_t steps = 0;  // and zeros
};
CodeSizes code_sizes(const RegionFormat& shape);

}  // namespace billm
