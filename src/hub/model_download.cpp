// See model_download.h.
#include "model_download.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/file.h"
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
      : http_(environment), cached_(cached), question_(question), part_(part), quiet_(quiet) {}

  // `commit`: what the revision stood for before; the rest of that snapshot is loaded.
  fs::path run(const std::optional<std::string>& commit) {
    HubQuestion asked = question_;
    if (commit) asked.revision = *commit;
    listing_ = list_repository(http_, asked);
    std::vector<std::string> names;
    for (const ListedFile& file : listing_.files) names.push_back(file.path);
    const ModelFiles files(std::move(names));
    if (const auto lack = files.lacks(part_)) {
      throw bad_input(
          question_text(question_) + ": expected " + *lack + " in this repository, got none",
          "billm reads models in HuggingFace's form: config.json, a tokenizer, "
          "*.safetensors or pytorch_model*.bin");
    }
    cached_.make_directories();
    cached_.write_ref(question_.revision, listing_.commit);
    if (!files.has_tokenizer()) cached_.mark_absent(listing_.commit, "tokenizer.json");
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
  // Those of `names` that the snapshot lacks.
  void load(const std::vector<std::string>& names, bool quiet) {
    std::vector<const ListedFile*> lacking;
    for (const std::string& name : names) {
      if (is_file(cached_.snapshot(listing_.commit) / name)) continue;
      const ListedFile* file = listing_.find(name);
      if (file == nullptr) {
        throw bad_input(question_text(question_) + ": expected " + printable(name) +
                        ", which its index names, in the repository, got none");
      }
      lacking.push_back(file);
    }
    std::vector<RemoteFile> files(lacking.size());
    constexpr int kQuestions = 8;  // at a time
    parallel_for(static_cast<int64_t>(lacking.size()), kQuestions, [&](int64_t i) {
      const ListedFile& listed = *lacking[static_cast<size_t>(i)];
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

}  // namespace

fs::path model_snapshot(const HubEnvironment& environment, const CachedRepository& cached,
                        const std::string& revision, ModelPart part, bool quiet) {
  const HubQuestion question{cached.repository(), revision, ""};
  const auto commit = cached.find_commit(revision);
  if (!commit && environment.offline) throw not_cached(question, "this model", cached.root());
  if (commit) {
    const fs::path snapshot = cached.snapshot(*commit);
    const auto lack = lacks(snapshot, part);
    // A model without a tokenizer may lack it since another program loaded the weights alone.
    if (!lack &&
        (part == ModelPart::kConfig || environment.offline ||
         !lacks(snapshot, ModelPart::kTokenizer) || cached.is_absent(*commit, "tokenizer.json"))) {
      return snapshot;
    }
    if (environment.offline) throw not_cached(question, *lack, snapshot);
  }
  return ModelDownload(environment, cached, question, part, quiet).run(commit);
}

}  // namespace billm
