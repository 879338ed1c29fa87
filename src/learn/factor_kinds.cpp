// See factor_kinds.h.
#include "factor_kinds.h"

#include <iterator>

namespace billm {
namespace {

constexpr FactorLearning kRows[] = {
    {"planes", nullptr},
    {"rotation", "a rotation has no parameters: the factors beside it learn"},
    {"trellis", nullptr},
};
static_assert(std::size(kRows) == kFactorKinds);

}  // namespace

std::span<const FactorLearning> factor_learning() { return kRows; }

Refusal cannot_learn(const LayerCodes& codes) {
  for (const Factor& factor : codes.factors) {
    const auto* regions = std::get_if<RegionCodes>(&factor);
    const Refusal refusal = regions == nullptr ? Refusal() : cannot_learn(regions->shape);
    if (refusal.refused()) return refusal;
  }
  return {};
}

}  // namespace billm
