// See factor_operators.h.
#include "factor_operators.h"

#include <iterator>
#include <utility>
#include <variant>

namespace billm {
namespace {

std::unique_ptr<LinearOperator> make_planes(LinearRunner& runner, const PackedFactor& factor) {
  return std::move(runner.make_copies(std::get<PackedPlanes>(factor), 0).front());
}

std::unique_ptr<LinearOperator> make_rotation(LinearRunner& runner, const PackedFactor& factor) {
  return runner.make_rotation(std::get<Rotation>(factor));
}

std::unique_ptr<LinearOperator> make_trellis(LinearRunner& runner, const PackedFactor& factor) {
  return runner.make_trellis(std::get<PackedTrellis>(factor));
}

constexpr FactorOperator kRows[] = {
    {"planes", make_planes, nullptr},
    {"rotation", make_rotation, "a rotation, which the CUDA kernels do not run yet"},
    {"trellis", make_trellis, "a trellis, which the CUDA kernels do not run yet"},
};
static_assert(std::size(kRows) == kFactorKinds);

}  // namespace

std::span<const FactorOperator> factor_operators() { return kRows; }

}  // namespace billm
