// Loading one blob. Its bytes go to blobs/<etag>.incomplete as they come, so that a run that is
// killed leaves all of them; the next one asks for the rest (a server may send everything again
// instead). Only what has the announced size and hash is renamed to blobs/<etag>. A lock that
// huggingface_hub takes, too, lets one process load a blob while others wait for it.
#include "blob_download.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/file_lock.h"
#include "billm/base/log.h"
#include "billm/checkpoint/json.h"
#include "blob_hash.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKept = "what is loaded is kept: run the same command again";

class BlobDownload {
 public:
  BlobDownload(HttpClient& http, const CachedRepository& cached, const RemoteFile& file,
               ByteProgress& progress)
      : http_(http),
        cached_(cached),
        file_(file),
        progress_(progress),
        question_{cached.repository(), file.commit, file.path},
        path_(cached.partial_blob(file.etag)),
        counted_(partial_bytes(cached, file)) {}
  ~BlobDownload() {
    if (fd_ >= 0) ::close(fd_);
  }
  BlobDownload(const BlobDownload&) = delete;
  BlobDownload& operator=(const BlobDownload&) = delete;

  void run(bool quiet);

 private:
  void open_partial();
  void start_anew();
  void receive();
  void check_reply(const HttpReply& reply);
  void write(std::span<const std::byte> bytes);
  void count();
  Error lie(const std::string& what, const std::string& expected, const std::string& got) const;
  Error cannot_write(int error_number) const;
  Error cannot_write(const std::string& reason, bool full) const;

  HttpClient& http_;
  const CachedRepository& cached_;
  const RemoteFile& file_;
  ByteProgress& progress_;
  HubQuestion question_;
  fs::path path_;
  int fd_ = -1;
  int64_t size_ = 0;        // bytes in the partial file
  int64_t counted_ = 0;     // that progress knows of
  bool inherited_ = false;  // some of them are of an earlier run
  std::optional<Hash> hash_;
};

// The server is at fault: nothing of what it sent is kept.
Error BlobDownload::lie(const std::string& what, const std::string& expected,
                        const std::string& got) const {
  std::error_code ignored;
  fs::remove(path_, ignored);
  return Error(ErrorCode::kFailure,
               question_text(question_) + ": " + what + ": expected " + expected + ", got " + got,
               "the server or something on the way changed the file: try again, or check "
               "HF_ENDPOINT and the proxy");
}

Error BlobDownload::cannot_write(int error_number) const {
  const bool full = error_number == ENOSPC || error_number == EDQUOT;
  return cannot_write(std::strerror(error_number), full);
}

Error BlobDownload::cannot_write(const std::string& reason, bool full) const {
  const std::string elsewhere = ", or set HF_HUB_CACHE to another directory";
  return Error(ErrorCode::kFailure,
               path_.string() + ": cannot write after " + bytes_text(size_) + " of " +
                   bytes_text(file_.size) + ": " + reason,
               full ? "free some space" + elsewhere + "; " + kKept : "remove it" + elsewhere);
}

void BlobDownload::count() {
  progress_.add(size_ - counted_);
  counted_ = size_;
}

void BlobDownload::start_anew() {
  if (::ftruncate(fd_, 0) != 0 || ::lseek(fd_, 0, SEEK_SET) != 0) {
    throw cannot_write(errno);
  }
  size_ = 0;
  inherited_ = false;
  hash_.emplace(blob_hash(file_.etag, file_.size));
  count();
}

void BlobDownload::open_partial() {
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd_ < 0) throw cannot_write(errno);
  struct stat info {};
  if (::fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
    throw cannot_write("not a regular file", false);
  }
  size_ = info.st_size;
  if (size_ > file_.size) {
    start_anew();
    return;
  }
  inherited_ = size_ > 0;
  hash_.emplace(blob_hash(file_.etag, file_.size));
  if (size_ > 0) hash_->update(MappedFile(path_).bytes());
  if (::lseek(fd_, size_, SEEK_SET) != size_) throw cannot_write(errno);
  count();
}

// A good reply, before its first byte: does it continue where we are, and is it as long as
// announced?
void BlobDownload::check_reply(const HttpReply& reply) {
  if (reply.status == 206) {
    const std::string text = reply.header("content-range");
    const auto range = parse_content_range(text);
    if (!range || range->first != size_ || range->total != file_.size) {
      throw lie("range", "bytes " + std::to_string(size_) + "- of " + std::to_string(file_.size),
                text.empty() ? "none" : printable(text));
    }
    return;
  }
  if (size_ > 0) start_anew();  // the server ignores ranges
  const auto length = parse_size(reply.header("content-length"));
  if (length && *length != file_.size) {
    throw lie("size", std::to_string(file_.size) + " bytes", std::to_string(*length));
  }
}

