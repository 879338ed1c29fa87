// BlockLoader: the same blocks, loaded ahead or not, and errors where the block is taken.
#include "src/pipeline/block_loader.h"

#include <gtest/gtest.h>

#include "billm/base/error.h"
#include "billm/model/model.h"
#include "billm/model/runtime.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);

void expect_equal(const Block& one, const Block& other) {
  ASSERT_EQ(one.linears.size(), other.linears.size());
  for (const auto& [name, linear] : one.linears) {
    EXPECT_TRUE(one.weight(name).equal(other.weight(name))) << name;
  }
  ASSERT_EQ(one.norms.size(), other.norms.size());
  for (const auto& [name, tensor] : one.norms) {
    EXPECT_TRUE(tensor.equal(other.norms.at(name))) << name;
  }
}

TEST(BlockLoader, SameBlocksInAnyOrder) {
  init_torch();
  const test::TemporaryDirectory directory;
  test::TinyLlama options;
  options.blocks = 4;
  test::write_tiny_llama(directory.path(), options);
  const Model model(directory.path(), 1);
  for (const bool ahead : {false, true}) {
    BlockLoader loader(model.weights(), model.spec(), 2, kCpu, ahead);
    for (const int64_t b : {1, 2, 3, 0, 2}) {  // also where the next one is not what was loaded
      const Block block = loader.take(b);
      const Block expected = load_block(model.weights(), model.spec(), b, 1, kCpu);
      SCOPED_TRACE(b);
      expect_equal(block, expected);
    }
  }
}

TEST(BlockLoader, ErrorsOfTheNextBlockComeWithIt) {
  init_torch();
  const test::TemporaryDirectory directory;
  test::TinyLlama options;
  options.blocks = 3;
  options.change = [](const std::string& name, std::vector<int64_t>&,
                      std::vector<uint16_t>& halves) {
    if (name == "model.layers.1.mlp.up_proj.weight") halves[5] = 0x7e00;  // NaN
    return true;
  };
  test::write_tiny_llama(directory.path(), options);
  const Model model(directory.path(), 1);
  for (const bool ahead : {false, true}) {
    BlockLoader loader(model.weights(), model.spec(), 1, kCpu, ahead);
    EXPECT_NO_THROW(loader.take(0));
    EXPECT_THROW(loader.take(1), Error);
    EXPECT_NO_THROW(loader.take(2));
  }
}

}  // namespace
}  // namespace billm
