// tokenizer_config.json and its like: see config_files.h.
#include "config_files.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>
#include <system_error>

#include "added.h"
#include "billm/base/file.h"
#include "billm/checkpoint/json.h"

namespace billm::tokenizer {
namespace {

using nlohmann::json;

// In the order in which transformers adds them.
constexpr std::array<const char*, 7> kNames = {"bos_token", "eos_token", "unk_token", "sep_token",
                                               "pad_token", "cls_token", "mask_token"};

// A token as a string (then special) or as an object with AddedToken's fields and defaults.
AddedToken parse_token(const Node& node, bool special) {
  AddedToken token;
  if (node.value.is_string()) {
    token.content = node.text();
    token.special = true;
    return token;
  }
  if (!node.value.is_object()) node.fail("a token: a string or an object");
  const auto flag = [&](const char* key, bool otherwise) {
    return node.has(key) ? node.at(key).flag() : otherwise;
  };
  token.content = node.at("content").text();
  token.single_word = flag("single_word", false);
  token.lstrip = flag("lstrip", false);
  token.rstrip = flag("rstrip", false);
  token.special = special || flag("special", false);
  token.normalized = flag("normalized", !token.special);
  return token;
}

std::vector<AddedToken> parse_tokens(const Node& list, bool special) {
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < list.array_size(); ++i) {
    tokens.push_back(parse_token(list.item(i), special));
  }
  return tokens;
}

class Reader {
 public:
  Reader(const ConfigFiles& files, const ClassDefaults& defaults)
      : config_{files.config, files.where},
        map_{files.special_tokens_map, beside(files, "special_tokens_map.json")},
        file_{files.added_tokens, beside(files, "added_tokens.json")},
        defaults_(defaults) {}

  SpecialTokens run() {
    refuse();
    for (const char* name : kNames) read_named(config_, name, false);
    for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
      if (!config_.value.contains(key) || (extra_ && !extra_->empty())) continue;
      const Node list = config_.at(key);
      if (list.value.is_object() && list.value.empty()) continue;
      extra_ = list.value.is_null() ? std::vector<AddedToken>() : parse_tokens(list, false);
    }
    if (config_.has("added_tokens_decoder")) {
      read_added_tokens_decoder(config_.at("added_tokens_decoder"));
    } else {
      read_map();
      read_added_tokens();
    }
    add_class_defaults();
    return collect();
  }

 private:
  static std::string beside(const ConfigFiles& files, const char* name) {
    return std::filesystem::path(files.where).replace_filename(name).string();
  }

  void refuse() const {
    for (const auto& [key, value] : config_.value.items()) {
      const bool known = std::find(kNames.begin(), kNames.end(), key) != kNames.end();
      if (key.ends_with("_token") && !known && value.is_string()) {
        Node{value, config_.path + "." + printable(key)}.fail("no such token (not supported)");
      }
    }
    if (config_.has("split_special_tokens") && config_.at("split_special_tokens").flag()) {
      config_.at("split_special_tokens").fail("false");
    }
  }

  // A name that is null says that there is no such token.
  void read_named(const Node& from, const char* name, bool special) {
    if (!from.value.contains(name)) return;
    if (from.value[name].is_null()) {
      named_[name] = std::nullopt;
    } else {
      named_[name] = parse_token(from.at(name), special);
    }
  }

