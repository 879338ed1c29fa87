// Finding and reading texts: see texts.h.
#include "billm/hub/texts.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/sha256.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRowGlue = "\n\n";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// Calls take(line) for each line without its newline, and whether it had one.
template <typename Take>
void for_each_line(std::string_view text, Take take) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    take(text.substr(begin, end - begin), end < text.size());
    begin = end + 1;
  }
}

std::string wikitext_rows(std::string_view raw) {
  std::string text;
  bool first = true;
  for_each_line(raw, [&](std::string_view line, bool newline) {
    if (!first) text += kRowGlue;
    first = false;
    if (line == " ") return;
    text += line;
    if (newline) text += '\n';
  });
  return text;
}

std::vector<std::string> c4_documents(const std::vector<fs::path>& files) {
  std::vector<std::string> documents;
  for (const fs::path& file : files) {
    const std::string content = read_text_file(file);
    int64_t number = 0;
    for_each_line(content, [&](std::string_view line, bool) {
      ++number;
      if (line.empty()) return;
      const std::string where = file.string() + ": line " + std::to_string(number);
      const nlohmann::json row = parse_json_object(line, where);
      if (!row.contains("text") || !row["text"].is_string()) {
        throw bad_input(where + ": expected a document with a string \"text\", got none");
      }
      documents.push_back(row["text"].get<std::string>());
    });
  }
  return documents;
}

std::string c4_half(const std::vector<std::string>& documents, bool second) {
  const size_t half = documents.size() / 2;
  const size_t begin = second ? half : 0, end = second ? documents.size() : half;
  std::string text;
  for (size_t i = begin; i < end; ++i) {
    if (i > begin) text += kRowGlue;
    text += documents[i];
  }
  return text;
}

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

