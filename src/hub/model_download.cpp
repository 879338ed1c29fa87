// See model_download.h.
#include "model_download.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/log.h"
#include "billm/base/parallel.h"
#include "billm/checkpoint/json.h"
#include "download.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

class ModelDownload {
 public:
  ModelDownload(const HubEnvironment& environment, const CachedRepository& cached,
                const HubQuestion& question, ModelPart part, bool quiet)
      : http_(environment, quiet),
        cached_(cached),
        question_(question),
        part_(part),
        quiet_(quiet) {}

  // Asks what the repository has. `commit`: what the revision stood for before; the rest of that
  // snapshot is loaded.
  void list(const std::optional<std::string>& commit) {
    HubQuestion asked = question_;
    if (commit) asked.revision = *commit;
    listing_ = list_repository(http_, asked);
  }

  // After list().
  fs::path run() {
    std::vector<std::string> names;
    for (const ListedFile& file : listing_.files) names.push_back(file.path);
    const ModelFiles files(std::move(names));
    if (const auto missing = files.missing(part_)) {
      throw bad_input(
          question_text(question_) + ": expected " + *missing + " in this repository, got none",
          "billm reads models in HuggingFace's form: config.json, a tokenizer, "
          "*.safetensors or pytorch_model*.bin");
    }
    cached_.write_ref(question_.revision, listing_.commit);
    mark_absent(files.tokenizer_gaps());
    const fs::path snapshot = cached_.snapshot(listing_.commit);
    std::vector<std::string> needed = files.needed(part_);
    const auto weights = files.weights();
    if (part_ == ModelPart::kAll && ModelFiles::is_index(*weights)) {
      load({*weights}, true);  // small; it names the rest
      const fs::path index = snapshot / *weights;
      for (std::string& shard : parse_index_files(read_text_file(index), index.string())) {
        needed.push_back(std::move(shard));
      }
    }
    load(needed, quiet_);
    return snapshot;
  }

 private:
  // Spares the next run the question.
  void mark_absent(const std::vector<std::string>& names) {
    try {
      for (const std::string& name : names) cached_.mark_absent(listing_.commit, name);
    } catch (const Error& error) {  // a cache that only others may write serves all the same
      log_warning(error.message() + "; the hub will be asked again next time");
    }
  }

  // Loads those of `names` that are missing from the snapshot.
  void load(const std::vector<std::string>& names, bool quiet) {
    std::vector<const ListedFile*> missing;
    for (const std::string& name : names) {
      if (is_file(cached_.snapshot(listing_.commit) / name)) continue;
      const ListedFile* file = listing_.find(name);
      if (file == nullptr) {
        throw bad_input(question_text(question_) + ": expected " + printable(name) +
                        ", which its index names, in the repository, got none");
      }
      missing.push_back(file);
    }
    if (missing.empty()) return;
    std::vector<RemoteFile> files(missing.size());
    constexpr int kQuestions = 8;  // at a time
    parallel_for(static_cast<int64_t>(missing.size()), kQuestions, [&](int64_t i) {
      const ListedFile& listed = *missing[static_cast<size_t>(i)];
      const RemoteFile file =
          describe_file(http_, {question_.repository, listing_.commit, listed.path});
      if (listed.size && *listed.size != file.size) {
        throw Error(ErrorCode::kFailure,
                    question_text(question_) + ": " + printable(listed.path) + ": expected " +
                        std::to_string(*listed.size) + " bytes (the list of files), got " +
                        std::to_string(file.size),
                    "the server contradicts itself: try again, or check HF_ENDPOINT");
      }
      files[static_cast<size_t>(i)] = file;
    });
    load_files(http_, cached_, files, quiet);
  }

  HttpClient http_;
  const CachedRepository& cached_;
  HubQuestion question_;
  ModelPart part_;
  bool quiet_;
  RepositoryListing listing_;
};

// Tokenizer files that are missing from the snapshot, without it being known that the repository
// has none of that name: another program may have loaded some of the files only, or have been
// killed. "a, b".
std::string unknown_files(const CachedRepository& cached, const std::string& commit) {
  std::string text;
  for (const std::string& name :
       ModelFiles::of_directory(cached.snapshot(commit)).tokenizer_gaps()) {
    if (!cached.is_absent(commit, name)) text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

}  // namespace

fs::path model_snapshot(const HubEnvironment& environment, const CachedRepository& cached,
                        const std::string& revision, ModelPart part, bool quiet) {
  const HubQuestion question{cached.repository(), revision, ""};
  const auto commit = cached.find_commit(revision);
  if (!commit && environment.offline) throw not_cached(question, "this model", cached.root());
  const fs::path snapshot = commit ? cached.snapshot(*commit) : fs::path();
  const auto missing = commit ? missing_file(snapshot, part) : "this model";
  std::string unknown;  // tokenizer files
  if (!missing) {
    if (part != ModelPart::kConfig) unknown = unknown_files(cached, *commit);
    if (unknown.empty()) return snapshot;
    if (environment.offline) {
      // Without any tokenizer the commands that need one say so.
      if (ModelFiles::of_directory(snapshot).has_tokenizer()) {
        log_warning(question_text(question) + ": tokenizer files may be missing from the cache (" +
                    unknown +
                    "), and HF_HUB_OFFLINE forbids to ask; with those the ids may be others");
      }
      return snapshot;
    }
  }
  if (environment.offline) throw not_cached(question, *missing, snapshot);
  ModelDownload download(environment, cached, question, part, quiet);
  try {
    download.list(commit);
  } catch (const Error& error) {
    if (missing || error.code() != ErrorCode::kFailure) throw;
    log_warning(error.message() +
                "; the cached model is used, and tokenizer files may be missing from it (" +
                unknown + ")");
    return snapshot;
  }
  return download.run();
}

}  // namespace billm
