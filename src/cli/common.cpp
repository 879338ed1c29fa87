// See common.h.
#include "common.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/home.h"
#include "billm/base/json_text.h"
#include "billm/base/parallel.h"
#include "billm/checkpoint/npy.h"
#include "billm/hub/model_name.h"
#include "billm/tokenizer/tokenizer.h"

namespace billm {
namespace fs = std::filesystem;

void CommonOptions::add_to(CLI::App& app) {
  app.add_option("--threads", threads, "Threads (default: all processors); never changes results")
      ->check(CLI::Range(1, 4096));
  app.add_flag("-q,--quiet", quiet, "No progress and no table, errors only");
  app.add_option("--json", json, "Write the full report to FILE ('-': stdout)")->type_name("FILE");
}

int CommonOptions::resolved_threads() const { return resolve_threads(threads); }

void CommonOptions::check_json() const {
  if (json.empty() || json == "-") return;
  const fs::path parent = fs::absolute(json).parent_path();
  if (fs::is_directory(json)) {
    throw Error(ErrorCode::kFailure, "--json " + json + ": is a directory");
  }
  if (!fs::is_directory(parent) || ::access(parent.c_str(), W_OK) != 0) {
    throw Error(ErrorCode::kFailure, "--json " + json + ": cannot write into " + parent.string());
  }
}

void CommonOptions::write_json(const nlohmann::ordered_json& report) const {
  if (json.empty()) return;
  const std::string text = dump_json(report, 2) + "\n";
  if (json == "-") {
    write_stdout(text);
    return;
  }
  std::error_code failure;
  const fs::path target = fs::weakly_canonical(json, failure);  // a link's target is replaced
  if (fs::exists(target, failure) && !fs::is_regular_file(target, failure)) {
    std::ofstream(target) << text << std::flush;  // a device or a pipe
  } else {
    write_file_atomic(target, text);
  }
}

namespace {

// What is to be said of the write before; errno was 0 before it.
bool check_stdout(bool ok) {
  if (ok) return true;
  const int reason = errno;
  std::clearerr(stdout);
  if (reason == EPIPE) return false;
  throw Error(ErrorCode::kFailure,
              std::string("standard output: cannot write") +
                  (reason == 0 ? "" : std::string(": ") + std::strerror(reason)));
}

}  // namespace

bool write_stdout(const std::string& text) {
  errno = 0;
  return check_stdout(std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
                      std::fflush(stdout) == 0);
}

bool flush_stdout() {
  errno = 0;
  return check_stdout(std::fflush(stdout) == 0 && std::ferror(stdout) == 0);
}

TokenizedSource load_tokens(const TokenRequest& request) {
  TokenizedSource result;
  if (fs::path(request.source).extension() == ".npy") {
    result.is_matrix = true;
    result.matrix = read_npy(request.source);
    result.description = request.source;
    return result;
  }
  const Text text = load_text(request.source, request.split, request.data_dir, request.text);
  result.description = text.description;
  result.most_windows = text.most_windows;
  result.sha256 = text.sha256;
  result.tokens = Tokenizer::from_directory(request.model).encode(text.text, true);
  return result;
}

std::string read_input(const std::string& file_name) {
  const bool standard = file_name == "-";
  std::FILE* file = standard ? stdin : std::fopen(file_name.c_str(), "rb");
  if (file == nullptr) throw bad_input(file_name + ": cannot open: " + std::strerror(errno));
  std::string text;
  char buffer[1 << 16];
  while (const size_t got = std::fread(buffer, 1, sizeof(buffer), file)) text.append(buffer, got);
  const int failure = std::ferror(file) ? errno : 0;
  if (!standard) std::fclose(file);
  if (failure != 0) {
    throw Error(
        standard ? ErrorCode::kFailure : ErrorCode::kBadInput,
        (standard ? "standard input" : file_name) + ": cannot be read: " + std::strerror(failure));
  }
  return text;
}

fs::path new_result_path(const std::string& stem, bool resume) {
  const fs::path results = billm_home() / "results";
  const auto numbered = [&](int i) {
    return results / (i == 1 ? stem : stem + "-" + std::to_string(i));
  };
  const auto unfinished = [](const fs::path& path) {
    return fs::exists(path.string() + ".partial");
  };
  if (!resume) {
    int i = 1;
    while (fs::exists(numbered(i)) || unfinished(numbered(i))) ++i;
    return numbered(i);
  }
  fs::path latest;
  fs::file_time_type time;
  constexpr int kMostRuns = 10000;  // numbers may have gaps
  for (int i = 1; i <= kMostRuns; ++i) {
    if (!unfinished(numbered(i))) continue;
    const auto written = fs::last_write_time(numbered(i).string() + ".partial");
    if (latest.empty() || written > time) {
      latest = numbered(i);
      time = written;
    }
  }
  if (latest.empty()) {
    throw Error(ErrorCode::kUsage,
                "--resume: no unfinished run of " + stem + " in " + results.string(),
                "leave out --resume, or name the directory with --out");
  }
  return latest;
}

void set_newest_result(const fs::path& result) {
  std::error_code failure;
  fs::create_directories(billm_home(), failure);
  if (failure) {
    throw Error(ErrorCode::kFailure,
                billm_home().string() + ": cannot create: " + failure.message(),
                "set BILLM_HOME to a directory that can be written");
  }
  replace_symlink(billm_home() / "newest", fs::absolute(result));
}

fs::path newest_result() {
  const fs::path link = billm_home() / "newest";
  std::error_code failure;
  const fs::path target = fs::read_symlink(link, failure);
  if (failure || !fs::is_directory(target)) {
    throw Error(ErrorCode::kUsage, "no result yet (" + link.string() + ")",
                "give --model DIR, or run billm quantize first");
  }
  return target;
}

fs::path model_or_newest(const std::string& model, bool quiet) {
  if (!model.empty()) return resolve_model(model, ModelPart::kAll, quiet);
  const fs::path newest = newest_result();
  if (!quiet) std::fprintf(stderr, "newest result: %s\n", newest.c_str());
  return newest;
}

std::string directory_name(const fs::path& directory) {
  const fs::path path = fs::absolute(directory).lexically_normal();
  return path.has_filename() ? path.filename() : path.parent_path().filename();
}

CLI::Validator learning_rate() {
  const auto check = [](const std::string& text) -> std::string {
    double value = 0;
    if (CLI::detail::lexical_cast(text, value) && value >= 0 && value <= 10) return {};
    return "Value " + text + " not in range [0 - 10]";
  };
  return CLI::Validator(check, "FLOAT in [0 - 10]");
}

void add_data_dir(CLI::App& app, std::string& data_dir, const std::string& group) {
  app.add_option("--data-dir", data_dir,
                 "Where wikitext2/, c4/ and ptb/ lie; what is missing there is looked for in "
                 "$BILLM_DATA_DIR and in the HuggingFace cache, and then downloaded")
      ->type_name("DIR")
      ->group(group);
}

}  // namespace billm
