// The lengths of a QuantizedLinear's vectors.
#pragma once

#include <cstddef>

#include "billm/codes/quantized_linear.h"

namespace billm {

struct CodeSizes {
  size_t weights = 0;  // region, code
  size_t salient = 0, scales = 0, offsets = 0, column_scales = 0;
  size_t steps = 0;  // and zeros
};
CodeSizes code_sizes(const LinearShape& shape);

}  // namespace billm
