// See stored_zip.h. Record layouts: PKWARE's APPNOTE.TXT 6.3, sections 4.3 and 4.5.3. All numbers
// are little-endian and unaligned.
//
//   entries        local header, name, extra, data [, data descriptor]
//   directory      one central header, name, extra, comment per entry
//   zip64 end      only if something does not fit the end record (torch writes it always)
//   zip64 locator
//   end            comment
#include "stored_zip.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

constexpr uint32_t kLocalSignature = 0x04034b50;
constexpr uint32_t kCentralSignature = 0x02014b50;
constexpr uint32_t kEnd64Signature = 0x06064b50;
constexpr uint32_t kLocatorSignature = 0x07064b50;
constexpr uint32_t kEndSignature = 0x06054b50;

constexpr uint16_t kStored = 0;
constexpr uint16_t kEncrypted = 1 << 0 | 1 << 6 | 1 << 13;  // plain, strong, masked headers
constexpr uint16_t kDataDescriptor = 1 << 3;                // sizes follow the data
constexpr uint16_t kZip64Extra = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // the value stands in the zip64 extra field
constexpr uint16_t kIn64Short = 0xffff;

#pragma pack(push, 1)
struct LocalHeader {
  uint32_t signature;
  uint16_t version, flags, method, time, date;
  uint32_t crc, compressed, size;
  uint16_t name_bytes, extra_bytes;
};
struct CentralHeader {
  uint32_t signature;
  uint16_t made_by, version, flags, method, time, date;
  uint32_t crc, compressed, size;
  uint16_t name_bytes, extra_bytes, comment_bytes, disk, internal;
  uint32_t external, offset;
};
struct End64 {
  uint32_t signature;
  uint64_t record_bytes;  // of what follows this number
  uint16_t made_by, version;
  uint32_t disk, directory_disk;
  uint64_t disk_entries, entries, directory_bytes, directory_offset;
};
struct Locator {
  uint32_t signature, disk;
  uint64_t offset;
  uint32_t disks;
};
struct End {
  uint32_t signature;
  uint16_t disk, directory_disk, disk_entries, entries;
  uint32_t directory_bytes, directory_offset;
  uint16_t comment_bytes;
};
struct ExtraHeader {
  uint16_t id, bytes;
};
#pragma pack(pop)
static_assert(sizeof(LocalHeader) == 30 && sizeof(CentralHeader) == 46 && sizeof(End64) == 56 &&
              sizeof(Locator) == 20 && sizeof(End) == 22 && sizeof(ExtraHeader) == 4);

constexpr size_t kMaxComment = 0xffff;

struct Entry {
  std::string_view name;
  uint64_t begin;  // of the local header
  uint64_t size;
  CentralHeader header;
};

