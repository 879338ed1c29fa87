// Which files of a model repository billm needs, and which of them are missing from a directory.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace billm {

enum class ModelPart {
  kAll,        // configuration, tokenizer and weights
  kTokenizer,  // config.json and the tokenizer's files
  kConfig,     // config.json
};

// What there is, as file names beside config.json.
class ModelFiles {
 public:
  explicit ModelFiles(std::vector<std::string> names);
  static ModelFiles of_directory(const std::filesystem::path& directory);  // empty if there is none

  // The weights: model.safetensors, or else model.safetensors.index.json, or else
  // pytorch_model.bin, or else its index. Nothing if there is none of them.
  std::optional<std::string> weights() const;
  // weights() is an index that names the files with the tensors.
  static bool is_index(const std::string& name);
  // All but the shards that an index names: configuration, tokenizer, licence, weights(). Never
  // other forms of the weights (consolidated*, .gguf, .pth, .msgpack, .h5, folders).
  std::vector<std::string> needed(ModelPart part) const;
  // What `part` cannot do without and is missing ("config.json"); nothing if all is there. A model
  // without a tokenizer can be evaluated on token ids, so kAll does not ask for one.
  std::optional<std::string> missing(ModelPart part) const;
  // Whether there is a tokenizer in one of the forms that models come with.
  bool has_tokenizer() const;
  // What is not there and would change the tokenizer's ids if the repository has it: nothing beside
  // a tokenizer.json.
  std::vector<std::string> tokenizer_gaps() const;

 private:
  bool has(const std::string& name) const;
  std::vector<std::string> names_;
};

// What is missing of `part` in the model in `directory`, shards that its index names included;
// nothing if it is complete. Throws Error{kBadInput} if the index is damaged.
std::optional<std::string> missing_file(const std::filesystem::path& directory, ModelPart part);

}  // namespace billm
