// --calib and its flags, on the commands that learn from a text: one text, or a mixture of several
// ("wikitext2:3,c4:1"), whose windows are shared out by weight and interleaved.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "billm/checkpoint/token_source.h"
#include "billm/report/report.h"

namespace billm {

// A text of --calib and its weight in units of 1 / kWeightUnits.
struct CalibrationText {
  std::string source;  // a data set, FILE.npy or the path of a text
  int64_t weight = 0;
};
inline constexpr int64_t kWeightUnits = 1'000'000;  // six decimals
inline constexpr int64_t kMostWeight = 1'000'000;

// What --calib names. Texts are separated by commas; a text may be followed by a colon and its
// weight, 1 unless it is given. A text that is there under its whole name, colon or comma included,
// is that file; where the same words can be read in the other way, too, they are refused. Throws
// Error{kUsage} for that, a weight that is none, a text that is named twice, and where none is
// named between commas. Texts that are not there are not looked for here.
std::vector<CalibrationText> parse_calibration(const std::string& calib);

struct Calibration {
  TokenMatrix tokens;
  std::vector<CalibrationPart> parts;  // of a mixture; of one text none
};

// What a run would calibrate on, before any text is read.
struct CalibrationSize {
  int64_t sequences = 0, length = 0;
  std::vector<CalibrationPart> parts;  // without digests
};

struct CalibrationOptions {
  std::string calib = "wikitext2", data_dir;
  int64_t nsamples = 128, seqlen = 2048;
  uint64_t seed = 0;
  void add_to(CLI::App& app);
  // Sequences of the model's tokens; says where they come from on stderr unless quiet. A mixture
  // throws Error{kUsage} where a text gets no window, Error{kBadInput} with its name where it is
  // too short, or a .npy has sequences of another length or too few.
  Calibration tokens(const std::filesystem::path& model, bool quiet) const;
  // As tokens() would give them.
  CalibrationSize size() const;
  std::string source() const;  // for the manifest: data sets and files' names, weights of mixtures

 private:
  TokenMatrix windows(const std::string& source, int64_t count, bool mixed,
                      const std::filesystem::path& model, bool quiet) const;
  std::vector<CalibrationPart> shares(const std::vector<CalibrationText>& texts) const;
};

}  // namespace billm
