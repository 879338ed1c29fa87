// X^T X of a block's inputs: see include/billm/calibrate/collect.h.
#include "billm/calibrate/collect.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "billm/base/error.h"
#include "billm/base/parallel.h"

namespace billm {
namespace {

// Rows of X^T X that one item computes. The upper triangle is made of these row tiles, so a larger
// tile wastes more below the diagonal and a smaller one runs the product slower. A sequence of 2048
// on one core of a Xeon with AVX-512: width 576: 4.9 / 5.1 / 6.3 ms for 64 / 128 / 192 rows, width
// 1536: 43.2 / 43.0 / 41.4 ms. Part of the result's definition: MKL's sums may depend on the
// product's shape.
constexpr int64_t kTileRows = 128;

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Row narrow of the fp32 matrix behind a CalibrationStats: [rows, width - first], from the diagonal
// on to the right.
at::Tensor upper_tile(CalibrationStats& stats, int64_t first, int64_t rows) {
  return at::from_blob(stats.xtx.data(), {stats.width, stats.width}, at::kFloat)
      .narrow(0, first, rows)
      .narrow(1, first, stats.width - first);
}

struct Tile {
  CalibrationStats* stats;
  const std::vector<at::Tensor>* inputs;  // of the chunk's sequences, [tokens, width]
  int64_t first, rows;
};

void accumulate(std::map<std::string, CalibrationStats>& stats,
                const std::map<std::string, std::vector<at::Tensor>>& inputs, int threads) {
  std::vector<Tile> tiles;
  for (const auto& [group, tensors] : inputs) {
    CalibrationStats& sum = stats[group];
    if (sum.width == 0) {
      sum.width = tensors.front().size(1);
      sum.xtx.assign(static_cast<size_t>(sum.width * sum.width), 0.0f);
    }
    for (const at::Tensor& input : tensors) sum.tokens += input.size(0);
    for (int64_t first = 0; first < sum.width; first += kTileRows) {
      tiles.push_back({&sum, &tensors, first, std::min(kTileRows, sum.width - first)});
    }
  }
  // The most work first, so that no thread is left alone with a large tile at the end.
  std::stable_sort(tiles.begin(), tiles.end(), [](const Tile& a, const Tile& b) {
    return a.rows * (a.stats->width - a.first) > b.rows * (b.stats->width - b.first);
  });
  parallel_for(static_cast<int64_t>(tiles.size()), threads, [&](int64_t index) {
    const at::NoGradGuard no_grad;
    const Tile& tile = tiles[static_cast<size_t>(index)];
    at::Tensor sum = upper_tile(*tile.stats, tile.first, tile.rows);
    for (const at::Tensor& input : *tile.inputs) {
      const at::Tensor right = input.narrow(1, tile.first, tile.stats->width - tile.first);
      sum.addmm_(right.narrow(1, 0, tile.rows).t(), right);
    }
  });
}

// Copies the upper triangle to the lower one, after a check: a NaN anywhere in X is one in the
// diagonal as well.
void finish(const std::string& group, CalibrationStats& stats, int threads) {
  const size_t width = static_cast<size_t>(stats.width);
  for (size_t i = 0; i < width; ++i) {
    if (!std::isfinite(stats.xtx[i * width + i])) {
      throw Error(ErrorCode::kFailure, "calibration: the inputs of " + group + " are not finite",
                  "the model overflows in fp32, or its weights are damaged");
    }
  }
  parallel_for((stats.width + kTileRows - 1) / kTileRows, threads, [&](int64_t tile) {
    const size_t begin = static_cast<size_t>(tile * kTileRows);
    const size_t end = std::min(width, begin + kTileRows);
    for (size_t left = 0; left < end; left += kTileRows) {  // square tiles stay in the cache
      for (size_t r = begin; r < end; ++r) {
        for (size_t c = left; c < std::min(r, left + kTileRows); ++c) {
          stats.xtx[r * width + c] = stats.xtx[c * width + r];
        }
      }
    }
  });
}

// Sequences [first, last) whose stored inputs fit into `bytes`, at least one.
size_t chunk_end(const std::vector<at::Tensor>& hidden, size_t first, int64_t token_bytes,
                 int64_t bytes) {
  size_t last = first;
  int64_t total = 0;
  do {
    total += hidden[last].size(0) * token_bytes;
    if (last > first && total > bytes) break;
    ++last;
  } while (last < hidden.size());
  return last;
}

}  // namespace

std::map<std::string, CalibrationStats> collect_stats(const ModelSpec& spec, const Block& block,
                                                      const Rope& rope,
                                                      const std::vector<at::Tensor>& hidden,
                                                      const CollectOptions& options,
                                                      CollectSeconds* seconds) {
  int64_t token_bytes = 0;
  const std::vector<std::string> groups =
      options.group.empty() ? spec.groups() : std::vector<std::string>{options.group};
  const std::string last_group = groups.back();
  for (const std::string& group : groups) {
    const auto& linears = spec.family->linears;
    token_bytes += 4 * std::find_if(linears.begin(), linears.end(), [&](const LinearSpec& linear) {
                         return linear.group == group;
                       })->in_width(spec.config);
  }
  std::map<std::string, CalibrationStats> stats;
  for (size_t first = 0; first < hidden.size();) {
    const size_t last = chunk_end(hidden, first, token_bytes, options.input_bytes);
    std::map<std::string, std::vector<at::Tensor>> inputs;
    for (const std::string& group : groups) inputs[group].resize(last - first);
    const Stopwatch forward;
    parallel_for(static_cast<int64_t>(last - first), options.threads, [&](int64_t i) {
      const at::NoGradGuard no_grad;
      const size_t slot = static_cast<size_t>(i);
      const Tap tap = [&](const std::string& group, const at::Tensor& input) {
        const auto wanted = inputs.find(group);
        if (wanted != inputs.end()) wanted->second[slot] = input.cpu();
        return group != last_group;
      };
      forward_block(spec, block, hidden[first + slot], rope, tap);
    });
    if (seconds != nullptr) seconds->forward += forward.seconds();
    const Stopwatch hessian;
    accumulate(stats, inputs, options.threads);
    if (seconds != nullptr) seconds->hessian += hessian.seconds();
    first = last;
  }
  const Stopwatch hessian;
  for (auto& [group, sum] : stats) finish(group, sum, options.threads);
  if (seconds != nullptr) seconds->hessian += hessian.seconds();
  return stats;
}

void advance(const ModelSpec& spec, const Block& block, const Rope& rope,
             std::vector<at::Tensor>& hidden, int threads, double* seconds) {
  const Stopwatch watch;
  parallel_for(static_cast<int64_t>(hidden.size()), threads, [&](int64_t i) {
    const at::NoGradGuard no_grad;
    at::Tensor& state = hidden[static_cast<size_t>(i)];
    state = forward_block(spec, block, state, rope);
  });
  if (seconds != nullptr) *seconds += watch.seconds();
}

}  // namespace billm
