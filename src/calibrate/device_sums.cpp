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

}  // namespace

void DeviceSums::add_input(const std::string& group, const at::Tensor& input) {
  const at::NoGradGuard no_grad;
  Sum& sum = sums_[group];
  const int64_t width = input.size(1);
  if (!sum.matrix.defined()) sum.matrix = at::zeros({width, width}, input.options());
  for (int64_t first = 0; first < width; first += kTileRows) {
    const int64_t rows = std::min(kTileRows, width - first);
    const at::Tensor right = input.narrow(1, first, width - first);
    sum.matrix.narrow(0, first, rows)
        .narrow(1, first, width - first)
        .addmm_(right.narrow(1, 0, rows).t(), right);
  }
  sum.tokens += input.size(0);
}

void DeviceSums::add(DeviceSums part) {
  const at::NoGradGuard no_grad;
  if (sums_.empty()) {
    sums_ = std::move(part.sums_);
    return;
  }
  for (auto& [group, sum] : part.sums_) {
    Sum& into = sums_.at(group);
    into.matrix.add_(sum.matrix);
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
    host.xtx.resize(static_cast<size_t>(host.width * host.width));
    at::from_blob(host.xtx.data(), {host.width, host.width}, at::kFloat).copy_(sum.matrix);
    sum.matrix.reset();
  }
  sums_.clear();
  return stats;
}

}  // namespace billm
