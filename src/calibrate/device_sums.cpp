// See device_sums.h.
#include "device_sums.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace billm {
namespace {

// Rows of X^T X that one product computes: what lies below the diagonal in a tile is wasted (an
// eighth of a matrix of width 4096), and a narrower one leaves much of a GPU idle. Not measured on
// one.
constexpr int64_t kTileRows = 1024;

void add_upper(const at::Tensor& input, at::Tensor* sum) {
  const int64_t width = input.size(1);
  if (!sum->defined()) *sum = at::zeros({width, width}, input.options());
  for (int64_t first = 0; first < width; first += kTileRows) {
    const int64_t rows = std::min(kTileRows, width - first);
    const at::Tensor right = input.narrow(1, first, width - first);
    sum->narrow(0, first, rows)
        .narrow(1, first, width - first)
        .addmm_(right.narrow(1, 0, rows).t(), right);
  }
}

void add_product(const at::Tensor& left, const at::Tensor& input, at::Tensor* sum) {
  if (!sum->defined()) *sum = at::zeros({left.size(1), input.size(1)}, input.options());
  sum->addmm_(left.t(), input);
}

void add_sum(const at::Tensor& part, at::Tensor* sum) {
  if (part.defined()) sum->add_(part);
}

std::vector<float> taken(at::Tensor* sum) {
  if (!sum->defined()) return {};
  std::vector<float> host(static_cast<size_t>(sum->numel()));
  at::from_blob(host.data(), sum->sizes(), at::kFloat).copy_(*sum);
  sum->reset();
  return host;
}

}  // namespace

void DeviceSums::add_inputs(const std::string& group, const GroupInputs& inputs) {
  const at::NoGradGuard no_grad;
  Sum& sum = sums_[group];
  for (size_t i = 0; i < inputs.inputs.size(); ++i) {
    add_upper(inputs.inputs[i], &sum.matrix);
    if (!inputs.originals.empty()) add_product(inputs.originals[i], inputs.inputs[i], &sum.cross);
    if (!inputs.drifts.empty()) add_product(inputs.drifts[i], inputs.inputs[i], &sum.drift);
  }
  sum.tokens += inputs.tokens;
}

void DeviceSums::add(DeviceSums part) {
  const at::NoGradGuard no_grad;
  if (sums_.empty()) {
    sums_ = std::move(part.sums_);
    return;
  }
  for (auto& [group, sum] : part.sums_) {
    Sum& into = sums_.at(group);
    add_sum(sum.matrix, &into.matrix);
    add_sum(sum.cross, &into.cross);
    add_sum(sum.drift, &into.drift);
    into.tokens += sum.tokens;
  }
}

void DeviceSums::wait() const {
  // A copy to the host waits for all that was queued before.
  if (!sums_.empty()) sums_.rbegin()->second.matrix.narrow(0, 0, 1).narrow(1, 0, 1).cpu();
}

StatsByGroup DeviceSums::take() {
  StatsByGroup stats;
  for (auto& [group, sum] : sums_) {
    CalibrationStats& host = stats[group];
    host.width = sum.matrix.size(0);
    host.tokens = sum.tokens;
    host.xtx = taken(&sum.matrix);
    host.cross = taken(&sum.cross);
    host.drift = taken(&sum.drift);
  }
  sums_.clear();
  return stats;
}

}  // namespace billm
