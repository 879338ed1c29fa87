// X^T X of a block's inputs: see include/billm/calibrate/collect.h.
#include "billm/calibrate/collect.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "billm/base/stopwatch.h"
#include "device_sums.h"

namespace billm {
namespace {

// Rows of X^T X that one item computes. The upper triangle is made of these row tiles, so a larger
// tile wastes more below the diagonal and a smaller one runs the product slower. A sequence of 2048
// on one core of a Xeon with AVX-512: width 576: 4.9 / 5.1 / 6.3 ms for 64 / 128 / 192 rows, width
// 1536: 43.2 / 43.0 / 41.4 ms. Part of the result's definition: MKL's sums may depend on the
// product's shape.
constexpr int64_t kTileRows = 128;

// Rows of a sum L^T X over the chunk's sequences: [rows, width - left] of the matrix from column
// `left` on.
struct Tile {
  at::Tensor sum;
  const std::vector<at::Tensor>*lefts, *inputs;  // [tokens, height], [tokens, width]
  int64_t first, left;
  int64_t work() const { return sum.numel(); }
};

// `upper`: L = X, from the diagonal on to the right.
void add_tiles(std::vector<float>* matrix, const std::vector<at::Tensor>& lefts,
               const std::vector<at::Tensor>& inputs, bool upper, std::vector<Tile>* tiles) {
  const int64_t height = lefts.front().size(1), width = inputs.front().size(1);
  if (matrix->empty()) matrix->assign(static_cast<size_t>(height * width), 0.0f);
  const at::Tensor all = at::from_blob(matrix->data(), {height, width}, at::kFloat);
  for (int64_t first = 0; first < height; first += kTileRows) {
    const int64_t left = upper ? first : 0;
    tiles->push_back(
        {all.narrow(0, first, std::min(kTileRows, height - first)).narrow(1, left, width - left),
         &lefts, &inputs, first, left});
  }
}

void accumulate(StatsByGroup& stats, const std::map<std::string, GroupInputs>& inputs,
                int threads) {
  std::vector<Tile> tiles;
  for (const auto& [group, tensors] : inputs) {
    CalibrationStats& sum = stats[group];
    sum.width = tensors.inputs.front().size(1);
    sum.tokens += tensors.tokens;
    add_tiles(&sum.xtx, tensors.inputs, tensors.inputs, true, &tiles);
    if (!tensors.originals.empty()) {
      add_tiles(&sum.cross, tensors.originals, tensors.inputs, false, &tiles);
    }
    if (!tensors.drifts.empty()) {
      add_tiles(&sum.drift, tensors.drifts, tensors.inputs, false, &tiles);
    }
  }
  // The most work first, so that no thread is left alone with a large tile at the end.
  std::stable_sort(tiles.begin(), tiles.end(),
                   [](const Tile& a, const Tile& b) { return a.work() > b.work(); });
  parallel_for(static_cast<int64_t>(tiles.size()), threads, [&](int64_t index) {
    const at::NoGradGuard no_grad;
    Tile& tile = tiles[static_cast<size_t>(index)];
    for (size_t i = 0; i < tile.inputs->size(); ++i) {
      const at::Tensor &left = (*tile.lefts)[i], &input = (*tile.inputs)[i];
      tile.sum.addmm_(left.narrow(1, tile.first, tile.sum.size(0)).t(),
                      input.narrow(1, tile.left, tile.sum.size(1)));
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

// Sequences [first, last) of those before `end` whose stored inputs fit into `bytes`, at least one.
int64_t chunk_end(const Sequences& hidden, int64_t first, int64_t end, int64_t token_bytes,
                  int64_t bytes) {
  int64_t last = first, total = 0;
  do {
    total += hidden.tokens(last) * token_bytes;
    if (last > first && total > bytes) break;
    ++last;
  } while (last < end);
  return last;
}

class Collector {
 public:
  Collector(const ModelSpec& spec, const Block& block, const Rope& rope, BlockWalk& walk,
            const CollectOptions& options, CollectSeconds* seconds)
      : spec_(spec),
        block_(block),
        rope_(rope),
        walk_(walk),
        options_(options),
        seconds_(seconds),
        groups_(options.group.empty() ? spec.groups() : std::vector<std::string>{options.group}) {
    for (const std::string& group : groups_) {
      const GroupShape shape = spec.group_shape(group);
      token_bytes_ += 4 * shape.cols;
      if (options.original) token_bytes_ += 4 * (shape.cols + shape.stream_rows);
    }
  }

  // The sums over the sequences [first, end), upper triangles only: on the CPU or on the device.
  template <typename Sums>
  Sums sum(int64_t first, int64_t end) {
    Sums sums;
    while (first < end) {
      const int64_t last =
          chunk_end(walk_.inputs(), first, end, token_bytes_, options_.input_bytes);
      add_chunk(first, last, sums);
      first = last;
    }
    return sums;
  }

 private:
  using Inputs = std::map<std::string, GroupInputs>;  // by group, of a chunk

  template <typename Sums>
  void add_chunk(int64_t first, int64_t last, Sums& sums) {
    const Inputs inputs = forward(first, last);
    const Stopwatch hessian;
    add_inputs(inputs, sums);
    if (seconds_ != nullptr) seconds_->hessian += hessian.seconds();
  }

  void add_inputs(const Inputs& inputs, StatsByGroup& sums) const {
    accumulate(sums, inputs, options_.threads);
  }
  void add_inputs(const Inputs& inputs, DeviceSums& sums) const {
    for (const auto& [group, tensors] : inputs) {
      sums.add_inputs(group, tensors);
    }
    sums.wait();
  }

  Inputs forward(int64_t first, int64_t last) {
    Inputs inputs;
    const auto count = static_cast<size_t>(last - first);
    for (const std::string& group : groups_) {
      GroupInputs& group_inputs = inputs[group];
      group_inputs.inputs.resize(count);
      if (options_.original) group_inputs.originals.resize(count);
      const bool drifts = options_.original && spec_.group_shape(group).stream_rows > 0;
      if (drifts) group_inputs.drifts.resize(count);
    }
    const Stopwatch forward;
    parallel_for(last - first, options_.threads, [&](int64_t i) {
      const at::NoGradGuard no_grad;
      const auto at = static_cast<size_t>(i);
      const std::vector<int64_t> heavy = heavy_tokens(first + i);
      BlockPoint present = walk_.take(block_, first + i), original;
      if (options_.original) original = original_walk().take(original_block(), first + i);
      for (const std::string& group : groups_) {
        GroupInputs& group_inputs = inputs.at(group);
        walk_block(spec_, block_, rope_, group, &present);
        group_inputs.inputs[at] = kept(present.input, heavy);
        if (!options_.original) continue;
        walk_block(spec_, original_block(), rope_, group, &original);
        group_inputs.originals[at] = kept(original.input, heavy);
        if (group_inputs.drifts.empty()) continue;
        group_inputs.drifts[at] = kept(original.stream.sub(present.stream), heavy);
      }
      walk_.leave(first + i, std::move(present));
      if (options_.original) original_walk().leave(first + i, std::move(original));
    });
    for (int64_t i = first; i < last; ++i) {
      const int64_t more = (options_.heavy.times - 1) * std::ssize(heavy_tokens(i));
      for (auto& [group, tensors] : inputs) tensors.tokens += walk_.inputs().tokens(i) + more;
    }
    // A GPU's work is only queued: the clock waits for it.
    if (options_.sums_on_device) inputs.at(groups_.back()).inputs.back().narrow(0, 0, 1).cpu();
    if (seconds_ != nullptr) seconds_->forward += forward.seconds();
    return inputs;
  }

  const Block& original_block() const { return options_.original->block; }
  BlockWalk& original_walk() const { return options_.original->walk; }

  std::vector<int64_t> heavy_tokens(int64_t i) const {
    const auto& positions = options_.heavy.positions;
    return positions.empty() ? std::vector<int64_t>() : positions.at(static_cast<size_t>(i));
  }

  // X whose X^T X counts the heavy tokens as often as they count, where the sums are made.
  at::Tensor kept(const at::Tensor& x, const std::vector<int64_t>& heavy) const {
    const at::Tensor here = options_.sums_on_device ? x : x.cpu();
    if (heavy.empty() || options_.heavy.times == 1) return here;
    const at::Tensor scaled = here.clone();
    const double factor = std::sqrt(static_cast<double>(options_.heavy.times));
    for (const int64_t token : heavy) scaled.select(0, token).mul_(factor);
    return scaled;
  }

  const ModelSpec& spec_;
  const Block& block_;
  const Rope& rope_;
  BlockWalk& walk_;
  const CollectOptions& options_;
  CollectSeconds* seconds_;
  const std::vector<std::string> groups_;  // in the block's order
  int64_t token_bytes_ = 0;                // stored inputs of one token
};

// All parts are here.
class LocalSums : public SumExchange {
 public:
  explicit LocalSums(int threads) : threads_(threads) {}
  void add(StatsByGroup part) override { add_stats(std::move(part), threads_, &total_); }
  StatsByGroup finish() override { return std::move(total_); }

 private:
  const int threads_;
  StatsByGroup total_;
};

}  // namespace

BlockWalk::BlockWalk(const ModelSpec& spec, const Sequences& inputs, bool keeps)
    : spec_(spec), inputs_(inputs), keeps_(keeps) {
  restart();
}

BlockPoint BlockWalk::take(const Block& block, int64_t i) {
  BlockPoint point = std::exchange(points_[static_cast<size_t>(i)], {});
  return point.input.defined() ? point : enter_block(spec_, block, inputs_.load(i));
}

void BlockWalk::leave(int64_t i, BlockPoint point) {
  if (keeps_) points_[static_cast<size_t>(i)] = std::move(point);
}

void BlockWalk::restart() { points_.assign(static_cast<size_t>(inputs_.count()), {}); }

SumPart sum_part(int64_t sequences, int64_t part) {
  const int64_t first = sequences * part / kSumParts;
  return {first, sequences * (part + 1) / kSumParts - first};
}

void add_stats(StatsByGroup part, int threads, StatsByGroup* total) {
  if (total->empty()) {
    *total = std::move(part);
    return;
  }
  for (auto& [group, sum] : part) {
    CalibrationStats& into = total->at(group);
    into.tokens += sum.tokens;
    const float* from = sum.xtx.data();
    parallel_for(sum.width, threads, [&](int64_t row) {
      for (int64_t at = row * sum.width + row; at < (row + 1) * sum.width; ++at) {
        into.xtx[static_cast<size_t>(at)] += from[at];
      }
    });
    for (size_t at = 0; at < sum.cross.size(); ++at) into.cross.at(at) += sum.cross[at];
    for (size_t at = 0; at < sum.drift.size(); ++at) into.drift.at(at) += sum.drift[at];
  }
}

StatsByGroup collect_stats(const ModelSpec& spec, const Block& block, const Rope& rope,
                           BlockWalk& walk, const CollectOptions& options,
                           CollectSeconds* seconds) {
  LocalSums local(options.threads);
  SumExchange& sums = options.exchange != nullptr ? *options.exchange : local;
  DeviceSums on_device;
  std::vector<int64_t> parts = options.parts;
  for (int64_t part = 0; options.parts.empty() && part < kSumParts; ++part) {
    parts.push_back(sum_part(walk.inputs().count(), part).count);
  }
  Collector collector(spec, block, rope, walk, options, seconds);
  int64_t first = 0;
  for (const int64_t count : parts) {
    if (!options.sums_on_device) {
      sums.add(collector.sum<StatsByGroup>(first, first + count));
    } else if (options.exchange != nullptr) {
      sums.add(collector.sum<DeviceSums>(first, first + count).take());
    } else {
      on_device.add(collector.sum<DeviceSums>(first, first + count));
    }
    first += count;
  }
  const Stopwatch hessian;
  if (options.sums_on_device && options.exchange == nullptr) sums.add(on_device.take());
  StatsByGroup stats = sums.finish();
  for (auto& [group, sum] : stats) finish(group, sum, options.threads);
  if (seconds != nullptr) seconds->hessian += hessian.seconds();
  return stats;
}

void forward_each(const ModelSpec& spec, const Block& block, const Rope& rope, BlockWalk& walk,
                  int64_t first, int64_t count, int threads,
                  const std::function<void(int64_t, at::Tensor)>& take) {
  parallel_for(count, threads, [&](int64_t i) {
    const at::NoGradGuard no_grad;
    BlockPoint point = walk.take(block, first + i);
    walk_block(spec, block, rope, "", &point);
    take(first + i, std::move(point.input));
  });
}

void advance(const ModelSpec& spec, const Block& block, const Rope& rope,
             std::vector<at::Tensor>& hidden, int threads, double* seconds) {
  const Stopwatch watch;
  const TensorSequences sequences(hidden);
  BlockWalk walk(spec, sequences, /*keeps=*/false);
  forward_each(
      spec, block, rope, walk, 0, sequences.count(), threads,
      [&](int64_t i, at::Tensor state) { hidden[static_cast<size_t>(i)] = std::move(state); });
  if (seconds != nullptr) *seconds += watch.seconds();
}

}  // namespace billm