  void read_added_tokens_decoder(const Node& node) {
    if (!node.value.is_object()) node.fail("an object");
    for (const auto& [key, value] : node.value.items()) {
      const Node entry{value, node.path + "." + printable(key)};
      int32_t id = -1;
      const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
      if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || id < 0) {
        throw bad_input(entry.path + ": expected a token id as the name of the entry");
      }
      if (!value.is_object()) entry.fail("a token: an object");
      by_id_[id] = parse_token(entry, false);
    }
  }

  void read_map() {
    for (const char* name : kNames) read_named(map_, name, true);
    if (map_.has("extra_special_tokens")) {
      if (!extra_) extra_.emplace();
      for (AddedToken& token : parse_tokens(map_.at("extra_special_tokens"), true)) {
        extra_->push_back(std::move(token));
      }
    }
    if (map_.has("additional_special_tokens")) {
      additional_ = parse_tokens(map_.at("additional_special_tokens"), false);
    }
  }

  // {"token": id, ...}; special are those that a file names as such.
  void read_added_tokens() {
    std::set<std::string> special;
    for (const auto& [name, token] : named_) {
      if (token) special.insert(token->content);
    }
    if (extra_) {
      for (const AddedToken& token : *extra_) special.insert(token.content);
    }
    for (const auto& [content, value] : file_.value.items()) {
      const Node entry{value, file_.path + "[\"" + printable(content) + "\"]"};
      AddedToken token;
      token.content = content;
      token.special = special.contains(content);
      token.normalized = !token.special;
      by_id_[entry.id()] = std::move(token);
    }
  }

  void add_class_defaults() {
    const auto otherwise = [&](const char* name, const char* content) {
      if (content == nullptr || named_.contains(name)) return;
      AddedToken token;
      token.content = content;
      token.special = true;
      named_[name] = std::move(token);
    };
    otherwise("bos_token", defaults_.bos);
    otherwise("eos_token", defaults_.eos);
    otherwise("unk_token", defaults_.unknown);
    // The model's own special tokens count only where no file has a list of them.
    if (!defaults_.extra.empty()) additional_ = defaults_.extra;
    if (!extra_) extra_ = additional_;
  }

  SpecialTokens collect() {
    SpecialTokens result;
    std::set<std::string> names, listed;
    for (const auto& [name, token] : named_) {
      if (token) names.insert(token->content);
    }
    for (auto& [id, token] : by_id_) {
      listed.insert(token.content);
      token.special = token.special || names.contains(token.content);
      result.added.push_back(token);
    }
    const auto add = [&](AddedToken token) {
      if (listed.contains(token.content)) return;
      token.special = token.special || names.contains(token.content);
      result.added.push_back(std::move(token));
    };
    for (const char* name : kNames) {
      const auto found = named_.find(name);
      if (found != named_.end() && found->second) add(*found->second);
    }
    for (const AddedToken& token : *extra_) add(token);
    result.bos = asked("add_bos_token", "bos_token");
    result.eos = asked("add_eos_token", "eos_token");
    return result;
  }

  std::optional<std::string> asked(const char* flag, const char* name) const {
    if (!config_.has(flag) || !config_.at(flag).flag()) return std::nullopt;
    const auto found = named_.find(name);
    if (found == named_.end() || !found->second) return std::nullopt;
    if (found->second->content.empty()) {
      throw bad_input(config_.path + "." + name + ": expected a token (" + flag +
                      " is set), got \"\"");
    }
    return found->second->content;
  }

  const Node config_, map_, file_;
  const ClassDefaults& defaults_;
  std::map<std::string, std::optional<AddedToken>> named_;
  std::map<int32_t, AddedToken> by_id_;
  std::optional<std::vector<AddedToken>> extra_;
  std::vector<AddedToken> additional_;
};

json read_json(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return json::object();
  return parse_json_object(read_text_file(path), path.string());
}

}  // namespace

ConfigFiles read_config_files(const std::filesystem::path& directory) {
  const std::filesystem::path config = directory / "tokenizer_config.json";
  return {config.string(), read_json(config), read_json(directory / "special_tokens_map.json"),
          read_json(directory / "added_tokens.json")};
}

SpecialTokens parse_special_tokens(const ConfigFiles& files, const ClassDefaults& defaults) {
  return Reader(files, defaults).run();
}

std::string tokenizer_class(const ConfigFiles& files) {
  const Node config{files.config, files.where};
  if (!config.has("tokenizer_class")) return "";
  std::string name = config.at("tokenizer_class").text();
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

std::optional<bool> config_flag(const ConfigFiles& files, const char* key) {
  const Node config{files.config, files.where};
  if (!config.has(key)) return std::nullopt;
  return config.at(key).flag();
}

void apply_special_tokens(const SpecialTokens& tokens, TokenizerSpec& spec) {
  spec.added = tokens.added;
  const AddedTokens added(spec);
  if (tokens.bos) spec.prefix_ids.push_back(added.id_of(*tokens.bos).value());
  if (tokens.eos) spec.suffix_ids.push_back(added.id_of(*tokens.eos).value());
}

}  // namespace billm::tokenizer
