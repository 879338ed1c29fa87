// What several commands share: options, texts as tokens, the directory of results.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "billm/checkpoint/token_source.h"
#include "billm/hub/texts.h"

namespace billm {

// --threads, --quiet and --json, on every command.
struct CommonOptions {
  int threads = 0;
  bool quiet = false;
  std::string json;  // file; "-": stdout; "": none
  void add_to(CLI::App& app);
  int resolved_threads() const;
  // Writes `report` where --json says; before the run, check_json() makes sure that it can.
  void check_json() const;
  void write_json(const nlohmann::ordered_json& report) const;
  // Whether the human-readable result goes to stdout.
  bool print() const { return !quiet && json != "-"; }
};

// Accepts finite numbers in [0, 10]; CLI::Range lets NaN pass.
CLI::Validator learning_rate();

// A text as the user named it: a data set, FILE.txt or FILE.npy.
struct TokenRequest {
  std::string source;
  std::string data_dir;
  TextSplit split = TextSplit::kTest;
  std::filesystem::path model;  // whose tokenizer
  TextOptions text;
};
struct TokenizedSource {
  std::string description;
  bool is_matrix = false;       // .npy: windows are what the file says
  TokenMatrix matrix;           // if is_matrix
  std::vector<int32_t> tokens;  // else
  int64_t most_windows = 0;     // of them; 0: all
  std::string sha256;           // of the text that was tokenized; empty for a .npy
};
TokenizedSource load_tokens(const TokenRequest& request);

// Writes to standard output at once; false if its reader stopped reading, which is no failure.
// Throws Error{kFailure} with the system's reason (a full disk).
bool write_stdout(const std::string& text);
// The same of what printf() left in its buffer.
bool flush_stdout();

// All of a file, which may be a pipe or a device, or with "-" of standard input. Throws
// Error{kBadInput} if the file cannot be read.
std::string read_input(const std::string& file);

// --data-dir of the commands that read texts.
void add_data_dir(CLI::App& app, std::string& data_dir, const std::string& group);

// billm_home()/results: where results go without --out. `stem`, else `stem`-2, ...: the first that
// is neither there nor being made; with `resume` the latest unfinished one (Error{kUsage} if none).
std::filesystem::path new_result_path(const std::string& stem, bool resume);
// billm_home()/newest: symbolic link to the newest result. newest_result() throws Error{kUsage} if
// there is none.
void set_newest_result(const std::filesystem::path& result);
std::filesystem::path newest_result();

// --model or, if empty, the newest result, named on stderr unless quiet.
std::filesystem::path model_or_newest(const std::string& model, bool quiet);

// Name of a directory for messages and file names.
std::string directory_name(const std::filesystem::path& directory);

}  // namespace billm
