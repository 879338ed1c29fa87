// See download.h.
#include "download.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <exception>
#include <mutex>

#include "billm/base/error.h"
#include "billm/base/log.h"
#include "billm/base/parallel.h"
#include "billm/base/progress.h"
#include "billm/checkpoint/json.h"
#include "blob_download.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

// Connections at a time: enough to fill a line with several shards, few enough for any server.
constexpr int kConnections = 4;

// Bytes that this user may still write where `directory` is.
int64_t free_bytes(const fs::path& directory) {
  struct statvfs info {};
  if (::statvfs(directory.c_str(), &info) != 0) return INT64_MAX;  // the write itself will tell
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

}  // namespace

RepositoryListing list_repository(HttpClient& http, const HubQuestion& question) {
  constexpr size_t kMostBytes = 64 << 20;
  const bool data = question.repository.kind == RepositoryKind::kDataSet;
  const std::string url = http.environment().endpoint + "/api/" + (data ? "datasets/" : "models/") +
                          question.repository.id + "/revision/" +
                          percent_encoded(question.revision, false) + "?blobs=true";
  std::string body;
  const HttpReply reply = http.get(url, kMostBytes, body);
  if (!reply.ok()) throw refused(question, reply, http.environment());
  return parse_listing(body, printable(url));
}

RemoteFile describe_file(HttpClient& http, const HubQuestion& question) {
  const HttpReply reply = http.head(file_url(http, question));
  const bool elsewhere = reply.trouble == Trouble::kNone && reply.is_redirect();
  if (!reply.ok() && !elsewhere) throw refused(question, reply, http.environment());
  // The linked headers describe the file itself, also where it lies on another host.
  std::string etag = reply.header("x-linked-etag"), size = reply.header("x-linked-size");
  if (etag.empty()) etag = reply.header("etag");
  if (size.empty() && !elsewhere) size = reply.header("content-length");
  const auto wrong = [&](const std::string& expected, const std::string& got) {
    return Error(ErrorCode::kFailure,
                 question_text(question) + ": expected " + expected +
                     " in the server's answer, got " + (got.empty() ? "none" : printable(got)),
                 "is HF_ENDPOINT=" + http.environment().endpoint + " a HuggingFace hub?");
  };
  RemoteFile file{question.file, reply.header("x-repo-commit"), "", 0};
  if (!is_commit(file.commit)) throw wrong("X-Repo-Commit", file.commit);
  if (is_commit(question.revision) && file.commit != question.revision) {
    throw wrong("X-Repo-Commit: " + question.revision, file.commit);
  }
  const auto hash = parse_etag(etag);
  if (!hash) throw wrong("an ETag that is a SHA-256 or a git hash", etag);
  const auto bytes = parse_size(size);
  if (!bytes) throw wrong("the file's size", size);
  file.etag = *hash;
  file.size = *bytes;
  return file;
}

void load_files(HttpClient& http, const CachedRepository& cached,
                const std::vector<RemoteFile>& files, bool quiet) {
  cached.make_directories();
  std::vector<RemoteFile> loads;  // distinct blobs that are not there, large ones first
  int64_t bytes = 0, there = 0;
  for (const RemoteFile& file : files) {
    const bool same = std::any_of(loads.begin(), loads.end(),
                                  [&](const RemoteFile& load) { return load.etag == file.etag; });
    if (same || has_blob(cached, file)) continue;
    loads.push_back(file);
    bytes += file.size;
    there += partial_bytes(cached, file);
  }
  std::stable_sort(loads.begin(), loads.end(),
                   [](const RemoteFile& a, const RemoteFile& b) { return a.size > b.size; });
  if (!loads.empty()) {
    const std::string what = cached.repository().id + " (" + std::to_string(loads.size()) +
                             (loads.size() == 1 ? " file, " : " files, ") + bytes_text(bytes) + ")";
    const int64_t room = free_bytes(cached.root());
    if (bytes - there > room) {
      throw Error(ErrorCode::kFailure,
                  cached.root().string() + ": expected " + bytes_text(bytes - there) +
                      " of free disk space for " + what + ", got " + bytes_text(room),
                  "free some space, or set HF_HUB_CACHE to a directory on a larger disk");
    }
    if (!quiet) {
      std::string line = "downloading " + what + " to " + cached.root().string();
      if (there > 0) line += "; " + bytes_text(there) + " are there from an earlier run";
      log_info(line);
    }
    ByteProgress progress("download", bytes, there, quiet);
    std::mutex mutex;
    std::exception_ptr first;  // the others end because of it
    parallel_for(static_cast<int64_t>(loads.size()), kConnections, [&](int64_t i) {
      try {
        load_blob(http, cached, loads[static_cast<size_t>(i)], progress, quiet);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!first) first = std::current_exception();
        http.cancel();
      }
    });
    if (first) std::rethrow_exception(first);
    progress.finish();
  }
  // config.json last: a run that is killed here leaves nothing that passes for a model.
  for (const bool last : {false, true}) {
    for (const RemoteFile& file : files) {
      if ((file.path == "config.json") == last) cached.link(file.commit, file.path, file.etag);
    }
  }
}

}  // namespace billm
