// Files: read-only mapping, whole-file reading, and writing that is either complete or absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace billm {

// A read-only memory mapping of a whole regular file. Movable, not copyable.
// Throws Error{kBadInput} if the path is missing, not a regular file or unreadable.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // Tells the kernel that the pages of [offset, offset+size) are not needed now (keeps RSS low).
  void release(size_t offset, size_t size) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Whether there is a regular file (or a link to one); whatever hinders the look counts as no.
bool is_file(const std::filesystem::path& path);

// Whole file as text. Throws Error{kBadInput} as MappedFile.
std::string read_text_file(const std::filesystem::path& path);

// Writes to `path`.tmp, syncs, renames to `path`. On any failure removes the temporary file and
// throws Error{kFailure} with the system's reason (no space, no permission ...).
void write_file_atomic(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_file_atomic(const std::filesystem::path& path, std::string_view text);

// Whether a file must be on the disk before its name is: kNo for what may be lost if the machine
// (not the process) stops, which then may leave the name with other content.
enum class FileSync { kYes, kNo };

// Sequential writer of a file that appears under its name only when commit() has returned: writes
// to `path`.tmp; the destructor without commit() removes it.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::span<const std::byte> bytes);
  void commit(FileSync sync = FileSync::kYes);

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

// Makes renames and creations inside `directory` durable.
void sync_directory(const std::filesystem::path& directory);

// Points the symbolic link `link` at `target`, atomically (a reader sees the old or the new one).
void replace_symlink(const std::filesystem::path& link, const std::filesystem::path& target);

}  // namespace billm
