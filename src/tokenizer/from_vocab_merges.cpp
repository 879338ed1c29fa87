// vocab.json and merges.txt -> TokenizerSpec: see readers.h. GPT-2 and OPT come this way.
#include <sstream>
#include <system_error>

#include "billm/base/file.h"
#include "billm/checkpoint/json.h"
#include "config_files.h"
#include "readers.h"

namespace billm::tokenizer {
namespace {

void parse_merges(const std::string& text, const std::string& name, BpeSpec& spec) {
  std::istringstream lines(text);
  size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    parse_merge(line, name + ": line " + std::to_string(++number), spec);
  }
}

// Other classes cut words by patterns of their own. Where no class is named, the model's type is
// what transformers goes by.
void check_class(const std::filesystem::path& directory, const ConfigFiles& files) {
  constexpr const char* kHint = "make a tokenizer.json of it with transformers (save_pretrained)";
  if (const std::string name = tokenizer_class(files); !name.empty()) {
    if (name == "GPT2Tokenizer") return;
    throw bad_input(files.where +
                        ": tokenizer_class: expected GPT2Tokenizer beside vocab.json, got \"" +
                        printable(name) + "\"",
                    kHint);
  }
  const std::filesystem::path path = directory / "config.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return;
  const nlohmann::json config = parse_json_object(read_text_file(path), path.string());
  if (!config.contains("model_type")) return;
  const std::string& type = Node{config, path.string()}.at("model_type").text();
  for (const char* known : {"gpt2", "opt", "gpt_neo", "gptj", "phi"}) {
    if (type == known) return;
  }
  throw bad_input(path.string() +
                      ": model_type: expected one of GPT-2's family beside vocab.json "
                      "without tokenizer_class, got \"" +
                      printable(type) + "\"",
                  kHint);
}

}  // namespace

TokenizerSpec read_vocab_merges(const std::filesystem::path& directory) {
  const ConfigFiles files = read_config_files(directory);
  check_class(directory, files);
  TokenizerSpec spec;
  spec.bpe.byte_level = true;
  const std::string vocab = (directory / "vocab.json").string();
  const nlohmann::json document = parse_json_object(read_text_file(vocab), vocab);
  parse_vocabulary({document, vocab}, spec.bpe);
  const std::string merges = (directory / "merges.txt").string();
  parse_merges(read_text_file(merges), merges, spec.bpe);
  const bool prefix_space = config_flag(files, "add_prefix_space").value_or(false);
  spec.steps.push_back(byte_level_step(prefix_space, true));
  spec.decoders.emplace_back(ByteLevelDecode{});
  const ClassDefaults defaults = {"<|endoftext|>", "<|endoftext|>", "<|endoftext|>", {}};
  apply_special_tokens(parse_special_tokens(files, defaults), spec);
  return spec;
}

}  // namespace billm::tokenizer
