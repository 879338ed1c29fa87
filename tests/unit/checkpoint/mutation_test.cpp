// The seeds of tests/fuzz, damaged at random (fixed seed), through their parsers: each must answer
// with a result or Error{kBadInput}. Stands in for the fuzzer where the compiler is not clang.
#include <algorithm>
#include <random>
#include <vector>

#include "billm/base/file.h"
#include "billm/checkpoint/config.h"
#include "billm/checkpoint/safetensors.h"
#include "billm/checkpoint/torch_file.h"
#include "src/checkpoint/shard_index.h"
#include "src/checkpoint/state_dict_pickle.h"
#include "support/environment.h"
#include "testing.h"

namespace billm {
namespace {

constexpr int kIterations = 20000;

std::vector<std::string> seeds(const std::string& kind) {
  const std::filesystem::path tests = test::tests_directory();
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(tests / "fuzz" / "seeds" / kind)) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> texts;
  for (const auto& path : paths) texts.push_back(read_text_file(path));
  return texts;
}

// One to four small damages, among them the ones that parsers trip over: repeated pieces, brackets,
// digits that make numbers huge or negative.
std::string damage(std::string text, std::mt19937& random) {
  static constexpr std::string_view kPieces = "\"{}[]:,-.0123456789eEtfn\\u\xff";
  const auto below = [&](size_t limit) { return random() % std::max<size_t>(1, limit); };
  for (size_t left = 1 + below(4); left > 0; --left) {
    const size_t at = below(text.size());
    const size_t size = std::min(below(12), text.size() - at);
    switch (below(5)) {
      case 0:
        if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        text.insert(at, 1 + below(3), kPieces[below(kPieces.size())]);
        break;
      case 2:
        text.erase(at, size);
        break;
      case 3:
        text.insert(below(text.size()), text.substr(at, size * 4));
        break;
      case 4:
        if (!text.empty()) text[at] = kPieces[below(kPieces.size())];
        break;
    }
  }
  return text;
}

template <typename Parse>
void run(const std::string& kind, const std::function<std::string(std::string)>& repair,
         Parse parse) {
  const std::vector<std::string> originals = seeds(kind);
  ASSERT_GE(originals.size(), 3u);
  std::mt19937 random(20240229);
  int accepted = 0;
  for (int i = 0; i < kIterations; ++i) {
    const std::string text = repair(damage(originals[random() % originals.size()], random));
    // A copy of the exact size on the heap: the sanitizer sees a read past its end.
    const std::vector<char> exact(text.begin(), text.end());
    try {
      parse(std::string_view(exact.data(), exact.size()));
      ++accepted;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kBadInput) << error.message();
      ASSERT_EQ(error.message().find('\n'), std::string::npos) << error.message();
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, kIterations);
}

TEST(Mutation, Safetensors) {
  // Half of the files get a header length that fits again, or nearly all would end there.
  int count = 0;
  const auto repair = [&count](std::string file) {
    const size_t brace = file.rfind("}}");
    if (++count % 2 == 0 && brace != std::string::npos && brace + 2 >= 8) {
      const uint64_t length = brace + 2 - 8;
      std::memcpy(file.data(), &length, sizeof(length));
    }
    return file;
  };
  run("safetensors", repair, [](std::string_view file) {
    for (const auto& [name, view] : parse_safetensors(bytes_of(file), "x").tensors) {
      ASSERT_EQ(tensor_bytes(view.dtype, view.shape), static_cast<int64_t>(view.data.size()));
      std::vector<std::byte> copy(view.data.begin(), view.data.end());
    }
  });
}

std::string as_it_is(std::string text) { return text; }

TEST(Mutation, TorchFile) {
  run("torch_file", as_it_is, [](std::string_view file) {
    for (const auto& [name, view] : parse_torch_file(bytes_of(file), "x").tensors) {
      ASSERT_EQ(tensor_bytes(view.dtype, view.shape), static_cast<int64_t>(view.data.size()));
      std::vector<std::byte> copy(view.data.begin(), view.data.end());
    }
  });
}

TEST(Mutation, StateDictPickle) {
  run("state_dict_pickle", as_it_is, [](std::string_view pickle) {
    for (const auto& [name, tensor] : read_state_dict(bytes_of(pickle), "x")) {
      ASSERT_TRUE(tensor_bytes(tensor.dtype, tensor.shape).has_value());
    }
  });
}

TEST(Mutation, ShardIndex) {
  run("shard_index", as_it_is, [](std::string_view text) {
    for (const auto& [tensor, file] : parse_shard_index(text, "x")) {
      ASSERT_EQ(file.find('/'), std::string::npos);
    }
  });
}

TEST(Mutation, Config) {
  run("config", as_it_is, [](std::string_view text) {
    const ModelConfig config = parse_config(text, "config.json");
    ASSERT_GT(config.head_dim, 0);
    ASSERT_EQ(config.num_attention_heads % config.num_key_value_heads, 0);
  });
}

}  // namespace
}  // namespace billm
