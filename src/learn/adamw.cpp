// See adamw.h.
#include "adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <utility>

#include "billm/base/parallel.h"

namespace billm {
namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.99;
// Gradients of a mean over tokens are small, so this stands for 0: where even the square of a
// gradient is less than fp32 can hold (3e-22), the step is.
constexpr double kEpsilon = 1e-20;
// On a CPU: elements of a piece, which one thread moves.
constexpr int64_t kPiece = 1 << 17;

struct Piece {
  size_t parameter;
  int64_t first, count;
};

}  // namespace

AdamW::AdamW(std::vector<Parameter> parameters) : parameters_(std::move(parameters)) {
  for (const Parameter& parameter : parameters_) {
    mean_.push_back(at::zeros_like(parameter.value));
    square_.push_back(at::zeros_like(parameter.value));
  }
}

void AdamW::step(const std::vector<at::Tensor>& gradients, int64_t number, double rate,
                 int threads) {
  std::vector<Piece> pieces;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const at::Tensor& value = parameters_[p].value;
    const int64_t count = value.numel(), size = value.is_cpu() ? kPiece : count;
    for (int64_t first = 0; first < count; first += size) {
      pieces.push_back({p, first, std::min(size, count - first)});
    }
  }
  parallel_for(static_cast<int64_t>(pieces.size()), threads, [&](int64_t i) {
    const at::NoGradGuard no_grad;
    const Piece& piece = pieces[static_cast<size_t>(i)];
    const size_t p = piece.parameter;
    const auto part = [&](const at::Tensor& x) {
      return std::vector<at::Tensor>{x.view(-1).narrow(0, piece.first, piece.count)};
    };
    const at::Tensor& value = parameters_[p].value;
    const at::Tensor step = at::full({}, static_cast<double>(number), value.options());
    at::_fused_adamw_(part(value), part(gradients[p].contiguous()), part(mean_[p]),
                      part(square_[p]), {}, std::vector<at::Tensor>{step},
                      rate * parameters_[p].rate, kBeta1, kBeta2, /*weight_decay=*/0, kEpsilon,
                      /*amsgrad=*/false, /*maximize=*/false);
  });
}

NamedTensors AdamW::state() const {
  NamedTensors result;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const std::string& name = parameters_[p].name;
    result.emplace_back(name, parameters_[p].value);
    result.emplace_back(name + ".mean", mean_[p]);
    result.emplace_back(name + ".square", square_[p]);
  }
  return result;
}

}  // namespace billm
