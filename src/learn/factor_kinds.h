// What learns of each kind of factor: a row for each alternative of Factor.
#pragma once

#include <span>
#include <string>

#include "billm/codes/layer_codes.h"
#include "region_start.h"

namespace billm {

struct FactorLearning {
  const char* kind;     // as factor_kind_names()
  const char* without;  // why nothing of it learns; null: it has parameters
};
std::span<const FactorLearning> factor_learning();

// Why the layer cannot be learned, with what to do about it; empty if it can.
Refusal cannot_learn(const LayerCodes& codes);

}  // namespace billm
