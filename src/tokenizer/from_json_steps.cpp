// tokenizer.json's normalizer, pre-tokenizer and decoder: see readers.h.
#include <algorithm>

#include "readers.h"

namespace billm::tokenizer {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// The library's Digits asks Rust's char::is_numeric, of Unicode 17: these are not yet in \p{N}.
constexpr std::string_view kDigitsPattern = R"([\p{N}\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}])";

// How much longer replacements may make a text in all: a space to U+2581 is 3.
constexpr size_t kMaxGrowth = 64;

ReplaceText parse_replace(const Node& node, size_t& growth) {
  const Node pattern = node.at("pattern");
  if (!pattern.value.is_object() || pattern.value.size() != 1 || !pattern.has("String")) {
    pattern.fail("one String (others are not supported)");
  }
  ReplaceText step{pattern.at("String").text(), node.at("content").text()};
  if (step.pattern.empty()) pattern.at("String").fail("a text");
  const size_t factor = (step.content.size() + step.pattern.size() - 1) / step.pattern.size();
  if (factor > 1) growth *= std::min(factor, kMaxGrowth + 1);
  if (growth > kMaxGrowth) node.at("content").fail("a shorter text");
  return step;
}

void parse_normalizer(const Node& node, std::vector<NormalizeStep>& steps, size_t& growth) {
  const std::string& type = node.type();
  if (type == "Sequence") {
    const Node list = node.at("normalizers");
    for (size_t i = 0; i < list.array_size(); ++i) parse_normalizer(list.item(i), steps, growth);
  } else if (type == "NFC") {
    steps.emplace_back(NormalForm::kNfc);
  } else if (type == "NFD") {
    steps.emplace_back(NormalForm::kNfd);
  } else if (type == "NFKC") {
    steps.emplace_back(NormalForm::kNfkc);
  } else if (type == "NFKD") {
    steps.emplace_back(NormalForm::kNfkd);
  } else if (type == "Prepend") {
    steps.emplace_back(PrependText{node.at("prepend").text()});
  } else if (type == "Replace") {
    steps.emplace_back(parse_replace(node, growth));
  } else {
    node.at("type").fail(
        "NFC, NFD, NFKC, NFKD, Prepend, Replace or Sequence (others are not supported)");
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

Metaspace::Prepend parse_prepend(const Node& node) {
  if (!node.has("prepend_scheme")) return Metaspace::Prepend::kAlways;
  const Node scheme = node.at("prepend_scheme");
  if (scheme.text() == "always") return Metaspace::Prepend::kAlways;
  if (scheme.text() == "first") return Metaspace::Prepend::kFirst;
  if (scheme.text() == "never") return Metaspace::Prepend::kNever;
  scheme.fail("always, first or never");
}

Metaspace parse_metaspace(const Node& node) {
  Metaspace step;
  node.at("replacement").character();
  step.replacement = node.at("replacement").text();
  step.prepend = parse_prepend(node);
  if (node.has("add_prefix_space") && !node.at("add_prefix_space").flag() &&
      step.prepend != Metaspace::Prepend::kNever) {
    node.at("add_prefix_space").fail("true, or prepend_scheme \"never\"");
  }
  return step;
}

SplitStep parse_metaspace_step(const Node& node) {
  SplitStep step;
  step.metaspace = parse_metaspace(node);
  if (!node.has("split") || node.at("split").flag()) {
    const Node replacement = node.at("replacement");
    in_place(replacement, [&] { step.regex.emplace(pcre2_from_literal(replacement.text())); });
    step.behavior = SplitBehavior::kMergedWithNext;
  }
  return step;
}

// `byte_level` is set by the ByteLevel step: the text behind it is in the byte-level alphabet, so
// that a further step would have to work there.
void parse_pre_tokenizer(const Node& node, std::vector<SplitStep>& steps, bool& byte_level) {
  const std::string& type = node.type();
  if (type == "Sequence") {
    const Node list = node.at("pretokenizers");
    for (size_t i = 0; i < list.array_size(); ++i) {
      parse_pre_tokenizer(list.item(i), steps, byte_level);
    }
    return;
  }
  if (byte_level) node.at("type").fail("nothing behind ByteLevel (it is not supported)");
  if (type == "Digits") {
    SplitStep step;
    step.regex.emplace(std::string(kDigitsPattern));
    step.behavior =
        node.at("individual_digits").flag() ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
    steps.push_back(std::move(step));
  } else if (type == "Split") {
    steps.push_back(parse_split(node));
  } else if (type == "Metaspace") {
    steps.push_back(parse_metaspace_step(node));
  } else if (type == "ByteLevel") {
    const bool use_regex = !node.has("use_regex") || node.at("use_regex").flag();
    steps.push_back(byte_level_step(node.at("add_prefix_space").flag(), use_regex));
    byte_level = true;
  } else {
    node.at("type").fail(
        "ByteLevel, Digits, Metaspace, Split or Sequence (others are not "
        "supported)");
  }
}

void parse_decoder(const Node& node, std::vector<DecodeStep>& steps, size_t& growth) {
  const std::string& type = node.type();
  if (type == "Sequence") {
    const Node list = node.at("decoders");
    for (size_t i = 0; i < list.array_size(); ++i) parse_decoder(list.item(i), steps, growth);
  } else if (type == "ByteLevel") {
    steps.emplace_back(ByteLevelDecode{});
  } else if (type == "Replace") {
    steps.emplace_back(parse_replace(node, growth));
  } else if (type == "ByteFallback") {
    steps.emplace_back(ByteFallbackDecode{});
  } else if (type == "Fuse") {
    steps.emplace_back(FuseDecode{});
  } else if (type == "Strip") {
    steps.emplace_back(StripDecode{node.at("content").character(), node.at("start").count(),
                                   node.at("stop").count()});
  } else if (type == "Metaspace") {
    const bool drop = parse_metaspace(node).prepend != Metaspace::Prepend::kNever;
    steps.emplace_back(MetaspaceDecode{node.at("replacement").character(), drop});
  } else {
    node.at("type").fail(
        "ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace or Sequence "
        "(others are not supported)");
  }
}

}  // namespace

SplitStep byte_level_step(bool add_prefix_space, bool use_regex) {
  SplitStep step;
  step.add_prefix_space = add_prefix_space;
  if (use_regex) step.regex.emplace(pcre2_from_oniguruma(kGpt2Pattern));
  return step;
}

void parse_steps(const Node& root, TokenizerSpec& spec) {
  size_t growth = 1;
  if (root.has("normalizer")) {
    parse_normalizer(root.at("normalizer"), spec.normalizers, growth);
  }
  if (root.has("pre_tokenizer")) {
    parse_pre_tokenizer(root.at("pre_tokenizer"), spec.steps, spec.bpe.byte_level);
  }
  const Node decoder = root.at("decoder");
  if (!decoder.value.is_object()) decoder.fail("a decoder");
  growth = 1;
  parse_decoder(decoder, spec.decoders, growth);
}

}  // namespace billm::tokenizer
