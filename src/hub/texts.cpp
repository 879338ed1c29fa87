// Texts of data sets by the protocols of the published code: see texts.h.
#include "billm/hub/texts.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/sha256.h"
#include "billm/checkpoint/json.h"
#include "data_sets.h"
#include "gzip_lines.h"
#include "parquet_column.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

// Calls take(line) for each line without its newline, and whether it had one.
template <typename Take>
void for_each_line(std::string_view text, Take take) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    take(text.substr(begin, end - begin), end < text.size());
    begin = end + 1;
  }
}

// The rows of a plain WikiText file.
std::vector<std::string> wikitext_rows(std::string_view raw) {
  std::vector<std::string> rows;
  for_each_line(raw, [&](std::string_view line, bool newline) {
    rows.emplace_back(line == " " ? "" : line);
    if (line != " " && newline) rows.back() += '\n';
  });
  return rows;
}

// rows[begin, end)
std::string joined(const std::vector<std::string>& rows, size_t begin, size_t end,
                   std::string_view glue) {
  std::string text;
  for (size_t i = begin; i < end; ++i) {
    if (i > begin) text += glue;
    text += rows[i];
  }
  return text;
}

std::string document(std::string_view line, const std::string& where) {
  const nlohmann::json row = parse_json_object(line, where);
  if (!row.contains("text") || !row["text"].is_string()) {
    throw bad_input(where + ": expected a document with a string \"text\", got none");
  }
  return row["text"].get<std::string>();
}

std::vector<std::string> jsonl_documents(const std::vector<fs::path>& files) {
  std::vector<std::string> documents;
  for (const fs::path& file : files) {
    int64_t number = 0;
    for_each_line(read_text_file(file), [&](std::string_view line, bool) {
      ++number;
      if (line.empty()) return;
      documents.push_back(document(line, file.string() + ": line " + std::to_string(number)));
    });
  }
  return documents;
}

// Documents from the start of a *.json.gz, `most` of them or until they have `bytes`.
std::vector<std::string> first_documents(const fs::path& path, size_t most, size_t bytes) {
  GzipLines lines(path);
  std::vector<std::string> documents;
  size_t read = 0;
  for (std::string line; documents.size() < most && read < bytes && lines.next(line);) {
    if (line.empty()) continue;
    documents.push_back(document(line, lines.where()));
    read += documents.back().size();
  }
  return documents;
}

Text finish(std::string text, std::string description, fs::path path) {
  if (text.empty()) throw bad_input(path.string() + ": expected text, got none");
  Text result{std::move(text), std::move(description), std::move(path), "", 0};
  result.sha256 = sha256_hex(std::string_view(result.text));
  return result;
}

// A sample without splits: one half to calibrate, one to evaluate.
Text halved(const DataFiles& found) {
  const fs::path path = found.paths.size() == 1 ? found.paths[0] : found.paths[0].parent_path();
  const std::vector<std::string> documents = jsonl_documents(found.paths);
  if (documents.size() < 2) {
    throw bad_input(path.string() +
                    ": expected at least 2 documents (half to calibrate, half to "
                    "evaluate), got " +
                    std::to_string(documents.size()));
  }
  const bool first = found.part == DataPart::kTrain;
  const size_t half = documents.size() / 2;
  const size_t begin = first ? 0 : half, end = first ? half : documents.size();
  return finish(joined(documents, begin, end, "\n\n"),
                "C4, documents " + std::to_string(begin + 1) + " to " + std::to_string(end) +
                    " of " + std::to_string(documents.size()) +
                    (first ? " (calibration half)" : " (evaluation half)") +
                    ", joined by two newlines",
                path);
}

Text load_c4(const DataFiles& found, const TextOptions& options) {
  if (found.paths[0].extension() == ".jsonl") return halved(found);
  constexpr int64_t kBytesPerToken = 32;  // eight times what English text has
  constexpr int64_t kUsual = 128 * 2048;
  constexpr size_t kEvaluated = 1100;
  constexpr int64_t kWindows = 256;
  const fs::path& path = found.paths[0];
  const bool train = found.part == DataPart::kTrain;
  const int64_t tokens = std::min(options.tokens > 0 ? options.tokens : kUsual,
                                  std::numeric_limits<int64_t>::max() / kBytesPerToken);
  const std::vector<std::string> documents =
      train ? first_documents(path, SIZE_MAX, static_cast<size_t>(tokens * kBytesPerToken))
            : first_documents(path, kEvaluated, SIZE_MAX);
  Text text =
      finish(joined(documents, 0, documents.size(), train ? "\n\n" : " "),
             "C4, the first " + std::to_string(documents.size()) + " documents of " +
                 path.filename().string() + ", joined by " + (train ? "two newlines" : "a blank"),
             path);
  if (!train) text.most_windows = kWindows;
  return text;
}

Text load_rows(const DataSet& set, const DataFiles& found) {
  const fs::path& path = found.paths[0];
  const std::vector<std::string> rows = path.extension() == ".parquet"
                                            ? read_parquet_column(path, set.column)
                                            : wikitext_rows(read_text_file(path));
  const std::string glue = set.glue;
  return finish(joined(rows, 0, rows.size(), glue),
                std::string(glue == " " ? "Penn Treebank" : "WikiText-2 raw") + ", " +
                    part_name(found.part) + " split, rows joined by " +
                    (glue == " " ? "a blank" : "two newlines"),
                path);
}

std::vector<DataPart> parts_of(const DataSet& set, TextSplit split) {
  switch (split) {
    case TextSplit::kTest:
      return {DataPart::kTest};
    case TextSplit::kTrain:
      return {DataPart::kTrain};
    case TextSplit::kValidation:
      return {DataPart::kValidation};
    case TextSplit::kCalibration:
      break;
  }
  const std::string_view validation = set.files[static_cast<size_t>(DataPart::kValidation)];
  if (validation == set.files[static_cast<size_t>(DataPart::kTest)]) return {DataPart::kTrain};
  return {DataPart::kTrain, DataPart::kValidation};
}

}  // namespace

const std::vector<std::string>& data_set_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    for (const DataSet& set : data_sets()) result.emplace_back(set.name);
    return result;
  }();
  return names;
}

Text load_text(const std::string& name_or_path, TextSplit split, const fs::path& data_dir,
               const TextOptions& options) {
  if (const DataSet* set = find_data_set(name_or_path)) {
    const DataFiles found = find_data_files(*set, parts_of(*set, split), data_dir, options.quiet);
    return name_or_path == "c4" ? load_c4(found, options) : load_rows(*set, found);
  }
  std::error_code error;
  if (!fs::exists(name_or_path, error)) {
    std::string names;
    for (const std::string& name : data_set_names()) names += name + ", ";
    throw bad_input(printable(name_or_path) + ": expected " + names + "or a text file, found none",
                    "give one of these names or the path of a text file");
  }
  return finish(read_text_file(name_or_path), "text file", name_or_path);
}

}  // namespace billm
