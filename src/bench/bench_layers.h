// The layers that `billm bench` measures: a table of what the methods write by default.
#pragma once

#include "billm/bench/bench.h"
#include "billm/codes/region_codes.h"

namespace billm {

// The row of bench_layers() called `name`, with random codes of a fixed seed. Throws Error{kUsage}
// for another name.
RegionCodes random_bench_layer(const std::string& name, int64_t rows, int64_t cols);

}  // namespace billm