struct Directory {
  uint64_t entries, begin, end;
};

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& where)
      : bytes_(bytes), where_(where) {}

  StoredZip run() {
    const Directory directory = find_directory();
    std::vector<Entry> entries = read_directory(directory);
    std::sort(entries.begin(), entries.end(),
              [](const Entry& a, const Entry& b) { return a.begin < b.begin; });
    StoredZip zip;
    for (size_t i = 0; i < entries.size(); ++i) {
      const uint64_t limit = i + 1 < entries.size() ? entries[i + 1].begin : directory.begin;
      const StoredEntry stored = open(entries[i], limit);
      if (!zip.emplace(entries[i].name, stored).second) {
        throw entry_error(entries[i], "expected each name once, got it twice");
      }
    }
    return zip;
  }

 private:
  // Always compared as `wanted <= there - offset`, never by adding: numbers come from the file.
  bool fits(uint64_t offset, uint64_t size) const {
    return offset <= bytes_.size() && size <= bytes_.size() - offset;
  }
  template <typename Record>
  Record at(uint64_t offset, const char* what) const {
    if (!fits(offset, sizeof(Record))) {
      throw error(std::string(what) + ": expected " + std::to_string(sizeof(Record)) +
                  " bytes at byte " + std::to_string(offset) + ", got the end of the file");
    }
    Record record;
    std::memcpy(&record, bytes_.data() + offset, sizeof(record));
    return record;
  }
  std::string_view text(uint64_t offset, uint64_t size) const {
    return {reinterpret_cast<const char*>(bytes_.data()) + offset, size};
  }
  Error error(const std::string& message) const {
    return bad_input(where_ + ": " + message, "the file is damaged or incomplete; get it again");
  }
  Error entry_error(const Entry& entry, const std::string& message) const {
    return error("archive entry " + printable(entry.name) + ": " + message);
  }

  // The end record is the last thing in the file but for a comment, whose length it states.
  uint64_t find_end() const {
    const uint64_t size = bytes_.size();
    for (uint64_t comment = 0; comment <= kMaxComment && sizeof(End) + comment <= size; ++comment) {
      const uint64_t offset = size - comment - sizeof(End);
      const End end = at<End>(offset, "end of the archive");
      if (end.signature == kEndSignature && end.comment_bytes == comment) return offset;
    }
    throw error("expected a zip archive with its directory at the end, got none");
  }

  Directory find_directory() const {
    const uint64_t end_offset = find_end();
    const End end = at<End>(end_offset, "end of the archive");
    End64 all = {};
    all.disk = end.disk;
    all.directory_disk = end.directory_disk;
    all.disk_entries = end.disk_entries;
    all.entries = end.entries;
    all.directory_bytes = end.directory_bytes;
    all.directory_offset = end.directory_offset;
    uint64_t directory_end = end_offset;
    if (end_offset >= sizeof(Locator)) {
      const Locator locator = at<Locator>(end_offset - sizeof(Locator), "zip64 locator");
      if (locator.signature == kLocatorSignature) {
        all = at<End64>(locator.offset, "zip64 end of the archive");
        directory_end = locator.offset;
        if (all.signature != kEnd64Signature || locator.disk != 0 || locator.disks > 1 ||
            all.record_bytes != sizeof(End64) - 12 ||
            locator.offset + sizeof(End64) + sizeof(Locator) != end_offset) {
          throw error("zip64 end of the archive: expected it right before its locator");
        }
        check_same(end.entries, kIn64Short, all.entries);
        check_same(end.directory_bytes, kIn64, all.directory_bytes);
        check_same(end.directory_offset, kIn64, all.directory_offset);
      }
    }
    if (all.disk != 0 || all.directory_disk != 0 || all.disk_entries != all.entries) {
      throw error("expected an archive in one part, got several");
    }
    if (all.directory_offset > directory_end ||
        all.directory_bytes != directory_end - all.directory_offset) {
      throw error("directory: expected it to end at byte " + std::to_string(directory_end) +
                  ", got " + std::to_string(all.directory_bytes) + " bytes from byte " +
                  std::to_string(all.directory_offset));
    }
    if (all.entries > all.directory_bytes / sizeof(CentralHeader)) {
      throw error("directory: expected at most " +
                  std::to_string(all.directory_bytes / sizeof(CentralHeader)) +
                  " entries in its bytes, got " + std::to_string(all.entries));
    }
    return {all.entries, all.directory_offset, directory_end};
  }

  void check_same(uint64_t in_end, uint64_t in64, uint64_t in_end64) const {
    if (in_end != in64 && in_end != in_end64) {
      throw error("end of the archive: expected the same numbers as in its zip64 form, got " +
                  std::to_string(in_end) + " and " + std::to_string(in_end64));
    }
  }

  std::vector<Entry> read_directory(const Directory& directory) const {
    std::vector<Entry> entries;
    entries.reserve(directory.entries);
    uint64_t offset = directory.begin;
    for (uint64_t i = 0; i < directory.entries; ++i) {
      const auto header = at<CentralHeader>(offset, "directory");
      offset += sizeof(header);
      const uint64_t more = uint64_t{header.name_bytes} + header.extra_bytes + header.comment_bytes;
      if (header.signature != kCentralSignature || more > directory.end ||
          offset > directory.end - more) {
        throw error("directory: expected entry " + std::to_string(i) + " at byte " +
                    std::to_string(offset - sizeof(header)) + ", got something else");
      }
      Entry entry{text(offset, header.name_bytes), header.offset, header.size, header};
      read_sizes(text(offset + header.name_bytes, header.extra_bytes), entry);
      check_kind(entry);
      entries.push_back(entry);
      offset += more;
    }
    if (offset != directory.end) {
      throw error("directory: expected " + std::to_string(directory.entries) +
                  " entries to fill it, got " + std::to_string(directory.end - offset) +
                  " bytes more");
    }
    return entries;
  }

  // Size and offset, from the zip64 extra field where the header says so.
  void read_sizes(std::string_view extra, Entry& entry) const {
    const CentralHeader& header = entry.header;
    uint64_t compressed = header.compressed;
    bool done = header.size != kIn64 && header.compressed != kIn64 && header.offset != kIn64;
    while (!done) {
      ExtraHeader field = {};
      if (extra.size() < sizeof(field)) {
        throw entry_error(entry, "expected its sizes in a zip64 field, got none");
      }
      std::memcpy(&field, extra.data(), sizeof(field));
      extra.remove_prefix(sizeof(field));
      if (field.bytes > extra.size()) throw entry_error(entry, "extra field: cut short");
      std::string_view values = extra.substr(0, field.bytes);
      extra.remove_prefix(field.bytes);
      if (field.id != kZip64Extra) continue;
      const auto take = [&](uint32_t stated, uint64_t& value) {
        if (stated != kIn64) return;
        if (values.size() < sizeof(value)) throw entry_error(entry, "zip64 field: cut short");
        std::memcpy(&value, values.data(), sizeof(value));
        values.remove_prefix(sizeof(value));
      };
      take(header.size, entry.size);
      take(header.compressed, compressed);
      take(header.offset, entry.begin);
      done = true;
    }
    if (header.method == kStored && compressed != entry.size) {
      throw entry_error(entry, "expected the same size stored and unpacked, got " +
                                   std::to_string(compressed) + " and " +
                                   std::to_string(entry.size));
    }
  }

  void check_kind(const Entry& entry) const {
    const CentralHeader& header = entry.header;
    if ((header.flags & kEncrypted) != 0) throw entry_error(entry, "encrypted entries are refused");
    if (header.method != kStored) {
      throw bad_input(
          where_ + ": archive entry " + printable(entry.name) +
              ": expected it stored uncompressed, got method " + std::to_string(header.method),
          "TorchScript archives and files that were zipped by hand are not read: save the "
          "weights with torch.save(model.state_dict(), FILE)");
    }
    if (header.disk != 0) throw entry_error(entry, "expected it in this file, got another part");
    if (header.name_bytes == 0) throw error("archive entry: expected a name, got an empty one");
  }

  // The data behind the local header, which must agree with the directory and end before `limit`.
  StoredEntry open(const Entry& entry, uint64_t limit) const {
    const auto local = at<LocalHeader>(entry.begin, "archive entry");
    const CentralHeader& central = entry.header;
    const uint64_t name = entry.begin + sizeof(local);
    if (local.signature != kLocalSignature || local.flags != central.flags ||
        local.method != central.method || local.name_bytes != central.name_bytes ||
        !fits(name, local.name_bytes) || text(name, local.name_bytes) != entry.name) {
      throw entry_error(entry, "expected the same in its own header at byte " +
                                   std::to_string(entry.begin) + " as in the directory");
    }
    const bool stated = (local.flags & kDataDescriptor) == 0;
    if (stated && (local.crc != central.crc || (local.size != kIn64 && local.size != entry.size) ||
                   (local.compressed != kIn64 && local.compressed != entry.size))) {
      throw entry_error(entry, "expected the same size and CRC in its own header, got others");
    }
    const uint64_t data = name + local.name_bytes + local.extra_bytes;
    if (data > limit || entry.size > limit - data) {
      throw entry_error(entry, "expected at most " +
                                   std::to_string(data > limit ? 0 : limit - data) +
                                   " bytes up to what follows it, got " +
                                   std::to_string(entry.size) + " (cut short or overlapping)");
    }
    return {bytes_.subspan(data, entry.size), central.crc};
  }

  std::span<const std::byte> bytes_;
  const std::string& where_;
};

}  // namespace

bool starts_like_zip(std::span<const std::byte> bytes) {
  uint32_t signature = 0;
  if (bytes.size() < sizeof(signature)) return false;
  std::memcpy(&signature, bytes.data(), sizeof(signature));
  return signature == kLocalSignature;
}

StoredZip read_stored_zip(std::span<const std::byte> bytes, const std::string& where) {
  return Reader(bytes, where).run();
}

}  // namespace billm
