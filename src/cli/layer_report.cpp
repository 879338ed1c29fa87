// See layer_report.h.
#include "layer_report.h"

#include <cstdio>

#include "billm/base/error.h"
#include "common.h"

namespace billm {
namespace {

using Json = nlohmann::ordered_json;

struct ShapeList {
  const char* name;
  const char* shapes[5];
};
const ShapeList kLists[] = {
    // q of LLaMA 7B and 8B; up and down of 7B; up of 8B; down of 70B.
    {"llama", {"4096x4096", "11008x4096", "4096x11008", "14336x4096", "8192x28672"}},
};

BenchShape parse_shape(const std::string& text) {
  BenchShape shape;
  int used = 0;
  long rows = 0, cols = 0;
  constexpr long kMost = 1 << 20, kMostWeights = 1l << 30;
  if (std::sscanf(text.c_str(), "%ldx%ld%n", &rows, &cols, &used) != 2 ||
      used != static_cast<int>(text.size()) || rows < 1 || cols < 1 || rows > kMost ||
      cols > kMost || rows * cols > kMostWeights) {
    throw Error(ErrorCode::kUsage, "--shape: expected ROWSxCOLS like 11008x4096, got " + text);
  }
  shape.rows = rows;
  shape.cols = cols;
  return shape;
}

void print_row(const std::string& layer, const BenchShape& shape, const LayerBench& row,
               double bandwidth) {
  const std::string size = std::to_string(shape.rows) + " x " + std::to_string(shape.cols);
  std::printf("%-8s %-14s %5ld  %6.3f  %6.3f  %12.1f  %6.1f  ", layer.c_str(), size.c_str(),
              static_cast<long>(row.tokens), row.stored_bits, row.run_bits, row.seconds * 1e6,
              row.bytes_per_second() / 1e9);
  if (bandwidth > 0) {
    std::printf("%3.0f %%  ", 100 * row.bytes_per_second() / bandwidth);
  } else {
    std::printf("    -  ");
  }
  if (row.dense_seconds > 0) {
    std::printf("%.1fx\n", row.dense_seconds / row.seconds);
  } else {
    std::printf("-\n");
  }
  flush_stdout();
}

// null: not known.
Json known(bool is, double value) { return is ? Json(value) : Json(nullptr); }

}  // namespace

std::vector<BenchShape> bench_shapes(const std::vector<std::string>& texts) {
  std::vector<BenchShape> result;
  for (const std::string& text : texts) {
    bool is_list = false;
    for (const ShapeList& list : kLists) {
      if (text != list.name) continue;
      is_list = true;
      for (const char* shape : list.shapes) result.push_back(parse_shape(shape));
    }
    if (!is_list) result.push_back(parse_shape(text));
  }
  return result;
}

std::string bench_shape_lists() {
  std::string text;
  for (const ShapeList& list : kLists) {
    text += std::string(text.empty() ? "" : "; ") + list.name + ":";
    for (const char* shape : list.shapes) text += std::string(" ") + shape;
  }
  return text;
}

Json report_layers(const LayerReportOptions& options, BenchDevice& device, bool print) {
  const std::vector<BenchShape> shapes = bench_shapes(options.shapes);
  std::vector<std::string> names = options.layers;
  if (names.empty()) {
    for (const BenchLayer& layer : bench_layers()) names.push_back(layer.name);
  }
  const std::string baseline = device.baseline();
  if (print) {
    std::printf(
        "\nlayer    rows x cols    batch  stored  in use  microseconds    GB/s  share  against "
        "%s\n",
        baseline.c_str());
  }
  Json report = Json::array();
  for (const BenchShape& shape : shapes) {
    for (const std::string& name : names) {
      LayerBenchRequest request;
      request.layer = name;
      request.rows = shape.rows;
      request.cols = shape.cols;
      request.tokens = options.batches;
      request.repetitions = options.repetitions;
      request.cold_bytes = options.cold_bytes;
      for (const LayerBench& row : device.measure(request)) {
        const double bandwidth = device.bandwidth();
        if (print) print_row(name, shape, row, bandwidth);
        const bool has_baseline = row.dense_seconds > 0;
        report.push_back(
            {{"layer", name},
             {"rows", shape.rows},
             {"cols", shape.cols},
             {"batch", row.tokens},
             {"stored_bits", row.stored_bits},
             {"run_bits", row.run_bits},
             {"copies", row.copies},
             {"seconds", row.seconds},
             {"seconds_fastest", row.fastest},
             {"bytes_per_second", row.bytes_per_second()},
             {"bandwidth_share", known(bandwidth > 0, row.bytes_per_second() / bandwidth)},
             {"dense_copies", row.dense_copies},
             {"dense_" + baseline + "_seconds", known(has_baseline, row.dense_seconds)},
             {"against_dense", known(has_baseline, row.dense_seconds / row.seconds)}});
      }
    }
  }
  if (print) {
    std::printf(
        "stored, in use: bits per weight in the file, and read for a product. share: of the "
        "memory's bandwidth.\n");
  }
  return report;
}

}  // namespace billm
