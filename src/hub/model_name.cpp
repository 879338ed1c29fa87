// Model names: see include/billm/hub/model_name.h.
#include "billm/hub/model_name.h"

#include <algorithm>
#include <cctype>
#include <numeric>
#include <optional>
#include <string_view>
#include <tuple>

#include "billm/base/error.h"
#include "billm/base/home.h"
#include "billm/checkpoint/json.h"
#include "billm/hub/hub_cache.h"
#include "billm/hub/hub_environment.h"
#include "billm/models_json.h"
#include "model_download.h"

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

bool has_directory(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
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
  std::vector<std::tuple<bool, size_t, std::string>> candidates;  // longer names come first
  for (const ModelAlias& row : model_aliases()) {
    const bool prefix = name.size() >= 3 && row.alias.starts_with(name);
    const size_t distance = edit_distance(name, row.alias);
    if (prefix || distance <= std::min(kFarthest, name.size() / 2)) {
      candidates.emplace_back(!prefix, distance, row.alias);
    }
  }
  std::sort(candidates.begin(), candidates.end());
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(3, candidates.size()); ++i) {
    text += (text.empty() ? "" : ", ") + std::get<2>(candidates[i]);
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

// A hub id with its revision, or an alias of one.
struct HubName {
  std::string repository, revision;
};

std::optional<HubName> parse_hub_name(const std::string& name) {
  const size_t at = name.find('@');
  HubName hub{name.substr(0, at), at == std::string::npos ? "main" : name.substr(at + 1)};
  // "gpt2" alone is a hub id, too, but far more often a misspelt alias.
  if (hub.repository.find('/') == std::string::npos || !is_repository_id(hub.repository) ||
      !is_revision(hub.revision)) {
    return std::nullopt;
  }
  return hub;
}

const ModelAlias* find_alias(const std::string& name) {
  for (const ModelAlias& row : model_aliases()) {
    if (row.alias == name) return &row;
  }
  return nullptr;
}

fs::path resolve_hub(const HubName& name, ModelPart part, bool quiet) {
  const HubEnvironment environment = hub_environment();
  const CachedRepository cached(environment.cache, {RepositoryKind::kModel, name.repository});
  return model_snapshot(environment, cached, name.revision, part, quiet);
}

fs::path resolve_own(const ModelAlias& row) {
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

fs::path resolve_model(const std::string& name, ModelPart part, bool quiet) {
  if (has_directory(name)) return name;
  if (const ModelAlias* row = find_alias(name)) {
    return row->directory.empty() ? resolve_hub({row->repository, row->revision}, part, quiet)
                                  : resolve_own(*row);
  }
  std::error_code ignored;
  if (fs::exists(name, ignored)) {
    throw bad_input(printable(name) + ": expected a model directory, got a file");
  }
  if (const auto hub = parse_hub_name(name)) return resolve_hub(*hub, part, quiet);
  if (name.starts_with('/') || name.starts_with("./") || name.starts_with("../")) {
    throw bad_input(printable(name) + ": expected a model directory, got nothing there");
  }
  throw unknown_name(name);
}

std::string model_label(const std::string& name, const fs::path& directory) {
  if (!has_directory(name)) {
    if (find_alias(name) != nullptr) return name;
    if (const auto hub = parse_hub_name(name)) {
      return hub->repository.substr(hub->repository.find('/') + 1);
    }
  }
  const fs::path path = fs::absolute(directory).lexically_normal();
  return path.has_filename() ? path.filename() : path.parent_path().filename();
}

}  // namespace billm