void BlobDownload::write(std::span<const std::byte> bytes) {
  if (static_cast<int64_t>(bytes.size()) > file_.size - size_) {
    throw lie("size", std::to_string(file_.size) + " bytes", "more");
  }
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      throw cannot_write(errno);
    }
    const auto part = bytes.first(static_cast<size_t>(written));
    hash_->update(part);
    size_ += written;
    count();
    bytes = bytes.subspan(part.size());
  }
}

// Until all bytes are there.
void BlobDownload::receive() {
  HttpRequest request;
  request.url = file_url(http_, question_);
  request.other_origins = true;
  request.begin = [this](const HttpReply& reply) { check_reply(reply); };
  request.body = [this](std::span<const std::byte> bytes) { write(bytes); };
  RetryPolicy retry(http_);
  int64_t farthest = size_;
  bool anew = false;
  while (size_ < file_.size) {
    request.offset = size_;
    HttpReply reply = http_.send(request);
    const bool progress = size_ > farthest;
    farthest = std::max(farthest, size_);
    if (size_ == file_.size) return;
    if (reply.ok()) {  // ended early, and in good order
      reply.trouble = Trouble::kCut;
      reply.trouble_text =
          "the end after " + std::to_string(size_) + " of " + std::to_string(file_.size) + " bytes";
    }
    // "Range not satisfiable": something on the way does not like what is asked for; once more
    // from the start, where there is nothing to dislike.
    if (reply.status == 416 && request.offset > 0 && !std::exchange(anew, true)) {
      start_anew();
      farthest = 0;
      continue;
    }
    if (!retry.again(reply, progress)) throw refused(question_, reply, http_.environment());
  }
}

void BlobDownload::run(bool quiet) {
  bool told = false;
  const auto busy = [&] {
    http_.check_cancelled();
    if (!told && !quiet) log_info("waiting: another process loads " + question_text(question_));
    told = true;
  };
  const FileLock lock(cached_.lock_path(file_.etag), FileLock::Afterwards::kKeepFile,
                      "HF_HUB_CACHE names another directory for downloads", busy);
  if (has_blob(cached_, file_)) {  // that process has finished
    size_ = file_.size;
    count();
    return;
  }
  open_partial();
  while (true) {
    receive();
    const std::string got = hash_->hex();
    if (got == file_.etag) break;
    // What an earlier run left may be to blame: once more without it.
    if (!inherited_) throw lie("checksum", file_.etag, got);
    start_anew();
  }
  if (::fsync(fd_) != 0 || ::close(std::exchange(fd_, -1)) != 0) {
    throw cannot_write(errno);
  }
  std::error_code failure;
  fs::rename(path_, cached_.blob(file_.etag), failure);
  if (failure) throw cannot_write(failure.value());
  sync_directory(path_.parent_path());
}

}  // namespace

bool has_blob(const CachedRepository& cached, const RemoteFile& file) {
  std::error_code failure;
  const fs::path path = cached.blob(file.etag);
  return fs::is_regular_file(path, failure) &&
         static_cast<int64_t>(fs::file_size(path, failure)) == file.size;
}

int64_t partial_bytes(const CachedRepository& cached, const RemoteFile& file) {
  std::error_code failure;
  const fs::path path = cached.partial_blob(file.etag);
  if (!fs::is_regular_file(path, failure)) return 0;
  const auto size = static_cast<int64_t>(fs::file_size(path, failure));
  return size <= file.size ? size : 0;
}

std::string file_url(const HttpClient& http, const HubQuestion& question) {
  const bool data = question.repository.kind == RepositoryKind::kDataSet;
  return http.environment().endpoint + (data ? "/datasets/" : "/") + question.repository.id +
         "/resolve/" + percent_encoded(question.revision, false) + "/" +
         percent_encoded(question.file, true);
}

void load_blob(HttpClient& http, const CachedRepository& cached, const RemoteFile& file,
               ByteProgress& progress, bool quiet) {
  BlobDownload(http, cached, file, progress).run(quiet);
}

}  // namespace billm
