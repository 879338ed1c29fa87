// See calibration.h.
#include "calibration.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>
#include <system_error>

#include "billm/base/error.h"
#include "billm/base/utf8.h"
#include "billm/checkpoint/json.h"
#include "billm/checkpoint/npy.h"
#include "billm/hub/texts.h"
#include "common.h"

namespace billm {
namespace fs = std::filesystem;

namespace {

bool is_data_set(const std::string& source) {
  const std::vector<std::string>& names = data_set_names();
  return std::find(names.begin(), names.end(), source) != names.end();
}

// Whether there is such a text, as far as is known without looking for data sets.
bool is_text(const std::string& source) {
  std::error_code failure;
  return !source.empty() && (is_data_set(source) || fs::exists(source, failure));
}

bool is_npy(const std::string& source) { return fs::path(source).extension() == ".npy"; }

Error usage(const std::string& message, const std::string& hint = "") {
  return Error(ErrorCode::kUsage, "--calib " + message, hint);
}

// "3" or "0.25" in units; nothing for what is no such number.
std::optional<int64_t> parse_weight(const std::string& text) {
  const size_t point = std::min(text.find('.'), text.size());
  const std::string whole = text.substr(0, point);
  std::string decimals = point < text.size() ? text.substr(point + 1) : "0";
  const auto digits = [](const std::string& part) {
    return !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
  };
  if (!digits(whole) || !digits(decimals) || whole.size() > 7 || decimals.size() > 6) return {};
  decimals.resize(6, '0');
  const int64_t weight = std::stoll(whole) * kWeightUnits + std::stoll(decimals);
  if (weight < 1 || weight > kMostWeight * kWeightUnits) return {};
  return weight;
}

// One text with its weight, if it has one.
CalibrationText parse_text(const std::string& text) {
  const CalibrationText whole = {text, kWeightUnits};
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return whole;
  const std::string stem = text.substr(0, colon), tail = text.substr(colon + 1);
  const std::optional<int64_t> weight = parse_weight(tail);
  if (!weight) {
    if (is_text(text) || !is_text(stem)) return whole;
    throw usage(printable(text) + ": expected a weight above 0, at most " +
                    std::to_string(kMostWeight) +
                    " and with at most 6 decimals after the colon, "
                    "got '" +
                    printable(tail) + "'",
                "write, for example, " + printable(stem) + ":3");
  }
  if (stem.empty()) {
    throw usage(printable(text) + ": expected a data set or a file before the colon, got nothing");
  }
  if (!is_text(text)) return {stem, *weight};
  if (!is_text(stem)) return whole;
  throw usage(printable(text) + ": can mean the file of this name, or " + printable(stem) +
                  " with the weight " + tail,
              "write " + printable(text) +
                  ":1 for the file, or another form of the number, such as " + printable(stem) +
                  ":" + tail + (tail.find('.') == std::string::npos ? ".0" : "0"));
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, comma - begin));
    if (comma == text.size()) return parts;
    begin = comma + 1;
  }
}

std::string label(const std::string& source) {
  return is_data_set(source) ? source : replace_invalid_utf8(directory_name(source));
}

double weight_of(const CalibrationText& text) {
  return static_cast<double>(text.weight) / kWeightUnits;
}

std::string weight_text(double weight) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.13g", weight);
  return text;
}

}  // namespace

std::vector<CalibrationText> parse_calibration(const std::string& calib) {
  if (calib.find(',') == std::string::npos) return {parse_text(calib)};
  std::error_code failure;
  const bool whole_file = fs::exists(calib, failure);
  const std::vector<std::string> words = split(calib);
  if (whole_file) {
    const bool mixture = std::all_of(words.begin(), words.end(), [](const std::string& word) {
      return is_text(word) || is_text(word.substr(0, word.rfind(':')));
    });
    if (!mixture) return {{calib, kWeightUnits}};
    throw usage(printable(calib) + ": can mean the file of this name, or a mixture of " +
                    std::to_string(words.size()) + " texts",
                "for the mixture give each text a weight (a:1,b:1), for the file rename it");
  }
  std::vector<CalibrationText> texts;
  std::set<std::string> names;
  for (const std::string& word : words) {
    if (word.empty()) {
      throw usage(printable(calib) +
                  ": expected a data set or a file beside each comma, got nothing");
    }
    texts.push_back(parse_text(word));
    const std::string& source = texts.back().source;
    const std::string name =
        is_data_set(source) ? source : fs::weakly_canonical(source, failure).string();
    if (!names.insert(name).second) {
      throw usage(printable(calib) + ": " + printable(source) + " is named twice",
                  "name it once, with the sum of its weights");
    }
  }
  return texts;
}

