// Model names: directories, aliases and hub ids against a fake HuggingFace cache.
#include "billm/hub/model_name.h"

#include <map>
#include <optional>

#include "billm/base/home.h"
#include "billm/hub/hub_cache.h"
#include "billm/hub/hub_environment.h"
#include "unit/checkpoint/testing.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

constexpr char kCommit[] = "0123456789abcdef0123456789abcdef01234567";

class ModelNameTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME",
                             "XDG_DATA_HOME", "BILLM_HOME", "HOME", "HF_HUB_OFFLINE", "HF_TOKEN",
                             "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"}) {
      const char* value = std::getenv(name);
      saved_[name] = value == nullptr ? std::nullopt : std::optional<std::string>(value);
      ::unsetenv(name);
    }
    set("HOME", scratch_.path());
    set("HF_HUB_OFFLINE", "1");  // downloads: tests/cli/hub_test.py
  }
  void TearDown() override {
    for (const auto& [name, value] : saved_) {
      if (value) {
        ::setenv(name.c_str(), value->c_str(), 1);
      } else {
        ::unsetenv(name.c_str());
      }
    }
  }
  static void set(const char* name, const fs::path& value) { ::setenv(name, value.c_str(), 1); }

  // Puts a model into the cache below scratch/`cache`; returns its snapshot.
  fs::path put(const std::string& cache, const std::string& folder,
               const std::string& ref = "main") {
    const std::string root = cache + "/models--" + folder;
    scratch_.write(root + "/refs/" + ref, std::string(kCommit));
    const std::string snapshot = root + "/snapshots/" + kCommit;
    for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"}) {
      scratch_.write(snapshot + "/" + name, "{}");
    }
    return scratch_.path() / snapshot;
  }

  static std::string hint(const std::string& name) {
    try {
      resolve_model(name);
      return "(found)";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return error.hint();
    }
  }

  ScratchDirectory scratch_;
  std::map<std::string, std::optional<std::string>> saved_;
};

TEST_F(ModelNameTest, DirectoryAsItIs) {
  EXPECT_EQ(resolve_model(scratch_.path().string()), scratch_.path());
}

TEST_F(ModelNameTest, CacheLocations) {
  const fs::path home = put(".cache/huggingface/hub", "org--name");
  EXPECT_EQ(resolve_model("org/name"), home);
  const fs::path xdg = put("xdg/huggingface/hub", "org--name");
  set("XDG_CACHE_HOME", scratch_.path() / "xdg");
  EXPECT_EQ(resolve_model("org/name"), xdg);
  const fs::path hf_home = put("hf/hub", "org--name");
  set("HF_HOME", scratch_.path() / "hf");
  EXPECT_EQ(resolve_model("org/name"), hf_home);
  const fs::path old_name = put("old", "org--name");
  set("HUGGINGFACE_HUB_CACHE", scratch_.path() / "old");
  EXPECT_EQ(resolve_model("org/name"), old_name);
  set("HUGGINGFACE_HUB_CACHE", "");
  const fs::path hub_cache = put("cache", "org--name");
  set("HF_HUB_CACHE", "~/cache");
  EXPECT_EQ(resolve_model("org/name"), hub_cache);
  set("HF_HUB_CACHE", "");  // empty counts as unset
  EXPECT_EQ(resolve_model("org/name"), hf_home);
}

// What os.path.expandvars of Python 3.11 makes of them.
TEST_F(ModelNameTest, VariablesInPaths) {
  const std::string here = scratch_.path().string();
  set("HERE", here);
  set("AGAIN", "$HERE");
  const std::map<std::string, std::string> cases = {
      {"$HERE/a", here + "/a"},
      {"${HERE}b", here + "b"},
      {"~/$HERE.c", here + "/" + here + ".c"},
      {"/x/$NONE_SUCH/${NONE_SUCH}/$/${}/${HERE", "/x/$NONE_SUCH/${NONE_SUCH}/$/${}/${HERE"},
      {"$AGAIN/d$", "$HERE/d$"},
      {"/$HERE_/$HERE$HERE-", "/$HERE_/" + here + here + "-"}};
  for (const auto& [text, path] : cases) {
    set("HF_HUB_CACHE", text);
    EXPECT_EQ(hub_environment().cache, path);
    set("HF_HUB_CACHE", "");
    set("HF_HOME", text);
    EXPECT_EQ(hub_environment().cache, path + "/hub");
  }
  scratch_.write("secret", "hf_secret\n");
  set("HF_TOKEN_PATH", "${HERE}/secret");
  EXPECT_EQ(hub_environment().token, "hf_secret");
  ::unsetenv("HERE");
  ::unsetenv("AGAIN");
}

TEST_F(ModelNameTest, Revisions) {
  set("HF_HUB_CACHE", scratch_.path() / "cache");
  const fs::path snapshot = put("cache", "org--name", "v1.0");
  EXPECT_EQ(resolve_model("org/name@v1.0"), snapshot);
  EXPECT_EQ(resolve_model(std::string("org/name@") + kCommit), snapshot);
  expect_bad_input([] { resolve_model("org/name"); },
                   {"org/name: expected this model in the HuggingFace cache"});
  expect_bad_input([] { resolve_model("org/name@v2"); }, {"org/name@v2: expected this model"});
  const fs::path request = put("cache", "org--name", "refs/pr/1");
  EXPECT_EQ(resolve_model("org/name@refs/pr/1"), request);
  // Some tools end the file with a newline.
  scratch_.write("cache/models--org--name/refs/main", std::string(kCommit) + "\n");
  EXPECT_EQ(resolve_model("org/name"), snapshot);
}

