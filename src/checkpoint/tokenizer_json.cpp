// tokenizer.json -> TokenizerSpec: see tokenizer_json.h.
#include "tokenizer_json.h"

#include <algorithm>
#include <limits>
#include <unordered_set>

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"

namespace billm::tokenizer {
namespace {

using nlohmann::json;

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// The library's Digits asks Rust's char::is_numeric, of Unicode 17: these are not yet in \p{N}.
constexpr std::string_view kDigitsPattern = R"([\p{N}\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}])";

// A value and its place in the file, for messages.
struct Node {
  const json& value;
  std::string path;

  [[noreturn]] void fail(const std::string& expected) const {
    const std::string got = value.is_string() ? "\"" + printable(value.get<std::string>()) + "\""
                            : value.is_primitive() ? value.dump()
                                                   : value.type_name();
    throw bad_input(path + ": expected " + expected + ", got " + got);
  }
  bool has(const char* key) const { return value.contains(key) && !value[key].is_null(); }
  Node at(const std::string& key) const {
    if (!value.is_object()) fail("an object");
    const auto found = value.find(key);
    if (found == value.end()) throw bad_input(path + "." + printable(key) + ": missing");
    return {*found, path + "." + printable(key)};
  }
  Node item(size_t index) const { return {value[index], path + "[" + std::to_string(index) + "]"}; }
  const std::string& text() const {
    if (!value.is_string()) fail("a string");
    return value.get_ref<const std::string&>();
  }
  bool flag() const {
    if (!value.is_boolean()) fail("true or false");
    return value.get<bool>();
  }
  size_t array_size() const {
    if (!value.is_array()) fail("an array");
    return value.size();
  }
  const std::string& type() const { return at("type").text(); }
  int32_t id() const {
    if (!value.is_number_unsigned() ||
        value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
      fail("a token id");
    }
    return value.get<int32_t>();
  }
};

// Messages of the parts that know no path get one.
template <typename Function>
auto in_place(const Node& node, Function function) {
  try {
    return function();
  } catch (const Error& error) {
    throw Error(error.code(), node.path + ": " + error.message(), error.hint());
  }
}

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
  if (model.has("byte_fallback") && model.at("byte_fallback").flag()) {
    throw bad_input(model.path + ".byte_fallback: expected false, got true",
                    "SentencePiece tokenizers are not supported");
  }
  BpeSpec spec;
  if (model.has("unk_token")) spec.unknown_token = model.at("unk_token").text();
  spec.fuse_unknown = model.has("fuse_unk") && model.at("fuse_unk").flag();
  spec.ignore_merges = model.has("ignore_merges") && model.at("ignore_merges").flag();

  const Node vocab = model.at("vocab");
  if (!vocab.value.is_object()) vocab.fail("an object");
  std::unordered_set<int32_t> ids;
  for (const auto& [token, value] : vocab.value.items()) {
    const Node entry{value, vocab.path + "[\"" + printable(token) + "\"]"};
    const int32_t id = entry.id();
    if (!ids.insert(id).second) entry.fail("an id of its own");
    spec.vocab.emplace(token, id);
  }

  const Node merges = model.at("merges");
  const size_t count = merges.array_size();
  spec.merges.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const json& value = merges.value[i];
    if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
      spec.merges.emplace_back(value[0].get<std::string>(), value[1].get<std::string>());
      continue;
    }
    const std::string& line = merges.item(i).text();
    if (line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
      merges.item(i).fail("two tokens with a space between them");
    }
    spec.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
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

void parse_normalizer(const Node& node, std::vector<NormalForm>& forms) {
  const std::string& type = node.type();
  if (type == "Sequence") {
    const Node list = node.at("normalizers");
    for (size_t i = 0; i < list.array_size(); ++i) parse_normalizer(list.item(i), forms);
  } else if (type == "NFC") {
    forms.push_back(NormalForm::kNfc);
  } else if (type == "NFD") {
    forms.push_back(NormalForm::kNfd);
  } else if (type == "NFKC") {
    forms.push_back(NormalForm::kNfkc);
  } else if (type == "NFKD") {
    forms.push_back(NormalForm::kNfkd);
  } else {
    node.at("type").fail("NFC, NFD, NFKC, NFKD or Sequence (others are not supported)");
  }
}

SplitBehavior parse_behavior(const Node& node) {
  const std::string& name = node.text();
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  node.fail("Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}

SplitStep parse_split(const Node& node) {
  const Node pattern = node.at("pattern");
  if (!pattern.value.is_object() || pattern.value.size() != 1) pattern.fail("one Regex or String");
  SplitStep step;
  if (pattern.has("Regex")) {
    const Node regex = pattern.at("Regex");
    in_place(regex, [&] { step.regex.emplace(pcre2_from_oniguruma(regex.text())); });
  } else {
    const Node literal = pattern.at("String");
    in_place(literal, [&] { step.regex.emplace(pcre2_from_literal(literal.text())); });
  }
  step.behavior = parse_behavior(node.at("behavior"));
  step.invert = node.at("invert").flag();
  return step;
}

// `done` is set by the ByteLevel step: the text behind it is in the byte-level alphabet, so that a
// further step would have to work there.
void parse_pre_tokenizer(const Node& node, std::vector<SplitStep>& steps, bool& done) {
  const std::string& type = node.type();
  if (type == "Sequence") {
    const Node list = node.at("pretokenizers");
    for (size_t i = 0; i < list.array_size(); ++i) parse_pre_tokenizer(list.item(i), steps, done);
    return;
  }
  if (done) node.at("type").fail("nothing behind ByteLevel (it is not supported)");
  if (type == "Digits") {
    SplitStep step;
    step.regex.emplace(std::string(kDigitsPattern));
    step.behavior =
        node.at("individual_digits").flag() ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
    steps.push_back(std::move(step));
  } else if (type == "Split") {
    steps.push_back(parse_split(node));
  } else if (type == "ByteLevel") {
    SplitStep step;
    step.add_prefix_space = node.at("add_prefix_space").flag();
    if (!node.has("use_regex") || node.at("use_regex").flag()) {
      step.regex.emplace(pcre2_from_oniguruma(kGpt2Pattern));
    }
    steps.push_back(std::move(step));
    done = true;
  } else {
    node.at("type").fail("ByteLevel, Digits, Split or Sequence (others are not supported)");
  }
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

TokenizerSpec parse_tokenizer_json(std::string_view text, const std::string& name) {
  const json document = parse_json_object(text, name);
  const Node root{document, name};
  if (root.has("version") && root.at("version").text() != "1.0") root.at("version").fail("1.0");

  TokenizerSpec spec;
  spec.bpe = parse_model(root.at("model"));
  if (root.has("added_tokens")) spec.added = parse_added(root.at("added_tokens"));
  if (root.has("normalizer")) parse_normalizer(root.at("normalizer"), spec.normalizers);
  bool byte_level = false;
  if (root.has("pre_tokenizer")) {
    parse_pre_tokenizer(root.at("pre_tokenizer"), spec.steps, byte_level);
  }
  if (!byte_level) {
    throw bad_input(name + ": pre_tokenizer: expected ByteLevel, got none",
                    "only byte-level BPE tokenizers are supported");
  }
  bool templated = false;
  if (root.has("post_processor")) {
    parse_post_processor(root.at("post_processor"), spec, templated);
  }
  const Node decoder = root.at("decoder");
  if (!decoder.value.is_object() || decoder.type() != "ByteLevel") {
    (decoder.value.is_object() ? decoder.at("type") : decoder).fail("ByteLevel");
  }
  return spec;
}

}  // namespace billm::tokenizer
