// What learning holds and computes of layers that may be products of factors, as far as it depends
// on the factors (src/learn/layer_trainable.cpp).
#pragma once

#include <cstdint>

#include "billm/model/family.h"
#include "billm/pack/packed_checkpoint.h"
#include "billm/quantize/config.h"

namespace billm {

struct FactorCounts {
  int64_t latents = 0;          // elements of all planes
  double products = 0;          // operations of one pass that multiplies planes with planes
  int64_t temporary_bytes = 0;  // of one layer: planes and their gradients, the product
};
// Of one block, of the layers that a method makes.
FactorCounts factor_counts(const ModelSpec& spec, const MethodConfig& method);
// Of all layers of a packed model.
FactorCounts factor_counts(const PackedModules& packed);

}  // namespace billm
