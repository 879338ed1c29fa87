// pytorch_model.bin: files that torch wrote hold the same tensors as their safetensors twins; files
// that would run code, are damaged or of another kind are refused.
// tests/support/make_torch_files.py has the cases.
#include "billm/checkpoint/torch_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "billm/base/file.h"
#include "billm/checkpoint/safetensors.h"
#include "support/environment.h"
#include "testing.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> bin_files(const fs::path& directory) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() == ".bin") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Named tensors, shapes, dtypes and bytes.
void expect_same(const TensorFile& torch, const TensorFile& reference) {
  ASSERT_EQ(torch.tensors().size(), reference.tensors().size());
  for (const auto& [name, expected] : reference.tensors()) {
    const TensorView* view = torch.find(name);
    ASSERT_NE(view, nullptr) << name;
    EXPECT_EQ(view->dtype, expected.dtype) << name;
    EXPECT_EQ(view->shape, expected.shape) << name;
    ASSERT_EQ(view->data.size(), expected.data.size()) << name;
    EXPECT_TRUE(std::equal(view->data.begin(), view->data.end(), expected.data.begin())) << name;
  }
}

// BILLM_PYTHON may be an environment without torch (a LibTorch of the user's).
bool has_torch(const std::string& python) {
  return std::system(("'" + python +
                      "' -c 'import importlib.util as u, sys; "
                      "sys.exit(not (u.find_spec(\"torch\") and u.find_spec(\"safetensors\")))'")
                         .c_str()) == 0;
}

#define NEED_TORCH(python)            \
  BILLM_NEED(python, "BILLM_PYTHON"); \
  if (!has_torch(python)) GTEST_SKIP() << "BILLM_PYTHON has no torch or safetensors"

TEST(TorchFile, SameTensorsAsSafetensors) {
  NEED_TORCH(python);
  const test::TemporaryDirectory directory;
  test::run_python(python, "make_torch_files.py", {"good", directory.path().string()});
  const auto files = bin_files(directory.path());
  EXPECT_EQ(files.size(), 21u);
  for (fs::path path : files) {
    SCOPED_TRACE(path.filename());
    const TensorFile torch(path, parse_torch_file);
    expect_same(torch, SafetensorsFile(path.replace_extension(".safetensors")));
    EXPECT_TRUE(torch.metadata().empty());
  }
}

TEST(TorchFile, SharedStoragesAreViewsOfTheSameBytes) {
  NEED_TORCH(python);
  const test::TemporaryDirectory directory;
  test::run_python(python, "make_torch_files.py",
                   {"good", directory.path().string(), "state_dict", "views"});
  const TensorFile tied(directory.path() / "state_dict.bin", parse_torch_file);
  EXPECT_EQ(tied.find("embed.weight")->data.data(), tied.find("head.weight")->data.data());
  const TensorFile views(directory.path() / "views.bin", parse_torch_file);
  EXPECT_EQ(views.find("part")->data.data(), views.find("all")->data.data() + 14);
  // Pages that were given back are read again.
  views.release("all");
  EXPECT_EQ(views.find("all")->data[2], std::byte{0x00});
  EXPECT_EQ(views.find("all")->data[3], std::byte{0x3c});  // 1.0 as fp16
}

TEST(TorchFile, Refused) {
  NEED_TORCH(python);
  const test::TemporaryDirectory directory;
  test::run_python(python, "make_torch_files.py", {"refused", directory.path().string()});
  const auto files = bin_files(directory.path());
  EXPECT_EQ(files.size(), 68u);
  for (const fs::path& path : files) {
    SCOPED_TRACE(path.filename());
    const std::string needle = read_text_file(fs::path(path).replace_extension(".txt"));
    ASSERT_FALSE(needle.empty());
    expect_bad_input([&] { TensorFile file(path, parse_torch_file); }, {path.string(), needle});
  }
  EXPECT_FALSE(fs::exists("/tmp/billm-test-must-not-exist"));
}

// --- one small file, damaged
// ----------------------------------------------------------------------

class DamagedTorchFile : public testing::Test {
 protected:
  // tests/fuzz/seeds/torch_file/small.bin: two views of one storage, and a scalar.
  void SetUp() override {
    file_ = read_text_file(test::tests_directory() / "fuzz" / "seeds" / "torch_file" / "small.bin");
    original_ = read(file_);
    ASSERT_EQ(original_.size(), 3u);
  }

  // Names with shape, dtype and bytes.
  static std::map<std::string, std::string> read(const std::string& file) {
    // A copy of the exact size on the heap: the sanitizer sees a read past its end.
    const std::vector<char> exact(file.begin(), file.end());
    const auto content = parse_torch_file(std::as_bytes(std::span(exact)), "x");
    std::map<std::string, std::string> tensors;
    for (const auto& [name, view] : content.tensors) {
      tensors[name] =
          dtype_name(view.dtype) + shape_text(view.shape) +
          std::string(reinterpret_cast<const char*>(view.data.data()), view.data.size());
    }
    return tensors;
  }

  std::string file_;
  std::map<std::string, std::string> original_;
};

TEST_F(DamagedTorchFile, TruncatedAtEveryByte) {
  for (size_t size = 0; size < file_.size(); ++size) {
    expect_bad_input([&] { read(file_.substr(0, size)); }, {"x: "});
  }
}

TEST_F(DamagedTorchFile, EveryBitFlip) {
  int refused = 0;
  for (size_t bit = 0; bit < file_.size() * 8; ++bit) {
    std::string damaged = file_;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    try {
      // Padding, times and the like may change, and one bit of one tensor's value.
      const auto tensors = read(damaged);
      ASSERT_EQ(tensors.size(), original_.size());
      for (const auto& [name, text] : original_) {
        ASSERT_EQ(tensors.count(name), 1u) << "bit " << bit;
        ASSERT_EQ(tensors.at(name).size(), text.size()) << "bit " << bit;
      }
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kBadInput) << error.message();
      ASSERT_EQ(error.message().find('\n'), std::string::npos) << error.message();
      ++refused;
    }
  }
  EXPECT_GT(refused, 5000);
}

}  // namespace
}  // namespace billm