// All files below `directory`, sorted; none if it cannot be read.
std::vector<fs::path> files_below(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;
  fs::recursive_directory_iterator entry(directory, fs::directory_options::skip_permission_denied,
                                         error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (is_file(entry->path())) files.push_back(entry->path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<fs::path> jsonl_files(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;
  fs::directory_iterator entry(directory, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (entry->path().extension() == ".jsonl" && is_file(entry->path())) {
      files.push_back(entry->path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Where a named set may lie, and what was seen there for the error at the end.
class Search {
 public:
  explicit Search(const fs::path& data_dir) {
    if (!data_dir.empty()) places_.push_back({data_dir, "--data-dir"});
    const std::string env = environment("BILLM_DATA_DIR");
    if (!env.empty()) places_.push_back({env, "BILLM_DATA_DIR"});
    hub_ = hub_cache();
  }

  // The first of wiki.<part>.raw in the first place that has one, and which of `parts` it is.
  std::optional<std::pair<fs::path, size_t>> wikitext(const std::vector<std::string>& parts) {
    const auto name = [&](size_t i) { return "wiki." + parts[i] + ".raw"; };
    for (const auto& [directory, from] : places_) {
      for (size_t i = 0; i < parts.size(); ++i) {
        const fs::path path = directory / "wikitext2" / name(i);
        if (is_file(path)) return std::pair(path, i);
        missed(path, from);
      }
    }
    for (size_t i = 0; i < parts.size(); ++i) {
      for (const fs::path& file : snapshots("wikitext", hub_ / "datasets--*wikitext*" / name(i))) {
        // WikiText-103 has files of the same names.
        const bool two = file.string().find("103") == std::string::npos;
        if (file.filename() == name(i) && two) return std::pair(file, i);
        if (file.extension() == ".parquet") note_format(file);
      }
    }
    return std::nullopt;
  }

  std::vector<fs::path> c4() {
    for (const auto& [directory, from] : places_) {
      std::vector<fs::path> files = jsonl_files(directory / "c4");
      if (!files.empty()) return files;
      missed(directory / "c4" / "*.jsonl", from);
    }
    std::vector<fs::path> files;
    for (const fs::path& file : snapshots("allenai--c4", hub_ / "datasets--allenai--c4")) {
      // One folder of one snapshot: another one may hold the same documents again.
      if (file.extension() == ".jsonl" &&
          (files.empty() || file.parent_path() == files[0].parent_path())) {
        files.push_back(file);
      }
      if (file.extension() == ".gz" || file.extension() == ".parquet") note_format(file);
    }
    return files;
  }

  Error not_found(const std::string& what) const {
    std::string message = what + ": not found; ";
    message += looked_.empty() ? "no place to look" : "looked at ";
    for (size_t i = 0; i < looked_.size(); ++i) {
      if (i > 0) message += ", ";
      message += looked_[i];
    }
    if (!unreadable_.empty()) {
      message += "; " + unreadable_ + " is in a format billm does not read yet";
    }
    return bad_input(message,
                     "set BILLM_DATA_DIR (or --data-dir) to a directory that holds "
                     "wikitext2/wiki.test.raw or c4/*.jsonl, or give a text file instead");
  }

 private:
  static fs::path hub_cache() {
    if (const std::string cache = environment("HF_HUB_CACHE"); !cache.empty()) return cache;
    if (const std::string home = environment("HF_HOME"); !home.empty())
      return fs::path(home) / "hub";
    if (const std::string home = environment("HOME"); !home.empty()) {
      return fs::path(home) / ".cache" / "huggingface" / "hub";
    }
    return {};
  }

  void missed(const fs::path& path, const std::string& from) {
    const std::string line = path.string() + " (" + from + ")";
    if (std::find(looked_.begin(), looked_.end(), line) == looked_.end()) looked_.push_back(line);
  }

  void note_format(const fs::path& file) {
    if (unreadable_.empty()) unreadable_ = file.string();
  }

  // Files of the snapshots of the hub's data sets whose name contains `name`.
  std::vector<fs::path> snapshots(const std::string& name, const fs::path& shown) {
    if (hub_.empty()) return {};
    missed(shown, "the HuggingFace cache");
    std::vector<fs::path> files;
    std::error_code error;
    fs::directory_iterator entry(hub_, error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
      const std::string directory = entry->path().filename().string();
      if (!directory.starts_with("datasets--") || directory.find(name) == std::string::npos) {
        continue;
      }
      for (fs::path& file : files_below(entry->path() / "snapshots")) {
        files.push_back(std::move(file));
      }
    }
    std::sort(files.begin(), files.end());
    return files;
  }

  std::vector<std::pair<fs::path, std::string>> places_;
  fs::path hub_;
  std::vector<std::string> looked_;
  std::string unreadable_;
};

Text finish(std::string text, std::string description, fs::path path) {
  if (text.empty()) throw bad_input(path.string() + ": expected text, got none");
  Text result{std::move(text), std::move(description), std::move(path), ""};
  result.sha256 = sha256_hex(std::string_view(result.text));
  return result;
}

Text load_wikitext2(TextSplit split, Search search) {
  std::vector<std::string> parts;  // file names
  if (split == TextSplit::kTest) parts = {"test"};
  if (split == TextSplit::kTrain) parts = {"train"};
  if (split == TextSplit::kValidation) parts = {"valid"};
  if (split == TextSplit::kCalibration) parts = {"train", "valid"};
  const auto found = search.wikitext(parts);
  if (!found) throw search.not_found("wikitext2 " + parts.front());
  const std::string& part = parts[found->second];
  return finish(wikitext_rows(read_text_file(found->first)),
                "WikiText-2 raw, " + (part == "valid" ? "validation" : part) +
                    " split, rows joined by two newlines",
                found->first);
}

Text load_c4(TextSplit split, Search search) {
  const std::vector<fs::path> files = search.c4();
  if (files.empty()) throw search.not_found("c4");
  const fs::path path = files.size() == 1 ? files[0] : files[0].parent_path();
  const std::vector<std::string> documents = c4_documents(files);
  if (documents.size() < 2) {
    throw bad_input(path.string() +
                    ": expected at least 2 documents (half to calibrate, half to "
                    "evaluate), got " +
                    std::to_string(documents.size()));
  }
  const bool second = split == TextSplit::kTest || split == TextSplit::kValidation;
  const size_t half = documents.size() / 2;
  std::string description = "C4, documents ";
  description += second ? std::to_string(half + 1) : "1";
  description += " to " + std::to_string(second ? documents.size() : half) + " of " +
                 std::to_string(documents.size());
  description += second ? " (evaluation half), joined by two newlines"
                        : " (calibration half), joined by two newlines";
  return finish(c4_half(documents, second), std::move(description), path);
}

}  // namespace

Text load_text(const std::string& name_or_path, TextSplit split, const fs::path& data_dir) {
  if (name_or_path == "wikitext2") return load_wikitext2(split, Search(data_dir));
  if (name_or_path == "c4") return load_c4(split, Search(data_dir));
  std::error_code error;
  if (!fs::exists(name_or_path, error)) {
    throw bad_input(printable(name_or_path) + ": expected wikitext2, c4 or a text file, found none",
                    "give one of these names or the path of a text file");
  }
  return finish(read_text_file(name_or_path), "text file", name_or_path);
}

}  // namespace billm
