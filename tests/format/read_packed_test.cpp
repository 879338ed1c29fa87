// tools/read_packed.py, written from docs/format.md alone, decodes what billm packs to the same
// bits, and refuses the same damaged planes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>

#include "billm/checkpoint/safetensors.h"
#include "billm/pack/integer_rows.h"
#include "format/layer_testing.h"
#include "support/environment.h"
#include "support/random_layer.h"

namespace billm::test {
namespace {

// Every code there is, with scales up to the largest.
IntegerRows some_integer_rows(int bits, int64_t cols, int64_t block_size, uint32_t seed) {
  IntegerRows rows = make_integer_rows(5, cols, bits);
  rows.block_size = block_size;
  rows.owned[1].assign(static_cast<size_t>(2 * rows.rows * rows.groups()), std::byte{0});
  rows.planes[1].shape = {rows.rows, rows.groups()};
  rows.planes[1].bytes = rows.owned[1];
  std::mt19937 random(seed);
  for (std::byte& code : rows.owned[0]) code = static_cast<std::byte>(random());
  for (int64_t row = 0; bits == 4 && cols % 2 == 1 && row < rows.rows; ++row) {
    rows.owned[0][static_cast<size_t>((row + 1) * rows.row_bytes() - 1)] &= std::byte{15};
  }
  for (int64_t i = 0; i < rows.rows * rows.groups(); ++i) {
    const auto half = static_cast<uint16_t>(random() % 0x7c00);
    std::memcpy(rows.owned[1].data() + 2 * i, &half, 2);
  }
  return rows;
}

// Collects modules for one shard, and what the decoder must say of each: a byte, 1 accepted or 0
// refused, and if accepted the weights. In the order of the modules' names.
class Cases {
 public:
  void add(PackedLayer packed) {
    char name[16];
    std::snprintf(name, sizeof(name), "m%06d", static_cast<int>(layers_.size()));
    names_.emplace_back(name);
    const bool ok = accepted(packed);
    expected_.push_back(ok ? 1 : 0);
    if (ok) {
      const std::vector<float> weight = decode_all(packed);
      const auto* bytes = reinterpret_cast<const char*>(weight.data());
      expected_.insert(expected_.end(), bytes, bytes + weight.size() * sizeof(float));
    }
    layers_.push_back(std::move(packed));
  }

  void add(IntegerRows rows) {
    char name[16];
    std::snprintf(name, sizeof(name), "r%06d", static_cast<int>(rows_.size()));  // behind layers
    row_names_.emplace_back(name);
    bool ok = true;
    try {
      check_integer_rows(rows, name);
    } catch (const Error&) {
      ok = false;
    }
    expected_.push_back(ok ? 1 : 0);
    if (ok) {
      std::vector<float> weight(static_cast<size_t>(rows.rows * rows.cols));
      decode_rows(rows, 0, rows.rows, weight.data());
      const auto* bytes = reinterpret_cast<const char*>(weight.data());
      expected_.insert(expected_.end(), bytes, bytes + weight.size() * sizeof(float));
    }
    rows_.push_back(std::move(rows));
  }

  // Runs the Python decoder over all of them.
  std::string check(const std::string& python) const {
    const TemporaryDirectory directory;
    Metadata metadata = {{"format", "pt"}, {"billm_format", "3"}};
    std::vector<TensorToWrite> tensors;
    for (size_t i = 0; i < layers_.size(); ++i) {
      metadata[names_[i]] = describe(layers_[i]);
      for_each_plane(layers_[i], [&](const std::string& name, const Plane& plane) {
        tensors.push_back(
            {names_[i] + "." + name, *parse_dtype(plane.dtype), plane.shape, plane.bytes});
      });
    }
    for (size_t i = 0; i < rows_.size(); ++i) {
      metadata[row_names_[i]] = describe(rows_[i]);
      for (const Plane& plane : rows_[i].planes) {
        tensors.push_back({row_names_[i] + "." + plane.name, *parse_dtype(plane.dtype), plane.shape,
                           plane.bytes});
      }
    }
    const std::filesystem::path shard = directory.path() / "packed.safetensors";
    const std::filesystem::path decoded = directory.path() / "decoded.f32";
    write_safetensors(shard, std::move(tensors), metadata);
    std::ofstream(decoded, std::ios::binary)
        .write(expected_.data(), static_cast<std::streamsize>(expected_.size()));
    return run_python(python, "check_read_packed.py", {shard.string(), decoded.string()});
  }

