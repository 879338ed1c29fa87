// See include/billm/codes/trellis.h.
#include "billm/codes/trellis.h"

#include <algorithm>
#include <cmath>

#include "billm/base/error.h"
#include "billm/base/half.h"
#include "billm/base/parallel.h"

namespace billm {
namespace {

// For each rate 1..4: a unit of the table times 2^19, so that T reproduces Gaussian weights of
// variance 1 best, and the root of the distortion times 2^16 (tools/make_trellis_table.cpp measured
// both). Part of the format.
constexpr int32_t kUnits[kMaxTrellisRate] = {5272, 7015, 8114, 8932};
constexpr int32_t kRoots[kMaxTrellisRate] = {56197, 48117, 41178, 35045};
constexpr int kRootShift = 16;

constexpr int64_t kRowsAtOnce = 64;

[[noreturn]] void broken(const std::string& what) {
  throw Error(ErrorCode::kFailure, "quantized layer is inconsistent: " + what);
}

int32_t shifted(int64_t value) {
  return static_cast<int32_t>((value + (int64_t{1} << (kRootShift - 1))) >> kRootShift);
}

// The product of the roots of the planes before each one, times 2^16.
std::vector<int32_t> residual_roots(const std::vector<int>& rates) {
  std::vector<int32_t> roots;
  int32_t root = 1 << kRootShift;
  for (const int rate : rates) {
    roots.push_back(root);
    root = shifted(int64_t{root} * kRoots[rate - 1]);
  }
  return roots;
}

}  // namespace

int64_t TrellisFormat::segment_rows() const {
  constexpr int64_t kTile = 64;
  const int64_t tiles = kTile * segments();
  return kTile * ((rows + tiles - 1) / tiles);
}

int64_t TrellisFormat::group_bits(int plane) const {
  const int64_t rate = rates[static_cast<size_t>(plane)];
  return segments() * (8 - rate) + rate * rows;
}

double TrellisFormat::bits() const {
  double sum = 0;
  for (const int rate : rates) sum += rate;
  return sum / kTrellisColumns;
}

void check_trellis_format(const TrellisFormat& format, const std::string& where) {
  constexpr int64_t kMost = int64_t{1} << 30;
  if (format.rows < 1 || format.cols < 1 || format.rows > kMost || format.cols > kMost ||
      format.rows > (int64_t{1} << 40) / format.cols) {
    throw bad_input(where +
                    ": expected a shape of 1..2^30 rows and columns and 2^40 weights, got " +
                    std::to_string(format.rows) + " x " + std::to_string(format.cols));
  }
  if (format.rates.empty() || format.planes() > kMaxTrellisPlanes) {
    throw bad_input(where + ": expected 1.." + std::to_string(kMaxTrellisPlanes) +
                    " rates of a trellis, got " + std::to_string(format.planes()));
  }
  for (const int rate : format.rates) {
    if (rate >= 1 && rate <= kMaxTrellisRate) continue;
    throw bad_input(where + ": expected rates of a trellis in 1.." +
                    std::to_string(kMaxTrellisRate) + ", got " + std::to_string(rate));
  }
}

TrellisCodes make_trellis_codes(const TrellisFormat& format) {
  check_trellis_format(format, "trellis");
  TrellisCodes codes;
  codes.format = format;
  codes.states.assign(format.rates.size(),
                      std::vector<uint8_t>(static_cast<size_t>(format.groups() * format.rows), 0));
  codes.scale.assign(static_cast<size_t>(format.rows), 0.0f);
  return codes;
}

std::vector<int32_t> trellis_gains(const std::vector<int>& rates) {
  std::vector<int32_t> gains = residual_roots(rates);
  for (size_t p = 0; p < rates.size(); ++p) {
    gains[p] = shifted(int64_t{gains[p]} * kUnits[rates[p] - 1]);
  }
  return gains;
}

std::vector<float> trellis_residuals(const std::vector<int>& rates) {
  std::vector<float> residuals;
  for (const int32_t root : residual_roots(rates)) {
    residuals.push_back(std::ldexp(static_cast<float>(root), -kRootShift));
  }
  return residuals;
}

void trellis_values(const std::vector<int32_t>& gains, const uint8_t* states, float* values) {
  int32_t sums[kTrellisColumns] = {};
  for (size_t p = 0; p < gains.size(); ++p) {
    for (int j = 0; j < kTrellisColumns; ++j) sums[j] += gains[p] * kTrellisTable[states[p]][j];
  }
  constexpr float kUnit = 1.0f / (1 << kTrellisShift);
  for (int j = 0; j < kTrellisColumns; ++j) values[j] = static_cast<float>(sums[j]) * kUnit;
}

std::vector<float> dequantize(const TrellisCodes& codes, int threads) {
  const TrellisFormat& format = codes.format;
  const std::vector<int32_t> gains = trellis_gains(format.rates);
  std::vector<float> weight(static_cast<size_t>(format.rows * format.cols));
  parallel_parts(format.rows, kRowsAtOnce, threads, [&](int64_t first, int64_t end) {
    for (int64_t group = 0; group < format.groups(); ++group) {
      const int64_t col = group * kTrellisColumns;
      const int64_t width = std::min<int64_t>(kTrellisColumns, format.cols - col);
      for (int64_t row = first; row < end; ++row) {
        uint8_t states[kMaxTrellisPlanes];
        for (size_t p = 0; p < gains.size(); ++p) {
          states[p] = codes.states[p][static_cast<size_t>(group * format.rows + row)];
        }
        float values[kTrellisColumns];
        trellis_values(gains, states, values);
        const float scale = codes.scale[static_cast<size_t>(row)];
        for (int64_t j = 0; j < width; ++j) {
          weight[static_cast<size_t>(row * format.cols + col + j)] = scale * values[j];
        }
      }
    }
  });
  return weight;
}

void check_codes(const TrellisCodes& codes, int threads) {
  const TrellisFormat& format = codes.format;
  check_trellis_format(format, "quantized layer");
  const auto size = static_cast<size_t>(format.groups() * format.rows);
  if (codes.states.size() != format.rates.size()) broken("planes of a trellis");
  for (const auto& states : codes.states) {
    if (states.size() != size) broken("states of a trellis");
  }
  if (codes.scale.size() != static_cast<size_t>(format.rows)) broken("scales of a trellis");
  for (const float scale : codes.scale) {
    if (!std::isfinite(scale) || std::signbit(scale) || round_to_half(scale) != scale) {
      broken("a scale of a trellis is no fp16 number >= 0");
    }
  }
  const int64_t segment = format.segment_rows();
  for (int p = 0; p < format.planes(); ++p) {
    const int rate = format.rates[static_cast<size_t>(p)];
    parallel_for(format.groups(), threads, [&](int64_t group) {
      const uint8_t* states = codes.states[static_cast<size_t>(p)].data() + group * format.rows;
      for (int64_t row = 1; row < format.rows; ++row) {
        if (row % segment == 0) continue;
        if ((states[row] >> rate) != (states[row - 1] & ((1 << (8 - rate)) - 1))) {
          broken("row " + std::to_string(row) + " of a trellis does not follow the row before");
        }
      }
    });
  }
}

}  // namespace billm
