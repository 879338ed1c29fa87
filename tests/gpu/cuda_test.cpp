// The CUDA kernels on a GPU: every kind of layer, ragged sizes, all ways to multiply, against the
// layer's own weights. Skips, with the reason, where there is no GPU. BILLM_CUDA_LIBRARY is the
// path of libbillm_cuda.so.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <thread>

#include "kernels/cuda/cuda_api.h"
#include "support/compare.h"
#include "support/cuda_testing.h"

namespace billm::test {
namespace {

using kernels::cuda::CudaApi;
using kernels::cuda::CudaGemmPath;
using kernels::cuda::CudaGraph;
using kernels::cuda::CudaMatrix;
using kernels::cuda::CudaProduct;
using HostLayer = test::CudaLayer;
using DeviceCudaLayer = kernels::cuda::CudaLayer;

const CudaApi* load() {
  void* library = dlopen(BILLM_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(dlerror());
  void* get = dlsym(library, kernels::cuda::kCudaApiSymbol);
  if (get == nullptr) throw std::runtime_error("no billm_cuda_api");
  return reinterpret_cast<CudaApi::Get*>(get)(kernels::cuda::kCudaApiVersion);
}

const CudaApi& api() {
  static const CudaApi* table = load();
  return *table;
}

void ok(const char* problem) {
  if (problem != nullptr) throw std::runtime_error(problem);
}

// The library loads and its table is there on every machine; without a driver it says so.
TEST(CudaLibrary, LoadsWithoutAGpu) {
  void* library = dlopen(BILLM_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto get = reinterpret_cast<CudaApi::Get*>(dlsym(library, kernels::cuda::kCudaApiSymbol));
  ASSERT_NE(get, nullptr);
  EXPECT_EQ(get(kernels::cuda::kCudaApiVersion + 1), nullptr);
  const CudaApi* table = get(kernels::cuda::kCudaApiVersion);
  ASSERT_NE(table, nullptr);
  EXPECT_EQ(table->version, kernels::cuda::kCudaApiVersion);
  EXPECT_EQ(table->tile_order(), kernels::cuda::kCudaTileOrder);
  int count = 0;
  const char* problem = table->device_count(&count);
  EXPECT_TRUE(problem != nullptr || count > 0) << "neither a device nor a reason";
}

#ifdef BILLM_TORCH_CUDA_LIBRARY
// The library of CUDA graphs, too: LibTorch's CUDA side needs no GPU to be loaded.
TEST(TorchCudaLibrary, LoadsWithoutAGpu) {
  void* library = dlopen(BILLM_TORCH_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto make =
      reinterpret_cast<void* (*)(int version, int device)>(dlsym(library, "billm_graph_capture"));
  ASSERT_NE(make, nullptr);
  EXPECT_EQ(make(1 << 20, 0), nullptr);
}
#endif

class Memory {
 public:
  explicit Memory(int64_t bytes) {
    ok(api().allocate(std::max<int64_t>(1, bytes), &data_));
    ok(api().fill(data_, 0x7f, bytes, nullptr));
  }
  Memory(const void* host, int64_t bytes) : Memory(bytes) {
    ok(api().copy_in(data_, host, bytes, nullptr));
  }
  ~Memory() { api().release(data_); }
  Memory(const Memory&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

class Uploaded {
 public:
  explicit Uploaded(const kernels::PlaneTilesView& view) : memory_(bytes_of(view)) {
    ok(api().upload(&view, memory_.data(), nullptr, &layer_));
  }
  ~Uploaded() { api().free_layer(layer_); }
  Uploaded(const Uploaded&) = delete;
  const DeviceCudaLayer* get() const { return layer_; }

 private:
  static int64_t bytes_of(const kernels::PlaneTilesView& view) {
    int64_t bytes = 0;
    ok(api().layer_memory(&view, &bytes));
    return bytes;
  }
  const Memory memory_;
  DeviceCudaLayer* layer_ = nullptr;
};

constexpr int64_t kMargin = 64;  // numbers around y that must not be written
constexpr uint16_t kUntouched = 0x7f7f;

enum class How { kGemv, kGraph, kGemmOfFew, kFused, kDense, kAuto };

// y of a product, as fp32. y has another stride than rows, and its margins are checked.
std::vector<float> multiply(const HostLayer& host, const DeviceCudaLayer* layer, const Numbers& x,
                            int tokens, How how, bool half_result) {
  const int64_t rows = host.layer.rows, cols = host.layer.cols, stride = rows + 5;
  const int64_t size = half_result ? 2 : 4, count = tokens * stride + 2 * kMargin;
  const Memory device_x(x.data(), tokens * cols * (x.is_half ? 2 : 4));
  const Memory device_y(count * size);
  CudaProduct product;
  product.layer = layer;
  product.x = {device_x.data(), cols, x.is_half};
  product.y = {static_cast<uint8_t*>(device_y.data()) + kMargin * size, stride, half_result};
  product.tokens = tokens;
  if (how == How::kGemv) {
    ok(api().gemv(&product, nullptr));
  } else if (how == How::kGraph) {
    CudaGraph* graph = nullptr;
    const CudaProduct products[] = {product, product};
    ok(api().new_graph(products, 2, &graph));
    ok(api().run_graph(graph, nullptr));
    ok(api().wait_stream(nullptr));
    api().free_graph(graph);
  } else {
    const CudaGemmPath path = how == How::kFused       ? CudaGemmPath::kFused
                              : how == How::kDense     ? CudaGemmPath::kDense
                              : how == How::kGemmOfFew ? CudaGemmPath::kGemv
                                                       : CudaGemmPath::kAuto;
    int64_t bytes = 0;
    ok(api().workspace_bytes(&product, path, &bytes));
    const Memory workspace(bytes);
    ok(api().gemm(&product, path, workspace.data(), bytes, nullptr));
    ok(api().wait_stream(nullptr));
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(count * size));
  ok(api().copy_out(bytes.data(), device_y.data(), count * size, nullptr));
  const auto half_at = [&](int64_t i) {
    uint16_t value;
    std::memcpy(&value, bytes.data() + 2 * i, 2);
    return value;
  };
  const auto untouched = [&](int64_t i) {
    return half_result ? half_at(i) == kUntouched
                       : half_at(2 * i) == kUntouched && half_at(2 * i + 1) == kUntouched;
  };
  std::vector<float> y(static_cast<size_t>(tokens * rows));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t token = (i - kMargin) / stride, row = (i - kMargin) % stride;
    if (i < kMargin || token >= tokens || row >= rows) {
      EXPECT_TRUE(untouched(i)) << "written beside y: " << i - kMargin;
      continue;
    }
    float value;
    if (half_result) {
      value = half_to_float(half_at(i));
    } else {
      std::memcpy(&value, bytes.data() + 4 * i, 4);
    }
    y[static_cast<size_t>(token * rows + row)] = value;
  }
  return y;
}

class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    const char* problem = api().device_count(&count);
    if (problem != nullptr || count == 0) {
      GTEST_SKIP() << "no CUDA device: " << (problem != nullptr ? problem : "none found");
    }
    ok(api().use_device(0));
  }

  // One kind of layer in every way, `every` thins the kinds out.
  void check(int every, const std::vector<int>& tokens, How how, const KernelError& error) {
    uint32_t seed = 0;
    for (const RegionFormat& shape : cuda_shapes(every)) {
      if (how == How::kFused && shape.scattered) continue;
      SCOPED_TRACE(text_of(shape));
      const HostLayer host(shape, ++seed);
      const Uploaded layer(host.tiles.view());
      const int count = tokens[seed % tokens.size()];
      const Numbers x = random_x(count, shape.cols, seed % 2 == 0, seed);
      const auto y = multiply(host, layer.get(), x, count, how, false);
      ASSERT_NO_FATAL_FAILURE(expect_product(host, x, shape.cols, count, y, error));
      const auto again = multiply(host, layer.get(), x, count, how, false);
      ASSERT_TRUE(close(again, y)) << "another result in a second run";
      auto halves = y;
      for (float& value : halves) value = round_to_half(value);
      if (how == How::kDense) continue;  // rounds before it scales
      ASSERT_TRUE(close(multiply(host, layer.get(), x, count, how, true), halves));
    }
  }
};

// "Small" cases also run under compute-sanitizer (sanitizer_test.py).
TEST_F(Gpu, SmallGemv) { check(23, {1, 2, 3, 8}, How::kGemv, kFixedError); }
TEST_F(Gpu, SmallFused) { check(31, {5, 40, 70}, How::kFused, kHalfError); }
TEST_F(Gpu, SmallDense) { check(31, {5, 40}, How::kDense, kHalfError); }

TEST_F(Gpu, GemvOfEveryLayer) { check(1, {1, 2, 3, 4, 5, 6, 7, 8}, How::kGemv, kFixedError); }
TEST_F(Gpu, GemvInAGraph) { check(11, {1, 4, 8}, How::kGraph, kFixedError); }
TEST_F(Gpu, GemvsOfMoreTokens) { check(11, {1, 9, 17, 32}, How::kGemmOfFew, kFixedError); }
TEST_F(Gpu, FusedGemmOfEveryLayer) {
  check(3, {1, 9, 33, 64, 65, 130, 300}, How::kFused, kHalfError);
}
TEST_F(Gpu, DenseGemmOfEveryLayer) { check(5, {1, 9, 33, 130}, How::kDense, kHalfError); }
TEST_F(Gpu, GemmThatChooses) { check(11, {1, 20, 40, 200}, How::kAuto, kHalfError); }

// A layer as large models have them: all multiprocessors, several strips for each warp.
TEST_F(Gpu, LargeLayers) {
  RegionFormat shape;
  shape.rows = 4096;
  shape.cols = 4096;
  const HostLayer host(shape, 1);
  const Uploaded layer(host.tiles.view());
  EXPECT_GT(api().layer_bytes(layer.get()), shape.rows * shape.cols / 4);
  for (const int tokens : {1, 2, 4, 8}) {
    const Numbers x = random_x(tokens, shape.cols, true, 2);
    const auto y = multiply(host, layer.get(), x, tokens, How::kGemv, false);
    ASSERT_NO_FATAL_FAILURE(expect_product(host, x, shape.cols, tokens, y, kFixedError));
  }
  const Numbers x = random_x(96, shape.cols, true, 2);
  for (const How how : {How::kFused, How::kDense}) {
    const auto y = multiply(host, layer.get(), x, 96, how, false);
    ASSERT_NO_FATAL_FAILURE(expect_product(host, x, shape.cols, 96, y, kHalfError));
  }
}

// An error of an earlier call is told by that call and by no other; threads choose their device.
TEST_F(Gpu, ErrorsStayWithTheirCall) {
  RegionFormat shape;
  shape.rows = 64;
  shape.cols = 256;
  const HostLayer host(shape, 1);
  const Uploaded layer(host.tiles.view());
  const Numbers x = random_x(1, shape.cols, false, 2);
  void* none = nullptr;
  EXPECT_NE(api().allocate(int64_t{1} << 60, &none), nullptr);
  EXPECT_NE(api().use_device(1000), nullptr);
  std::vector<float> y;
  std::thread([&] {
    ok(api().use_device(0));
    y = multiply(host, layer.get(), x, 1, How::kGemv, false);
  }).join();
  ASSERT_NO_FATAL_FAILURE(expect_product(host, x, shape.cols, 1, y, kFixedError));
}

TEST_F(Gpu, SaysWhatItCannotDo) {
  RegionFormat shape;
  shape.rows = 64;
  shape.cols = 256;
  const HostLayer host(shape, 1);
  const Uploaded layer(host.tiles.view());
  const Memory memory(1 << 20);
  CudaProduct product;
  product.layer = layer.get();
  product.x = {memory.data(), 256, false};
  product.y = {memory.data(), 64, false};
  product.tokens = 9;
  EXPECT_STREQ(api().gemv(&product, nullptr), "gemv: expected 1 to 8 tokens");
  product.tokens = 0;
  EXPECT_STREQ(api().gemv(&product, nullptr), "product: expected one token or more");
  product.tokens = 2;
  product.y.stride = 63;
  EXPECT_STREQ(api().gemv(&product, nullptr), "product: rows of x or y overlap");
  product.y.stride = 64;
  EXPECT_STREQ(api().gemm(&product, CudaGemmPath::kFused, nullptr, 0, nullptr),
               "gemm: workspace too small");
  kernels::PlaneTilesView view = host.tiles.view();
  view.order.interleave = 1;
  DeviceCudaLayer* none = nullptr;
  int64_t bytes = 0;
  EXPECT_STREQ(api().layer_memory(&view, &bytes), "layer: not in the order of the CUDA kernels");
  EXPECT_STREQ(api().upload(&view, memory.data(), nullptr, &none),
               "layer: not in the order of the CUDA kernels");
  EXPECT_STREQ(api().upload(&host.tiles.view(), nullptr, nullptr, &none),
               "layer: its memory is missing or not aligned");
  EXPECT_EQ(none, nullptr);
}

}  // namespace
}  // namespace billm::test
