// How a RegionTrainable sees its latents: by tiles of rows, in sets of columns that share their
// classes. Only region_trainable.cpp includes this.
#pragma once

#include <ATen/ops/abs.h>
#include <ATen/ops/copysign.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/maximum.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "region_trainable.h"

namespace billm {

// [n, groups, width] or, of gathered salient columns, [n, columns]: latents, and what is broadcast
// to them: the levels of the classes, growing, and the thresholds between them.
struct RegionTrainable::Set {
  int first = 0;  // region of the first class, minus 1
  std::vector<at::Tensor> levels, thresholds;
  at::Tensor latent;

  // The masks "above threshold k": 0 or 1 in fp32.
  std::vector<at::Tensor> masks() const {
    std::vector<at::Tensor> result;
    if (thresholds.empty()) return result;
    const at::Tensor magnitude = latent.abs();
    for (const at::Tensor& threshold : thresholds) {
      at::Tensor above = at::empty_like(magnitude);
      at::gt_out(above, magnitude, threshold);
      result.push_back(std::move(above));
    }
    return result;
  }
  // Into `out`, as latent. The larger level where its mask is 1; levels grow.
  void decode(at::Tensor& out) const {
    if (thresholds.empty()) {
      at::copysign_out(out, levels[0], latent);
      return;
    }
    const std::vector<at::Tensor> above = masks();
    for (size_t k = 0; k < above.size(); ++k) {
      at::maximum_out(out, above[k].mul_(levels[k + 1]), k == 0 ? levels[0] : out);
    }
    at::copysign_out(out, out, latent);
  }
};

// A tile's sets. The ordinary columns come as whole groups and as a shorter last one; they hold the
// salient columns, too, whose values mean nothing there.
struct RegionTrainable::Tile {
  int64_t first, rows;
  at::Tensor latent;  // fp32 [n, cols]
  std::vector<Set> ordinary;
  std::vector<int64_t> group;  // the first of each
  Set salient;                 // without levels if there is none

  // The part of a [n, cols] tensor that belongs to ordinary[i].
  static at::Tensor part(const at::Tensor& x, const RegionFormat& format, int64_t group) {
    const int64_t full = format.cols / format.block_size, width = format.block_size;
    if (group < full) return x.narrow(1, 0, full * width).unflatten(1, {full, width});
    return x.narrow(1, full * width, format.cols - full * width).unsqueeze(1);
  }
};

}  // namespace billm
