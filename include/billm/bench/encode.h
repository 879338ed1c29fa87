// How fast the weights of a trellis plane are coded on this machine.
#pragma once

#include <vector>

namespace billm {

struct EncodeBench {
  int rate = 0;  // bits of four weights
  // Of a weight and a plane on one thread, the metric of its group included: the median of the
  // repetitions, and the best one.
  double seconds = 0, fastest = 0;
};

// Every rate, with Gaussian weights of a fixed seed in segments of 512 rows.
std::vector<EncodeBench> bench_encode(int repetitions);

}  // namespace billm
