// The zip archives that torch.save writes: every entry is stored as it is, so a mapped archive
// needs no unpacking and its entries are views. Why this is not left to a library:
// docs/decisions/0008-torch-files.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace billm {

struct StoredEntry {
  std::span<const std::byte> data;
  uint32_t crc;  // as the directory states it; nothing here reads the data to compare
};

// Entry name -> its bytes.
using StoredZip = std::map<std::string, StoredEntry, std::less<>>;

// Whether a file that begins like this wants to be a zip archive.
bool starts_like_zip(std::span<const std::byte> bytes);

// Indexes an archive, zip64 included. Throws Error{kBadInput} starting with `where` for anything
// compressed, encrypted or in several parts, a name twice, entries that overlap or leave the file,
// local headers that disagree with the directory, a directory that is not exactly where and as long
// as it says. Allocates in proportion to the directory.
StoredZip read_stored_zip(std::span<const std::byte> bytes, const std::string& where);

}  // namespace billm
