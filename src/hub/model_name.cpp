// Model names: see include/billm/hub/model_name.h.
#include "billm/hub/model_name.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <string_view>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/home.h"
#include "billm/checkpoint/json.h"
#include "billm/models_json.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

std::vector<ModelAlias> read_aliases() {
  std::vector<ModelAlias> rows;
  const auto table = parse_json_object(kModelsJson, "configs/models.json");
  for (const auto& [alias, row] : table.items()) {
    rows.push_back({alias, row.value("repository", ""), row.value("revision", "main"),
                    row.value("directory", ""), row.value("notes", "")});
  }
  return rows;
}

std::optional<fs::path> from_environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return fs::path(value);
}

fs::path hub_cache() {
  if (const auto cache = from_environment("HF_HUB_CACHE")) return *cache;
  if (const auto home = from_environment("HF_HOME")) return *home / "hub";
  if (const auto cache = from_environment("XDG_CACHE_HOME")) return *cache / "huggingface" / "hub";
  const fs::path user = from_environment("HOME").value_or(".");
  return user / ".cache" / "huggingface" / "hub";
}

bool has_directory(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

bool has_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

// A component of a hub id or a revision: what the hub allows, and never "..".
bool is_word(std::string_view text) {
  return !text.empty() && text.front() != '.' && text.front() != '-' &&
         text.find("..") == std::string_view::npos &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
         });
}

bool is_revision(std::string_view text) {
  while (true) {
    const size_t slash = text.find('/');
    if (!is_word(text.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

// Up to three aliases that the user may have meant, the closest first.
std::string close_aliases(std::string name) {
  constexpr size_t kFarthest = 3;
  name.resize(std::min(name.size(), size_t{64}));
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  std::vector<std::pair<size_t, std::string>> candidates;
  for (const ModelAlias& row : model_aliases()) {
    const bool prefix = name.size() >= 3 && row.alias.starts_with(name);
    const size_t distance = prefix ? 0 : edit_distance(name, row.alias);
    if (distance <= std::min(kFarthest, name.size() / 2))
      candidates.emplace_back(distance, row.alias);
  }
  std::sort(candidates.begin(), candidates.end());
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(3, candidates.size()); ++i) {
    text += (text.empty() ? "" : ", ") + candidates[i].second;
  }
  return text;
}

Error unknown_name(const std::string& name) {
  const std::string close = close_aliases(name);
  std::string hint;
  if (!close.empty()) {
    hint = "did you mean " + close + "?";
  } else {
    for (const ModelAlias& row : model_aliases()) hint += (hint.empty() ? "" : ", ") + row.alias;
    hint = "aliases: " + hint;
  }
  return bad_input(printable(name) +
                       ": unknown model: expected a directory, an alias or a hub id "
                       "org/name[@revision]",
                   hint);
}

// <cache>/models--org--name/refs/<revision> holds the commit; snapshots/<commit>/ the files.
fs::path resolve_hub(const std::string& repository, const std::string& revision) {
  std::string folder = "models--" + repository;
  folder.replace(folder.find('/'), 1, "--");
  const fs::path root = hub_cache() / folder;
  const std::string id = repository + (revision == "main" ? "" : "@" + revision);
  const std::string hint = "download it (`huggingface-cli download " + repository +
                           (revision == "main" ? "" : " --revision " + revision) +
                           "`) or pass --model DIR; billm does not download";
  std::string commit = revision;
  const fs::path ref = root / "refs" / revision;
  if (has_file(ref)) {
    commit = read_text_file(ref);
    while (!commit.empty() && std::isspace(static_cast<unsigned char>(commit.back())) != 0) {
      commit.pop_back();
    }
    if (!is_word(commit)) {
      throw bad_input(ref.string() + ": expected a commit, got " + printable(commit), hint);
    }
  }
  const fs::path snapshot = root / "snapshots" / commit;
  if (has_file(snapshot / "config.json")) return snapshot;
  if (has_directory(snapshot)) {
    throw bad_input(
        id + ": expected a config.json in " + snapshot.string() + ", got an incomplete download",
        hint);
  }
  throw bad_input(
      id + ": expected this model in the HuggingFace cache, got none at " + root.string(), hint);
}

fs::path resolve_alias(const ModelAlias& row) {
  if (row.directory.empty()) return resolve_hub(row.repository, row.revision);
  const fs::path directory = billm_home() / row.directory;
  if (has_directory(directory)) return directory;
  throw bad_input(
      row.alias + ": expected the model at " + directory.string() + ", got nothing there",
      "run tools/quickstart.sh, which makes it, or pass --model DIR");
}

}  // namespace

const std::vector<ModelAlias>& model_aliases() {
  static const std::vector<ModelAlias> rows = read_aliases();
  return rows;
}

fs::path resolve_model(const std::string& name) {
  if (has_directory(name)) return name;
  for (const ModelAlias& row : model_aliases()) {
    if (row.alias == name) return resolve_alias(row);
  }
  std::error_code ignored;
  if (fs::exists(name, ignored)) {
    throw bad_input(printable(name) + ": expected a model directory, got a file");
  }
  const size_t at = name.find('@');
  const std::string repository = name.substr(0, at);
  const std::string revision = at == std::string::npos ? "main" : name.substr(at + 1);
  const size_t slash = repository.find('/');
  if (slash != std::string::npos && is_word(repository.substr(0, slash)) &&
      is_word(repository.substr(slash + 1)) && is_revision(revision)) {
    return resolve_hub(repository, revision);
  }
  if (name.starts_with('/') || name.starts_with("./") || name.starts_with("../")) {
    throw bad_input(printable(name) + ": expected a model directory, got nothing there");
  }
  throw unknown_name(name);
}

}  // namespace billm