 private:
  std::vector<PackedLayer> layers_;
  std::vector<IntegerRows> rows_;
  std::vector<std::string> names_, row_names_;
  std::vector<char> expected_;
};

TEST(ReadPacked, SameWeights) {
  BILLM_NEED(python, "BILLM_PYTHON");
  Cases cases;
  uint32_t seed = 2000;
  for (const RegionFormat& shape : shape_sweep(5)) cases.add(pack(random_codes(shape, ++seed)));
  EXPECT_EQ(cases.check(python), "378 modules: 378 equal, 0 refused\n");
}

TEST(ReadPacked, SameWeightsOfKinds) {
  BILLM_NEED(python, "BILLM_PYTHON");
  Cases cases;
  uint32_t seed = 4000;
  for (const RegionFormat& shape : shape_sweep_of_kinds()) {
    cases.add(pack(random_codes(shape, ++seed)));
  }
  EXPECT_EQ(cases.check(python), "360 modules: 360 equal, 0 refused\n");
}

// The order of the format is followed to the last bit.
TEST(ReadPacked, SameWeightsOfProducts) {
  BILLM_NEED(python, "BILLM_PYTHON");
  Cases cases;
  for (const LayerCodes& codes : small_products()) cases.add(pack(codes));
  for (const LayerCodes& codes : small_trellises()) cases.add(pack(codes));
  EXPECT_EQ(cases.check(python), "13 modules: 13 equal, 0 refused\n");
}

TEST(ReadPacked, SameWeightsOfIntegerRows) {
  BILLM_NEED(python, "BILLM_PYTHON");
  Cases cases;
  uint32_t seed = 5000;
  for (const int bits : {4, 8}) {
    for (const int64_t cols : {1, 2, 21, 64}) {
      for (const int64_t block : {int64_t{1}, std::min<int64_t>(8, cols), cols}) {
        cases.add(some_integer_rows(bits, cols, block, ++seed));
      }
    }
  }
  EXPECT_EQ(cases.check(python), "24 modules: 24 equal, 0 refused\n");
}

TEST(ReadPacked, SameRefusalsOfIntegerRows) {
  BILLM_NEED(python, "BILLM_PYTHON");
  Cases cases;
  for (const int bits : {4, 8}) {
    for (size_t plane = 0; plane < 2; ++plane) {
      const size_t count = 8 * some_integer_rows(bits, 21, 8, 1).owned[plane].size();
      for (size_t bit = 0; bit < count; ++bit) {
        IntegerRows bad = some_integer_rows(bits, 21, 8, 1);
        bad.owned[plane][bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        cases.add(std::move(bad));
      }
    }
  }
  const std::string answer = cases.check(python);
  EXPECT_NE(answer.find(" equal, "), std::string::npos) << answer;
  EXPECT_EQ(answer.find(" 0 refused"), std::string::npos) << answer;
}

TEST(ReadPacked, SameRefusalsOfProducts) {
  BILLM_NEED(python, "BILLM_PYTHON");
  Cases cases;
  std::vector<LayerCodes> layers = small_products();
  for (LayerCodes& codes : small_trellises()) layers.push_back(std::move(codes));
  for (const LayerCodes& codes : layers) {
    const PackedLayer good = pack(codes);
    for (size_t i = 0; i < good.factors.size(); ++i) {
      const std::vector<Plane>* planes = stored_planes(good.factors[i]);
      for (size_t p = 0; planes != nullptr && p < planes->size(); ++p) {
        const size_t bits = 8 * (*planes)[p].bytes.size();
        for (size_t bit = 0; bit < bits; bit += 1 + bits / 16) {
          PackedLayer bad = copy_of(good);
          bytes_of(bad.factors[i], p)[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
          cases.add(std::move(bad));
        }
      }
    }
  }
  const std::string answer = cases.check(python);
  EXPECT_NE(answer.find(" equal, "), std::string::npos) << answer;
  EXPECT_EQ(answer.find(" 0 refused"), std::string::npos) << answer;
}

TEST(ReadPacked, SameRefusals) {
  BILLM_NEED(python, "BILLM_PYTHON");
  Cases cases;
  uint32_t seed = 3000;
  std::vector<RegionFormat> shapes = shape_sweep(211);
  for (const RegionFormat& shape : shape_sweep_of_kinds(15)) shapes.push_back(shape);
  for (RegionFormat shape : shapes) {
    shape.rows = 2;
    shape.cols = 21;
    const PackedPlanes good = pack(random_codes(shape, ++seed));
    for (const Plane& plane : good.planes) {
      for (size_t bit = 0; bit < 8 * plane.bytes.size(); bit += bit < 256 ? 1 : 61) {
        PackedPlanes bad = copy_of(good);
        bytes_of(bad, plane.name)[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        cases.add(std::move(bad));
      }
    }
  }
  EXPECT_EQ(cases.check(python), "13146 modules: 12266 equal, 880 refused\n");
}

}  // namespace
}  // namespace billm::test
