// SplitMix64: the random numbers of the calibration windows, the same on every machine.
#pragma once

#include <cstdint>

namespace billm {

// SplitMix64 (Steele, Lea, Flood 2014): the whole state is the seed, every seed is a good one.
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
  }
  // Uniform in [0, bound): draws below 2^64 mod bound would favour small results and are redone.
  uint64_t below(uint64_t bound) {
    const uint64_t reject = (0 - bound) % bound;
    uint64_t drawn = next();
    while (drawn < reject) drawn = next();
    return drawn % bound;
  }

 private:
  uint64_t state_;
};

}  // namespace billm
