// tokenizer.json -> TokenizerSpec: see readers.h.
#include <unordered_set>

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"
#include "readers.h"

namespace billm::tokenizer {
namespace {

using nlohmann::json;

void refuse_unless_empty(const Node& model, const char* key) {
  if (!model.has(key)) return;
  const Node node = model.at(key);
  if (!node.text().empty()) node.fail("none (it is not supported)");
}

BpeSpec parse_model(const Node& model) {
  if (model.type() != "BPE") model.at("type").fail("BPE");
  refuse_unless_empty(model, "continuing_subword_prefix");
  refuse_unless_empty(model, "end_of_word_suffix");
  if (model.has("dropout")) {
    const Node node = model.at("dropout");
    if (!node.value.is_number() || node.value.get<double>() != 0) node.fail("no dropout");
  }
  BpeSpec spec;
  if (model.has("unk_token")) spec.unknown_token = model.at("unk_token").text();
  spec.fuse_unknown = model.has("fuse_unk") && model.at("fuse_unk").flag();
  spec.ignore_merges = model.has("ignore_merges") && model.at("ignore_merges").flag();
  spec.byte_fallback = model.has("byte_fallback") && model.at("byte_fallback").flag();
  parse_vocabulary(model.at("vocab"), spec);
  const Node merges = model.at("merges");
  const size_t count = merges.array_size();
  spec.merges.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const json& value = merges.value[i];
    if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
      spec.merges.emplace_back(value[0].get<std::string>(), value[1].get<std::string>());
      continue;
    }
    parse_merge(merges.item(i).text(), merges.path + "[" + std::to_string(i) + "]", spec);
  }
  return spec;
}

std::vector<AddedToken> parse_added(const Node& list) {
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < list.array_size(); ++i) {
    const Node entry = list.item(i);
    entry.at("id").id();  // the library assigns ids itself; the file's must at least be one
    AddedToken token;
    token.content = entry.at("content").text();
    token.single_word = entry.at("single_word").flag();
    token.lstrip = entry.at("lstrip").flag();
    token.rstrip = entry.at("rstrip").flag();
    token.normalized = entry.at("normalized").flag();
    token.special = entry.at("special").flag();
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void parse_template(const Node& node, TokenizerSpec& spec) {
  const Node single = node.at("single");
  bool seen = false;
  for (size_t i = 0; i < single.array_size(); ++i) {
    const Node piece = single.item(i);
    if (!piece.value.is_object() || piece.value.size() != 1) {
      piece.fail("one Sequence or SpecialToken");
    }
    if (piece.has("Sequence")) {
      const Node id = piece.at("Sequence").at("id");
      if (id.text() != "A" || seen) id.fail("sequence A once");
      seen = true;
      continue;
    }
    const std::string& name = piece.at("SpecialToken").at("id").text();
    const Node ids = node.at("special_tokens").at(name).at("ids");
    for (size_t k = 0; k < ids.array_size(); ++k) {
      (seen ? spec.suffix_ids : spec.prefix_ids).push_back(ids.item(k).id());
    }
  }
  if (!seen) single.fail("sequence A once");
}

void parse_post_processor(const Node& node, TokenizerSpec& spec, bool& templated) {
  const std::string& type = node.type();
  if (type == "Sequence") {
    const Node list = node.at("processors");
    for (size_t i = 0; i < list.array_size(); ++i) {
      parse_post_processor(list.item(i), spec, templated);
    }
  } else if (type == "TemplateProcessing") {
    if (templated) node.at("type").fail("one TemplateProcessing");
    templated = true;
    parse_template(node, spec);
  } else if (type != "ByteLevel") {  // ByteLevel moves offsets only
    node.at("type").fail("ByteLevel, TemplateProcessing or Sequence (others are not supported)");
  }
}

}  // namespace

void parse_vocabulary(const Node& node, BpeSpec& spec) {
  if (!node.value.is_object()) node.fail("an object");
  std::unordered_set<int32_t> ids;
  for (const auto& [token, value] : node.value.items()) {
    const Node entry{value, node.path + "[\"" + printable(token) + "\"]"};
    const int32_t id = entry.id();
    if (!ids.insert(id).second) entry.fail("an id of its own");
    spec.vocab.emplace(token, id);
  }
}

void parse_merge(const std::string& line, const std::string& where, BpeSpec& spec) {
  if (line.starts_with("#version")) return;
  const size_t space = line.find(' ');
  if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
    throw bad_input(where + ": expected two tokens with a space between them, got \"" +
                    printable(line) + "\"");
  }
  spec.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
}

TokenizerSpec parse_tokenizer_json(std::string_view text, const std::string& name) {
  const json document = parse_json_object(text, name);
  const Node root{document, name};
  if (root.has("version") && root.at("version").text() != "1.0") root.at("version").fail("1.0");

  TokenizerSpec spec;
  spec.bpe = parse_model(root.at("model"));
  if (root.has("added_tokens")) spec.added = parse_added(root.at("added_tokens"));
  parse_steps(root, spec);
  bool templated = false;
  if (root.has("post_processor")) {
    parse_post_processor(root.at("post_processor"), spec, templated);
  }
  return spec;
}

}  // namespace billm::tokenizer
