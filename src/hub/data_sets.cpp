// See data_sets.h.
#include "data_sets.h"

#include <algorithm>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/log.h"
#include "billm/checkpoint/json.h"
#include "billm/hub/hub_cache.h"
#include "billm/hub/hub_environment.h"
#include "download.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

const std::vector<DataSet> kDataSets = {
    {"wikitext2",
     {"Salesforce/wikitext", "wikitext"},
     "main",
     {"wikitext-2-raw-v1/train-00000-of-00001.parquet",
      "wikitext-2-raw-v1/validation-00000-of-00001.parquet",
      "wikitext-2-raw-v1/test-00000-of-00001.parquet"},
     {"wiki.train.raw", "wiki.valid.raw", "wiki.test.raw"},
     false,
     "text",
     "\n\n"},
    {"c4",
     {"allenai/c4"},
     "main",
     {"en/c4-train.00000-of-01024.json.gz", "en/c4-validation.00000-of-00008.json.gz",
      "en/c4-validation.00000-of-00008.json.gz"},
     {nullptr, nullptr, nullptr},
     true,
     "text",
     "\n\n"},
    // Its own files are read by a script; the hub has converted them.
    {"ptb",
     {"ptb-text-only/ptb_text_only", "ptb_text_only"},
     "refs/convert/parquet",
     {"penn_treebank/train/0000.parquet", "penn_treebank/validation/0000.parquet",
      "penn_treebank/test/0000.parquet"},
     {nullptr, nullptr, nullptr},
     false,
     "sentence",
     " "},
};

std::vector<fs::path> jsonl_files(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code failure;
  fs::directory_iterator entry(directory, failure);
  for (; !failure && entry != fs::directory_iterator(); entry.increment(failure)) {
    if (entry->path().extension() == ".jsonl" && is_file(entry->path())) {
      files.push_back(entry->path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Looks in one place after the other and remembers where, for the error at the end.
class Search {
 public:
  Search(const DataSet& set, const std::vector<DataPart>& parts) : set_(set), parts_(parts) {}

  std::optional<DataFiles> in_directory(const fs::path& directory, const std::string& from) {
    std::error_code failure;
    if (!fs::is_directory(directory, failure)) {
      throw bad_input(from + " " + directory.string() + ": expected a directory, got " +
                      (fs::exists(directory, failure) ? "a file" : "nothing there"));
    }
    const fs::path folder = directory / set_.name;
    for (const DataPart part : parts_) {
      const auto index = static_cast<size_t>(part);
      for (const char* name : {set_.raw_files[index], set_.files[index]}) {
        if (name == nullptr) continue;
        if (is_file(folder / name)) return DataFiles{{folder / name}, part};
        looked_.push_back((folder / name).string() + " (" + from + ")");
      }
    }
    if (set_.sample) {
      std::vector<fs::path> files = jsonl_files(folder);
      if (!files.empty()) return DataFiles{std::move(files), parts_.front()};
      looked_.push_back((folder / "*.jsonl").string() + " (" + from + ")");
    }
    return std::nullopt;
  }

  std::optional<DataFiles> in_cache(const HubEnvironment& environment, DataPart part) {
    const char* file = set_.files[static_cast<size_t>(part)];
    for (const std::string& id : set_.repositories) {
      const CachedRepository cached(environment.cache, {RepositoryKind::kDataSet, id});
      std::vector<std::string> commits = cached.commits();
      // Python's `datasets` asks for a commit and writes no ref: any snapshot will do then.
      if (auto commit = cached.find_commit(set_.revision)) {
        commits.insert(commits.begin(), *std::move(commit));
      }
      for (const std::string& commit : commits) {
        if (is_file(cached.snapshot(commit) / file)) {
          return DataFiles{{cached.snapshot(commit) / file}, part};
        }
      }
      looked_.push_back((cached.root() / "snapshots" / "*" / file).string());
    }
    return std::nullopt;
  }

  Error not_found() const {
    std::string message = std::string(set_.name) + " " + part_name(parts_.front()) + ": not found";
    for (size_t i = 0; i < looked_.size(); ++i)
      message += (i == 0 ? "; looked at " : ", ") + looked_[i];
    return bad_input(
        message + "; and HF_HUB_OFFLINE forbids the download",
        "unset HF_HUB_OFFLINE, or set BILLM_DATA_DIR (or --data-dir) to a directory that "
        "holds it, or give a text file instead");
  }

 private:
  const DataSet& set_;
  const std::vector<DataPart>& parts_;
  std::vector<std::string> looked_;
};

DataFiles from_hub(const DataSet& set, DataPart part, const HubEnvironment& environment,
                   bool quiet) {
  const CachedRepository cached(environment.cache,
                                {RepositoryKind::kDataSet, set.repositories.front()});
  HttpClient http(environment, quiet);
  const RemoteFile file = describe_file(
      http, {cached.repository(), set.revision, set.files[static_cast<size_t>(part)]});
  cached.make_directories();
  cached.write_ref(set.revision, file.commit);
  load_files(http, cached, {file}, quiet);
  return {{cached.snapshot(file.commit) / file.path}, part};
}

}  // namespace

const char* part_name(DataPart part) {
  constexpr const char* kNames[] = {"train", "validation", "test"};
  return kNames[static_cast<size_t>(part)];
}

const std::vector<DataSet>& data_sets() { return kDataSets; }

const DataSet* find_data_set(const std::string& name) {
  const auto found = std::find_if(kDataSets.begin(), kDataSets.end(),
                                  [&](const DataSet& set) { return name == set.name; });
  return found == kDataSets.end() ? nullptr : &*found;
}

DataFiles find_data_files(const DataSet& set, const std::vector<DataPart>& parts,
                          const fs::path& data_dir, bool quiet) {
  Search search(set, parts);
  if (!data_dir.empty()) {
    if (auto found = search.in_directory(data_dir, "--data-dir")) return *found;
    if (!quiet) {
      log_info("--data-dir " + data_dir.string() + " holds no " + set.name + " " +
               part_name(parts.front()) + ": looking elsewhere");
    }
  }
  const char* variable = std::getenv("BILLM_DATA_DIR");
  if (variable != nullptr && *variable != '\0') {
    if (auto found = search.in_directory(variable, "BILLM_DATA_DIR")) return *found;
  }
  const HubEnvironment environment = hub_environment();
  for (const DataPart part : parts) {
    if (auto found = search.in_cache(environment, part)) return *found;
    if (!environment.offline) return from_hub(set, part, environment, quiet);
  }
  throw search.not_found();
}

}  // namespace billm
