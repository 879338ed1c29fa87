// Texts to calibrate on and to evaluate: named data sets, found on this machine or downloaded, or
// any text file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace billm {

enum class TextSplit {
  kTest,         // to evaluate
  kTrain,        //
  kValidation,   //
  kCalibration,  // train if it can be had, else validation; never rows of kTest
};

struct Text {
  std::string text;            // as read; the tokenizer checks that it is UTF-8
  std::string description;     // for people: which set, split, rows and protocol
  std::filesystem::path path;  // the file, or for several files their directory
  std::string sha256;          // of `text`: exactly what is tokenized
  int64_t most_windows = 0;    // that the set's protocol evaluates; 0: all
};

struct TextOptions {
  // Tokens that will be drawn from the text: of a set that is far larger (c4) enough is read for a
  // good choice, 32 bytes a token. 0: as for 128 sequences of 2048.
  int64_t tokens = 0;
  bool quiet = true;  // else downloads are told on stderr
};

// "wikitext2", "c4", "ptb".
const std::vector<std::string>& data_set_names();

// `name_or_path`: a data set's name, or the path of a text file (taken as it is; `split`,
// `data_dir` and the options do not matter then). The protocols are those of GPTQ's published code:
//
// wikitext2: rows joined by two newlines. Read from a parquet file with a column "text", or from
// wiki.{test,train,valid}.raw, where each line is a row and keeps its newline and a line of one
// blank is the empty row: the same text. ptb: Penn Treebank, rows of the column "sentence" joined
// by a blank. c4: documents of *.json.gz, one JSON object with "text" a line. Calibration: the
// first documents of the first train file, joined by two newlines, see TextOptions. Evaluation: the
// first 1100 documents of the first validation file, joined by a blank, at most 256 windows. Of a
// directory with *.jsonl (a sample without splits) the first half of the documents is train and
// calibration, the second half test and validation.
//
// Places looked at, in order: `data_dir` (if not empty), $BILLM_DATA_DIR, the HuggingFace cache,
// the hub (src/hub/data_sets.cpp says which repositories). In a directory: NAME/ and there the raw
// files or the repository's own paths. Throws Error{kBadInput} if a named directory does not exist,
// a file is damaged, or nothing is found and HF_HUB_OFFLINE is set; Error{kFailure} as downloads
// do.
Text load_text(const std::string& name_or_path, TextSplit split,
               const std::filesystem::path& data_dir, const TextOptions& options = {});

}  // namespace billm
