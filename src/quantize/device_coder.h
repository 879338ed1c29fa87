// The engine of binary_coder.h on an accelerator's kernels (kernels/cuda/coder_body.h): the same
// steps for all rows at once, a quantization group at a time.
#pragma once

#include <vector>

#include "binary_coder.h"
#include "group_triangles.h"
#include "levels.h"

namespace billm {

// Whether the accelerator of `context` codes groups of this width: groups of more than 512 columns
// are left to the CPU.
bool device_codes(const BinaryPlan& plan, const QuantizeContext& context);

// Fills in regions, codes, scales and offsets of all rows, or of this process's. Steps and zeros of
// integers are there already. Throws Error{kFailure} with what the device says.
void code_on_device(const WeightView& weight, const Hessian& hessian, const BinaryPlan& plan,
                    const MethodConfig& config, const QuantizeContext& context,
                    const std::vector<GroupTriangle>& triangles, const LevelGrid& grid,
                    RegionCodes* out);

}  // namespace billm
