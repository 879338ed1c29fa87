// The table of ways to stretch a rotary embedding: one row and one function each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "billm/checkpoint/config.h"

namespace billm {

struct RopeScalingRow {
  const char* type;  // RopeScaling::type
  // Angles per position [head_dim / 2] of sequences of `length` tokens; `base` is what they are
  // without a scaling.
  at::Tensor (*frequencies)(const ModelConfig& config, int64_t length, const at::Tensor& base);
};

// The row, "" being one of them; null if there is none.
const RopeScalingRow* find_rope_scaling(const std::string& type);
std::string rope_scaling_names();

}  // namespace billm
