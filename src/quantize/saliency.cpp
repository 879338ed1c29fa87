// See saliency.h.
#include "saliency.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "billm/base/parallel.h"
#include "splits.h"

namespace billm {
namespace {

constexpr int64_t kSampledRows = 32;

struct Group {
  int64_t first, width;
};

// One kept weight of a sampled row: magnitude, its share in the error, saliency rank of its column.
struct Sample {
  float magnitude, h;
  int64_t rank;
};

// Error of one row (samples sorted by magnitude) when the columns of rank < k are salient.
double row_error(const std::vector<Sample>& samples, const RegionFormat& shape, int64_t k,
                 MagnitudeFit* fit) {
  double total = 0;
  float levels[kernels::kMaxLevels];
  for (const bool salient : {false, true}) {
    fit->reset();
    for (const Sample& sample : samples) {
      if ((sample.rank < k) == salient) fit->add(sample.magnitude, sample.h);
    }
    total += fit->fit(salient ? shape.salient_classes : shape.classes, levels);
  }
  return total;
}

// The kept weights of row `row` in the group, sorted by magnitude.
std::vector<Sample> sample_row(const WeightView& weight, const Hessian& hessian,
                               const std::vector<uint8_t>& keep, const Group& group,
                               const std::vector<int64_t>& rank, SearchObjective objective,
                               int64_t row) {
  std::vector<Sample> samples;
  for (int64_t c = 0; c < group.width; ++c) {
    const int64_t col = group.first + c;
    const int64_t at = row * weight.cols + col;
    if (!keep.empty() && keep[at] == 0) continue;
    const float r = hessian.diagonal[col];
    const float w = std::fabs(weight.data[at]);
    if (objective == SearchObjective::kSaliency) {
      samples.push_back({w * r * w * r, 1.0f, rank[c]});
    } else {
      samples.push_back({w, r * r, rank[c]});
    }
  }
  std::stable_sort(samples.begin(), samples.end(),
                   [](const Sample& x, const Sample& y) { return x.magnitude < y.magnitude; });
  return samples;
}

}  // namespace

std::vector<uint8_t> choose_salient(const WeightView& weight, const Hessian& hessian,
                                    const std::vector<uint8_t>& keep, const RegionFormat& shape,
                                    SearchObjective objective, int max_salient, int threads) {
  std::vector<uint8_t> salient(static_cast<size_t>(weight.cols), 0);
  parallel_for(shape.groups(), threads, [&](int64_t b) {
    const Group group{b * shape.block_size,
                      std::min<int64_t>(shape.block_size, weight.cols - b * shape.block_size)};
    std::vector<double> score(static_cast<size_t>(group.width), 0.0);
    for (int64_t row = 0; row < weight.rows; ++row) {
      for (int64_t c = 0; c < group.width; ++c) {
        const int64_t col = group.first + c;
        const int64_t at = row * weight.cols + col;
        if (!keep.empty() && keep[at] == 0) continue;
        const double s = static_cast<double>(weight.data[at]) * hessian.diagonal[col];
        score[c] += s * s;
      }
    }
    std::vector<int64_t> order(static_cast<size_t>(group.width)), rank(order.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t x, int64_t y) { return score[x] > score[y]; });
    for (int64_t i = 0; i < group.width; ++i) rank[order[i]] = i;

    const int64_t step = std::max<int64_t>(1, weight.rows / kSampledRows);
    const int64_t limit = std::min<int64_t>(max_salient, group.width - 1);
    std::vector<double> error(static_cast<size_t>(limit + 1), 0.0);
    MagnitudeFit fit;
    for (int64_t row = 0; row < weight.rows; row += step) {
      const std::vector<Sample> samples =
          sample_row(weight, hessian, keep, group, rank, objective, row);
      for (int64_t k = 1; k <= limit; ++k) error[k] += row_error(samples, shape, k, &fit);
    }
    int64_t best = limit >= 1 ? 1 : 0;
    for (int64_t k = 2; k <= limit; ++k) {
      if (error[k] < error[best]) best = k;
    }
    for (int64_t c = 0; c < group.width; ++c) salient[group.first + c] = rank[c] < best;
  });
  return salient;
}

}  // namespace billm
