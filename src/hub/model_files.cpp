// See include/billm/hub/model_files.h.
#include "billm/hub/model_files.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "billm/base/file.h"
#include "billm/hub/hub_answers.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "config.json";

// Where the vocabulary is, unless it is in tokenizer.json, which holds everything.
constexpr const char* kVocabularies[] = {"tokenizer.model", "vocab.json", "merges.txt"};
// What else the ids depend on then.
constexpr const char* kTokenizerFiles[] = {"tokenizer.json", "tokenizer_config.json",
                                           "special_tokens_map.json", "added_tokens.json"};

// Packed models carry a manifest; licences and templates travel with a result.
constexpr const char* kSideFiles[] = {"generation_config.json",
                                      "chat_template.jinja",
                                      "manifest.json",
                                      "manifest.sha256",
                                      "LICENSE",
                                      "LICENSE.txt",
                                      "NOTICE"};

// In the order of preference.
constexpr const char* kWeights[] = {"model.safetensors", "model.safetensors.index.json",
                                    "pytorch_model.bin", "pytorch_model.bin.index.json"};

}  // namespace

ModelFiles::ModelFiles(std::vector<std::string> names) : names_(std::move(names)) {
  std::sort(names_.begin(), names_.end());
}

bool ModelFiles::has(const std::string& name) const {
  return std::binary_search(names_.begin(), names_.end(), name);
}

std::optional<std::string> ModelFiles::weights() const {
  for (const char* name : kWeights) {
    if (has(name)) return name;
  }
  return std::nullopt;
}

bool ModelFiles::is_index(const std::string& name) { return name.ends_with(".index.json"); }

std::vector<std::string> ModelFiles::needed(ModelPart part) const {
  std::vector<std::string> needed;
  const auto add = [&](const char* name) {
    if (has(name)) needed.emplace_back(name);
  };
  add(kConfig);
  if (part == ModelPart::kConfig) return needed;
  for (const char* name : kTokenizerFiles) add(name);
  for (const char* name : kVocabularies) add(name);
  if (part == ModelPart::kTokenizer) return needed;
  for (const char* name : kSideFiles) add(name);
  if (const auto name = weights()) needed.push_back(*name);
  return needed;
}

bool ModelFiles::has_tokenizer() const {
  return has("tokenizer.json") || has("tokenizer.model") ||
         (has("vocab.json") && has("merges.txt"));
}

std::vector<std::string> ModelFiles::tokenizer_gaps() const {
  std::vector<std::string> gaps;
  const auto check = [&](const char* name) {
    if (!has(name)) gaps.emplace_back(name);
  };
  if (has("tokenizer.json")) return gaps;
  for (const char* name : kTokenizerFiles) check(name);
  if (has_tokenizer()) return gaps;
  for (const char* name : kVocabularies) check(name);
  return gaps;
}

std::optional<std::string> ModelFiles::missing(ModelPart part) const {
  if (!has(kConfig)) return kConfig;
  if (part == ModelPart::kConfig) return std::nullopt;
  if (part == ModelPart::kTokenizer) {
    return has_tokenizer() ? std::nullopt : std::optional("a tokenizer (tokenizer.json)");
  }
  return weights() ? std::nullopt : std::optional("weights (model.safetensors)");
}

ModelFiles ModelFiles::of_directory(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code failure;
  fs::directory_iterator entry(directory, failure);
  for (; !failure && entry != fs::directory_iterator(); entry.increment(failure)) {
    // A link whose blob is gone is no file.
    if (is_file(entry->path())) names.push_back(entry->path().filename());
  }
  return ModelFiles(std::move(names));
}

std::optional<std::string> missing_file(const fs::path& directory, ModelPart part) {
  const auto files = ModelFiles::of_directory(directory);
  if (const auto missing = files.missing(part)) return missing;
  const auto weights = files.weights();
  if (part != ModelPart::kAll || !ModelFiles::is_index(*weights)) return std::nullopt;
  const fs::path index = directory / *weights;
  for (const std::string& shard : parse_index_files(read_text_file(index), index.string())) {
    if (!is_file(directory / shard)) return shard;
  }
  return std::nullopt;
}

}  // namespace billm
