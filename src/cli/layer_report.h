// What `billm bench` says of single layers.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "billm/bench/bench.h"

namespace billm {

struct LayerReportOptions {
  std::vector<std::string> layers;  // BenchLayer::name; none: all
  std::vector<std::string> shapes;  // "ROWSxCOLS", or the name of a list of shapes
  std::vector<int64_t> batches;
  int repetitions = 5;
  int64_t cold_bytes = 0;
};

struct BenchShape {
  int64_t rows = 0, cols = 0;
};
// Throws Error{kUsage} for what is neither.
std::vector<BenchShape> bench_shapes(const std::vector<std::string>& texts);
std::string bench_shape_lists();  // "llama: 4096x4096, ..."

// Measures all of them; a line for each on stdout if `print`. An array: an object for each layer,
// shape and batch.
nlohmann::ordered_json report_layers(const LayerReportOptions& options, BenchDevice& device,
                                     bool print);

}  // namespace billm
