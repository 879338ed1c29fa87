// What lies beside tokenizer.model, or vocab.json and merges.txt: tokenizer_config.json,
// special_tokens_map.json and added_tokens.json, read as transformers 5.23 does
// (PreTrainedTokenizerBase._from_pretrained, TokenizersBackend.__init__):
// - added_tokens_decoder of the configuration holds the added tokens; only without it are the two
//   other files read.
// - The named tokens (BOS, EOS, ...) and the extra special tokens are added tokens, too, behind
//   those; what the class says by default counts where no file names a token.
// - BOS and EOS are added to a text only if add_bos_token and add_eos_token say so.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "node.h"
#include "spec.h"

namespace billm::tokenizer {

// The JSON of the three files; an empty object where there is none.
struct ConfigFiles {
  std::string where;  // "tokenizer_config.json" with its directory, for messages
  nlohmann::json config = nlohmann::json::object();
  nlohmann::json special_tokens_map = nlohmann::json::object();
  nlohmann::json added_tokens = nlohmann::json::object();
};
ConfigFiles read_config_files(const std::filesystem::path& directory);

// What a class of transformers brings along.
struct ClassDefaults {
  const char *bos, *eos, *unknown;
  std::vector<AddedToken> extra;  // special tokens of the model file itself
};

struct SpecialTokens {
  std::vector<AddedToken> added;        // in the order in which they get ids
  std::optional<std::string> bos, eos;  // to be added to every text
};
// Throws Error{kBadInput} for what is malformed or not supported.
SpecialTokens parse_special_tokens(const ConfigFiles& files, const ClassDefaults& defaults);

// The class that tokenizer_config.json names, without "Fast"; "" if it names none.
std::string tokenizer_class(const ConfigFiles& files);
// A flag of tokenizer_config.json; nothing if it is missing or null.
std::optional<bool> config_flag(const ConfigFiles& files, const char* key);

// Sets added tokens, prefix_ids and suffix_ids of `spec`.
void apply_special_tokens(const SpecialTokens& tokens, TokenizerSpec& spec);

}  // namespace billm::tokenizer
