// Bits where they matter: the rate of each layer, so that all of them together take so many stored
// bits (quantize --target-bits).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "billm/quantize/config.h"

namespace billm {

// A layer whose rate is to be found.
struct RatedLayer {
  std::string module;
  int64_t rows = 0, cols = 0;
  MethodConfig config;  // `bits`: the base rate
  // By how much the model's loss would fall, to first order, if the layer had no error at the base
  // rate. At most 0: bits are taken from it first.
  double gain = 0;
};

// What `bits` of the method may be, ascending: all that its range has, in steps of 0.05 if it is
// not in steps; of integers from 2 bits on, since signs are another code. Throws Error{kUsage} for
// a method without rates.
std::vector<double> rates_of(const MethodConfig& config);

// The rate at which all layers are quantized to find out where bits matter: the highest that is not
// above the target. Throws Error{kUsage} for a target that the method's rates cannot come near.
double base_rate(const MethodConfig& config, double target);

// The rate of each layer, by module: steps of rates are made in the order of what they are worth
// for each of their bits, as long as the layers take at most `budget` bits in all. A layer of n
// weights is worth n sqrt(gain / n) times the power of its error, which falls by kErrorOfABit with
// each bit; the square root, half way between its gain and no difference at all, is what measured
// best (docs/decisions/0021-target-bits.md): gains are of first order, and noisy. Rates are
// kStepsDown below the base rate at least and 1 bit above it at most.
inline constexpr double kErrorOfABit = 0.29;  // decision 0019: .084 of 2 bits / .29 of 1 bit
inline constexpr int kStepsDown = 1;
std::map<std::string, double> allocate_bits(const std::vector<RatedLayer>& layers, double budget);

// The bits that the layers take in all at their lowest and at their highest rates.
struct BitsRange {
  double least = 0, most = 0;
};
BitsRange bits_range(const std::vector<RatedLayer>& layers);

}  // namespace billm