void CalibrationOptions::add_to(CLI::App& app) {
  const std::string calibration = "Calibration";
  app.add_option("--calib", calib,
                 "wikitext2, c4, ptb, FILE.txt, or FILE.npy with token ids int32 [sequences, "
                 "length]; or a mixture of them, such as wikitext2:3,c4:1: --nsamples is shared "
                 "out by the weights after the colons (default 1)")
      ->capture_default_str()
      ->group(calibration);
  app.add_option("--nsamples", nsamples, "Sequences")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20))
      ->group(calibration);
  app.add_option("--seqlen", seqlen, "Tokens per sequence (a .npy has its own)")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 20))
      ->group(calibration);
  app.add_option("--seed", seed, "Seed of the random windows, and of the order of a mixture's")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber)  // without it -1 would become 2^64 - 1
      ->group(calibration);
  add_data_dir(app, data_dir, calibration);
}

// `count` windows of one text. Of a mixture they must all be there, and have --seqlen.
TokenMatrix CalibrationOptions::windows(const std::string& source, int64_t count, bool mixed,
                                        const fs::path& model, bool quiet) const {
  const TokenizedSource text = load_tokens(
      {source, data_dir, TextSplit::kCalibration, model, TextOptions{count * seqlen, quiet}});
  if (!quiet) std::fprintf(stderr, "calibration: %s\n", text.description.c_str());
  if (!text.is_matrix) {
    const auto tokens = static_cast<int64_t>(text.tokens.size());
    if (mixed && tokens < seqlen) {
      throw bad_input("--calib " + printable(source) + ": expected a text of at least " +
                          std::to_string(seqlen) + " tokens (one window), got " +
                          std::to_string(tokens),
                      "give a longer text or a smaller --seqlen");
    }
    return sample_windows(text.tokens, count, seqlen, seed);
  }
  TokenMatrix matrix = text.matrix;  // the first sequences as they are
  if (mixed && (matrix.rows < count || matrix.cols != seqlen)) {
    throw bad_input("--calib " + printable(source) + ": expected at least " +
                        std::to_string(count) + " sequences of " + std::to_string(seqlen) +
                        " tokens, its share of the mixture, got " + std::to_string(matrix.rows) +
                        " of " + std::to_string(matrix.cols),
                    "change --nsamples, its weight or --seqlen: all texts of a mixture have "
                    "windows of one length");
  }
  matrix.rows = std::min(matrix.rows, count);
  matrix.values.resize(static_cast<size_t>(matrix.rows * matrix.cols));
  return matrix;
}

std::vector<CalibrationPart> CalibrationOptions::shares(
    const std::vector<CalibrationText>& texts) const {
  std::vector<int64_t> weights;
  for (const CalibrationText& text : texts) weights.push_back(text.weight);
  const std::vector<int64_t> counts = share_windows(nsamples, weights);
  std::vector<CalibrationPart> parts;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (counts[i] < 1) {
      throw usage(printable(calib) + ": " + printable(texts[i].source) +
                      ": expected at least one of the " + std::to_string(nsamples) +
                      " windows for its weight, got none",
                  "raise --nsamples or its weight, or leave it out");
    }
    parts.push_back({label(texts[i].source), weight_of(texts[i]), counts[i], ""});
  }
  return parts;
}

Calibration CalibrationOptions::tokens(const fs::path& model, bool quiet) const {
  const std::vector<CalibrationText> texts = parse_calibration(calib);
  if (texts.size() == 1) return {windows(texts[0].source, nsamples, false, model, quiet), {}};
  Calibration result;
  result.parts = shares(texts);
  std::vector<TokenMatrix> matrices;
  for (size_t i = 0; i < texts.size(); ++i) {
    CalibrationPart& part = result.parts[i];
    matrices.push_back(windows(texts[i].source, part.windows, true, model, quiet));
    part.digest = tokens_digest(matrices.back());
    if (!quiet) {
      std::fprintf(stderr, "calibration: %ld windows of %s\n", static_cast<long>(part.windows),
                   part.name.c_str());
    }
  }
  result.tokens = interleave_windows(matrices, seed);
  return result;
}

CalibrationSize CalibrationOptions::size() const {
  const std::vector<CalibrationText> texts = parse_calibration(calib);
  if (texts.size() > 1) return {nsamples, seqlen, shares(texts)};
  if (!is_npy(texts[0].source)) return {nsamples, seqlen, {}};
  const TokenMatrix matrix = read_npy(texts[0].source);
  return {std::min(matrix.rows, nsamples), matrix.cols, {}};
}

std::string CalibrationOptions::source() const {
  const std::vector<CalibrationText> texts = parse_calibration(calib);
  if (texts.size() == 1) return label(texts[0].source);
  std::string names;
  for (const CalibrationText& text : texts) {
    names += (names.empty() ? "" : ",") + label(text.source) + ":" + weight_text(weight_of(text));
  }
  return names;
}

}  // namespace billm