TEST_F(ModelNameTest, Alias) {
  set("HF_HUB_CACHE", scratch_.path() / "cache");
  const fs::path snapshot = put("cache", "facebook--opt-125m");
  EXPECT_EQ(resolve_model("opt-125m"), snapshot);
  EXPECT_EQ(resolve_model("facebook/opt-125m"), snapshot);
}

TEST_F(ModelNameTest, Demo) {
  set("BILLM_HOME", scratch_.path() / "b");
  expect_bad_input([] { resolve_model("demo"); },
                   {"demo: expected the model at", "b/models/smollm2-135m-instruct"});
  EXPECT_NE(hint("demo").find("tools/quickstart.sh"), std::string::npos);
  scratch_.write("b/models/smollm2-135m-instruct/config.json", "{}");
  EXPECT_EQ(resolve_model("demo"), scratch_.path() / "b/models/smollm2-135m-instruct");
}

TEST_F(ModelNameTest, NotInTheCache) {
  set("HF_HUB_CACHE", scratch_.path() / "cache");
  expect_bad_input([] { resolve_model("opt-125m"); },
                   {"facebook/opt-125m: expected this model in the HuggingFace cache",
                    (scratch_.path() / "cache/models--facebook--opt-125m").string()});
  EXPECT_NE(hint("opt-125m").find("HF_HUB_OFFLINE"), std::string::npos);
}

TEST_F(ModelNameTest, IncompleteOrDamagedCache) {
  set("HF_HUB_CACHE", scratch_.path() / "cache");
  const fs::path snapshot = put("cache", "org--name");
  fs::remove(snapshot / "tokenizer.json");
  EXPECT_EQ(resolve_model("org/name"), snapshot);  // enough for token ids
  expect_bad_input([] { resolve_model("org/name", ModelPart::kTokenizer); },
                   {"org/name", "expected a tokenizer"});
  const std::string index = (snapshot / "model.safetensors.index.json").string();
  fs::rename(snapshot / "model.safetensors", snapshot / "model-1.safetensors");
  expect_bad_input([] { resolve_model("org/name"); }, {"expected weights (model.safetensors)"});
  std::ofstream(index) << R"({"weight_map": {"a": "model-1.safetensors", "b": "two"}})";
  expect_bad_input([] { resolve_model("org/name"); }, {"org/name: expected two in the"});
  fs::create_symlink("../../blobs/gone", snapshot / "two");
  expect_bad_input([] { resolve_model("org/name"); }, {"org/name: expected two in the"});
  std::ofstream(index) << "{";
  expect_bad_input([] { resolve_model("org/name"); }, {index, "syntax error"});
  std::ofstream(index) << R"({"weight_map": {"a": "model-1.safetensors"}})";
  EXPECT_EQ(resolve_model("org/name"), snapshot);
  fs::remove(snapshot / "config.json");
  expect_bad_input([] { resolve_model("org/name"); }, {"expected config.json"});
  scratch_.write("cache/models--org--name/refs/main", "../../../elsewhere");
  expect_bad_input([] { resolve_model("org/name"); }, {"refs/main: expected a commit"});
  scratch_.write("cache/models--org--name/refs/main", "");
  expect_bad_input([] { resolve_model("org/name"); }, {"refs/main: expected a commit"});
}

TEST_F(ModelNameTest, UnknownNames) {
  expect_bad_input([] { resolve_model("lama-7b"); }, {"lama-7b: unknown model"});
  EXPECT_EQ(hint("lama-7b").rfind("did you mean llama-7b", 0), 0u);
  EXPECT_NE(hint("LLAMA3-8B").find("llama3-8b"), std::string::npos);
  EXPECT_NE(hint("llama2").find("llama2-7b"), std::string::npos);
  EXPECT_NE(hint("").find("aliases: demo, llama"), std::string::npos);
  EXPECT_NE(hint("completely-different").find("aliases: "), std::string::npos);
  for (const char* name : {"../org/name", "/no/such/directory", "./nothing"}) {
    expect_bad_input([&] { resolve_model(name); }, {name, "got nothing there"});
  }
  for (const char* name : {"org/name@", "org/na me", "a/b/c", "org/..", "org/name@../x", "@",
                           "a\nb", "org--x/name", "org/name.", "org/name@a//b"}) {
    expect_bad_input([&] { resolve_model(name); }, {"unknown model"});
  }
  const auto file = scratch_.write("file", "x");
  expect_bad_input([&] { resolve_model(file.string()); }, {"got a file"});
}

TEST_F(ModelNameTest, AliasTable) {
  ASSERT_GE(model_aliases().size(), 49u);
  for (const ModelAlias& row : model_aliases()) {
    EXPECT_NE(row.repository.empty(), row.directory.empty()) << row.alias;
    EXPECT_FALSE(row.revision.empty()) << row.alias;
    EXPECT_TRUE(row.repository.empty() || is_repository_id(row.repository)) << row.alias;
  }
}

TEST_F(ModelNameTest, BillmHome) {
  EXPECT_EQ(billm_home(), scratch_.path() / ".local/share/billm");
  set("XDG_DATA_HOME", "/data");
  EXPECT_EQ(billm_home(), "/data/billm");
  set("BILLM_HOME", "/own");
  EXPECT_EQ(billm_home(), "/own");
  for (const char* name : {"BILLM_HOME", "XDG_DATA_HOME", "HOME"}) ::unsetenv(name);
  EXPECT_THROW(billm_home(), Error);
}

}  // namespace
}  // namespace billm
