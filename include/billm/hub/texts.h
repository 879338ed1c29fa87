// Texts to calibrate on and to evaluate: named data sets found on this machine, or any text file.
#pragma once

#include <filesystem>
#include <string>

namespace billm {

enum class TextSplit {
  kTest,         // to evaluate
  kTrain,        //
  kValidation,   //
  kCalibration,  // train if it is there, else validation; never rows of kTest
};

struct Text {
  std::string text;            // as read; the tokenizer checks that it is UTF-8
  std::string description;     // for people: which set, split, rows and protocol
  std::filesystem::path path;  // the file, or for several files their directory
  std::string sha256;          // of `text`: exactly what is tokenized
};

// `name_or_path`: "wikitext2", "c4", or the path of a text file (taken as it is; `split` and
// `data_dir` do not matter then).
//
// wikitext2 reads wikitext2/wiki.{test,train,valid}.raw by the GPTQ/HuggingFace protocol: each line
// is a row and keeps its newline, a line of one blank is the empty row; rows are joined by two
// newlines. c4 reads every c4/*.jsonl in name order, one document per line in its key "text", and
// joins documents by two newlines: the first half of the documents is train and calibration, the
// second half test and validation.
//
// Places looked at, in order: `data_dir` (if not empty), $BILLM_DATA_DIR, the HuggingFace hub's
// cache ($HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub). Throws Error{kBadInput} that lists
// them if none has the files.
Text load_text(const std::string& name_or_path, TextSplit split,
               const std::filesystem::path& data_dir);

}  // namespace billm
