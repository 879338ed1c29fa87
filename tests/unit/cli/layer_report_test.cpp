// `billm bench` of layers on a GPU, every line of it, on a fake one: what is queued, units, the
// report, and that all is freed whatever fails.
#include "src/cli/layer_report.h"

#include <gtest/gtest.h>

#include <set>

#include "billm/base/error.h"
#include "support/fake_cuda.h"

namespace billm {
namespace {

using test::fake_cuda;
using test::fake_cuda_api;
using Json = nlohmann::ordered_json;

class LayerReport : public testing::Test {
 protected:
  void SetUp() override {
    fake_cuda() = {};
    fake_cuda().layer_seconds = 5e-3;  // long, so that few of them are needed
    fake_cuda().dense_seconds = 20e-3;
    options_.layers = {"billm"};
    options_.shapes = {"70x256"};
    options_.batches = {1};
    options_.repetitions = 3;
    options_.cold_bytes = 3 << 20;
  }
  void TearDown() override { fake_cuda() = {}; }

  Json run(bool print = false) {
    const auto device = make_cuda_bench(fake_cuda_api(), 0, 1);
    return report_layers(options_, *device, print);
  }

  LayerReportOptions options_;
};

TEST_F(LayerReport, UnitsAndFields) {
  options_.cold_bytes = 20000;
  testing::internal::CaptureStderr();
  const Json rows = run();
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "billm: warning: --cold: less than twice the GPU's cache of 1 MB, which may keep the "
            "layers\n");
  ASSERT_EQ(rows.size(), 1u);
  const Json& row = rows[0];
  EXPECT_EQ(row["layer"], "billm");
  EXPECT_EQ(row["rows"], 70);
  EXPECT_EQ(row["cols"], 256);
  EXPECT_EQ(row["batch"], 1);
  EXPECT_GT(row["stored_bits"], 2);
  EXPECT_NEAR(row["seconds"], 5e-3, 1e-12);
  EXPECT_NEAR(row["seconds_fastest"], 5e-3, 1e-12);
  const double bytes = row["run_bits"].get<double>() / 8 * 70 * 256;
  EXPECT_NEAR(row["bytes_per_second"], bytes / 5e-3, 1e-6 * bytes / 5e-3);
  EXPECT_NEAR(row["bandwidth_share"], bytes / 5e-3 / 1e12, 1e-12);
  EXPECT_NEAR(row["dense_fp16_seconds"], 20e-3, 1e-12);
  EXPECT_NEAR(row["against_dense"], 4, 1e-9);
  EXPECT_EQ(row["copies"], static_cast<int64_t>(std::ceil(20000 / bytes)));
  EXPECT_EQ(row["dense_copies"], (20000 + 2 * 70 * 256 - 1) / (2 * 70 * 256));
  EXPECT_EQ(fake_cuda().live, 0);
}

// Products use the copies in turn, in a graph and in a queue, and so do the baseline's.
TEST_F(LayerReport, CopiesInTurn) {
  for (const int64_t batch : {1, 8, 9, 40}) {
    SCOPED_TRACE(batch);
    fake_cuda().weights.clear();
    options_.batches = {batch};
    options_.cold_bytes = 100000;
    testing::internal::CaptureStderr();
    const Json row = run()[0];
    testing::internal::GetCapturedStderr();
    const auto& weights = fake_cuda().weights;
    const auto copies = row["copies"].get<size_t>(), dense = row["dense_copies"].get<size_t>();
    ASSERT_GT(copies, 2u);
    ASSERT_EQ(dense, 3u);
    const std::set<const void*> first(weights.begin(), weights.begin() + static_cast<long>(copies));
    EXPECT_EQ(first.size(), copies);
    size_t at = copies;
    while (weights[at] == weights[at - copies]) ++at;
    EXPECT_EQ(at % copies, 0u);
    EXPECT_GE(at / copies, 5u);  // twice before it is measured, three repetitions
    EXPECT_GE((weights.size() - at) / dense, 5u);
    for (size_t i = at + dense; i < weights.size(); ++i) EXPECT_EQ(weights[i], weights[i - dense]);
    EXPECT_EQ(fake_cuda().live, 0);
  }
}

TEST_F(LayerReport, EveryKindOfLayerAndText) {
  options_.layers = {};
  options_.shapes = {"33x128"};
  options_.batches = {1, 8, 9, 40};
  options_.repetitions = 1;
  options_.cold_bytes = 1;
  fake_cuda().blas = false;
  fake_cuda().bandwidth = 0;
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  const Json rows = run(true);
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_NE(testing::internal::GetCapturedStderr().find(
                "billm: warning: cuBLAS: not here: layers are measured without a baseline\n"),
            std::string::npos);
  ASSERT_EQ(rows.size(), 4 * bench_layers().size());
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i]["layer"], bench_layers()[i / 4].name);
    EXPECT_EQ(rows[i]["batch"], options_.batches[i % 4]);
    EXPECT_TRUE(rows[i]["bandwidth_share"].is_null());
    EXPECT_TRUE(rows[i]["dense_fp16_seconds"].is_null());
    EXPECT_TRUE(rows[i]["against_dense"].is_null());
  }
  EXPECT_NE(text.find("against fp16\n"), std::string::npos);
  EXPECT_NE(text.find("stbllm   33 x 128          40 "), std::string::npos) << text;
  EXPECT_NE(text.find("5000.0"), std::string::npos) << text;
  EXPECT_EQ(fake_cuda().live, 0);
}

TEST_F(LayerReport, FreesEverythingWhateverFails) {
  options_.batches = {1, 9};
  options_.repetitions = 1;
  options_.cold_bytes = 2000;
  fake_cuda().layer_seconds = fake_cuda().dense_seconds = 1;
  testing::internal::CaptureStderr();
  int failures = 0;
  for (int calls = 0; calls < 300; ++calls, ++failures) {
    fake_cuda().fail_after = calls;
    try {
      run();
      break;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kFailure);
      EXPECT_EQ(error.message(), "CUDA: no more");
    }
    ASSERT_EQ(fake_cuda().live, 0) << calls;
  }
  testing::internal::GetCapturedStderr();
  EXPECT_GT(failures, 40);
  EXPECT_LT(failures, 300);
  EXPECT_EQ(fake_cuda().live, 0);
}

TEST(BenchShapes, ListsAndSingleOnes) {
  const std::vector<BenchShape> shapes = bench_shapes({"3x5", "llama"});
  ASSERT_EQ(shapes.size(), 6u);
  EXPECT_EQ(shapes[0].rows, 3);
  EXPECT_EQ(shapes[0].cols, 5);
  EXPECT_EQ(shapes[5].rows, 8192);
  EXPECT_EQ(shapes[5].cols, 28672);
  EXPECT_NE(bench_shape_lists().find("llama: 4096x4096 11008x4096"), std::string::npos);
  EXPECT_THROW(bench_shapes({"mistral"}), Error);
}

}  // namespace
}  // namespace billm
