// Random layers for the tests of codes, packing and quantizers. Values depend on the seed only, not
// on the standard library: std::mt19937 is fixed by the standard, its distributions are not.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "billm/calibrate/stats.h"
#include "billm/codes/region_codes.h"
#include "billm/codes/trellis.h"

namespace billm::test {

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t below(uint32_t count) { return engine_() % count; }
  float uniform() { return static_cast<float>(engine_() >> 8) * 0x1p-24f; }  // [0, 1)
  float normal();                                                            // about N(0, 1)

 private:
  std::mt19937 engine_;
};

std::vector<float> random_normal(int64_t count, uint32_t seed, float scale = 1.0f);

// A layer that passes check_codes: random masks, salient columns, classes, signs, and scales and
// offsets that are exact in their format.
RegionCodes random_codes(const RegionFormat& shape, uint32_t seed);

// A factor on a trellis that passes check_codes: any path, and scales that are exact in fp16, of
// which one is 0 if there are several.
TrellisCodes random_trellis(int64_t rows, int64_t cols, const std::vector<int>& rates,
                            uint32_t seed);

// Statistics of correlated inputs X = A Z, Z random with few strong directions.
CalibrationStats correlated_stats(int64_t width, int64_t tokens, uint32_t seed);

// Half the error of a quantized weight under H + lambda I: tr(D H' D') / 2, D = w - q [rows,
// width].
double layer_error(const std::vector<float>& w, const std::vector<float>& q,
                   const std::vector<float>& hessian, double lambda, int64_t width);

// "rows 3 cols 130 4:8 K 3 S 2 log8 none", for SCOPED_TRACE.
std::string text_of(const RegionFormat& shape);

// Shapes for property tests: rows 1..5, 64, 65 x cols 1, 7, 8, 130, 576 x pairs (K, S) x N:M, with
// scale formats, offset kinds and block sizes taken in turn. `every` thins them out.
std::vector<RegionFormat> shape_sweep(int every = 1);
// The same for what is not a question of classes and masks: column scales, classes of salient
// columns only, integers everywhere and scattered.
std::vector<RegionFormat> shape_sweep_of_kinds(int every = 1);

}  // namespace billm::test
