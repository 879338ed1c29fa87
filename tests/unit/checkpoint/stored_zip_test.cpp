// Zip archives made by hand, field by field, and what is wrong with each; zip64 with offsets beyond
// 4 GB in a file with holes. Real archives of torch: torch_file_test.cpp.
#include "src/checkpoint/stored_zip.h"

#include <fcntl.h>
#include <unistd.h>

#include <functional>
#include <vector>

#include "billm/base/file.h"
#include "testing.h"

namespace billm {
namespace {

template <typename... Numbers>
std::string pack(Numbers... numbers) {
  std::string bytes;
  (bytes.append(reinterpret_cast<const char*>(&numbers), sizeof(numbers)), ...);
  return bytes;
}

// One entry; the directory may say something else than the local header.
struct Part {
  std::string name, data;
  uint16_t flags = 0, method = 0, disk = 0;
  uint32_t crc = 7;
  std::string local_name = name;
  uint16_t local_flags = flags;
  uint32_t local_size = static_cast<uint32_t>(data.size());
  uint32_t central_size = static_cast<uint32_t>(data.size());
  uint32_t central_compressed = central_size;
  std::string extra = "", local_extra = "";
  int64_t offset = -1;  // of the local header as the directory says; -1: the true one
};

std::string local(const Part& part) {
  return pack(uint32_t{0x04034b50}, uint16_t{20}, part.local_flags, part.method, uint32_t{0},
              part.crc, part.local_size, part.local_size,
              static_cast<uint16_t>(part.local_name.size()),
              static_cast<uint16_t>(part.local_extra.size())) +
         part.local_name + part.local_extra + part.data;
}

std::string central(const Part& part, uint32_t offset) {
  return pack(uint32_t{0x02014b50}, uint32_t{20 << 16 | 20}, part.flags, part.method, uint32_t{0},
              part.crc, part.central_compressed, part.central_size,
              static_cast<uint16_t>(part.name.size()), static_cast<uint16_t>(part.extra.size()),
              uint16_t{0}, part.disk, uint16_t{0}, uint32_t{0}, offset) +
         part.name + part.extra;
}

std::string end(uint16_t entries, uint32_t bytes, uint32_t offset,
                const std::string& comment = "") {
  return pack(uint32_t{0x06054b50}, uint32_t{0}, entries, entries, bytes, offset,
              static_cast<uint16_t>(comment.size())) +
         comment;
}

std::string end64(uint64_t entries, uint64_t bytes, uint64_t offset, uint64_t own_offset) {
  return pack(uint32_t{0x06064b50}, uint64_t{44}, uint32_t{45 << 16 | 45}, uint64_t{0}, entries,
              entries, bytes, offset) +
         pack(uint32_t{0x07064b50}, uint32_t{0}, own_offset, uint32_t{1});
}

std::string zip(const std::vector<Part>& parts, const std::string& comment = "") {
  std::string file, directory;
  for (const Part& part : parts) {
    directory += central(part, static_cast<uint32_t>(part.offset < 0 ? file.size() : part.offset));
    file += local(part);
  }
  return file + directory +
         end(static_cast<uint16_t>(parts.size()), static_cast<uint32_t>(directory.size()),
             static_cast<uint32_t>(file.size()), comment);
}

std::map<std::string, std::string> read(const std::string& file) {
  const std::vector<char> exact(file.begin(), file.end());
  std::map<std::string, std::string> result;
  for (const auto& [name, entry] : read_stored_zip(std::as_bytes(std::span(exact)), "x")) {
    result[name] = std::string(reinterpret_cast<const char*>(entry.data.data()), entry.data.size());
  }
  return result;
}

void refused(const std::string& file, std::initializer_list<std::string_view> parts) {
  expect_bad_input([&] { read(file); }, parts);
}

const Part kA{.name = "a", .data = "first"};
const Part kB{.name = "b/c", .data = "second one"};
const std::map<std::string, std::string> kBoth = {{"a", "first"}, {"b/c", "second one"}};

TEST(StoredZip, Reads) {
  EXPECT_EQ(read(zip({kA, kB})), kBoth);
  EXPECT_EQ(read(zip({kA, kB}, "a comment")), kBoth);
  EXPECT_EQ(read(zip({kA, kB}, std::string(65535, 'P'))), kBoth);
  EXPECT_TRUE(read(zip({})).empty());
  EXPECT_EQ(read(zip({{.name = "e", .data = ""}})).at("e"), "");
  Part padded = kA;
  padded.local_extra = "FB" + pack(uint16_t{9}) + "ZZZZZZZZZ";  // torch's alignment
  EXPECT_EQ(read(zip({padded, kB})), kBoth);
  Part descriptor = kA;  // sizes behind the data
  descriptor.flags = descriptor.local_flags = 8;
  descriptor.local_size = 0;
  EXPECT_EQ(read(zip({descriptor, kB})), kBoth);
  EXPECT_TRUE(starts_like_zip(bytes_of(zip({kA}))));
  EXPECT_FALSE(starts_like_zip(bytes_of("PK")));
}

TEST(StoredZip, NoArchive) {
  refused("", {"x: expected a zip archive"});
  refused("PK\3\4", {"x: expected a zip archive"});
  refused(std::string(100000, 'x'), {"x: expected a zip archive"});
  refused(zip({kA}) + "x", {"x: expected a zip archive"});
}

TEST(StoredZip, TruncatedAtEveryByte) {
  const std::string whole = zip({kA, kB});
  for (size_t size = 0; size < whole.size(); ++size) refused(whole.substr(0, size), {"x: "});
}

TEST(StoredZip, KindsOfEntries) {
  for (const uint16_t flags : {1, 1 << 6, 1 << 13}) {
    Part part = kA;
    part.flags = part.local_flags = flags;
    refused(zip({part}), {"x: archive entry a: encrypted entries are refused"});
  }
  for (const uint16_t method : {8, 14, 93, 99}) {
    Part part = kA;
    part.method = method;
    refused(zip({part}), {"archive entry a: expected it stored uncompressed, got method"});
  }
  refused(zip({{.name = "a", .data = "x", .disk = 1}}), {"got another part"});
  refused(zip({{.name = "", .data = "x"}}), {"expected a name, got an empty one"});
}

TEST(StoredZip, TwoHeadersOfOneEntry) {
  refused(zip({{.name = "a", .data = "x", .local_name = "b"}}), {"as in the directory"});
  refused(zip({{.name = "a", .data = "x", .local_name = "ab"}}), {"as in the directory"});
  refused(zip({{.name = "a", .data = "x", .local_flags = 8}}), {"as in the directory"});
  refused(zip({{.name = "a", .data = "xyz", .local_size = 2}}), {"same size and CRC"});
  refused(zip({{.name = "a", .data = "x", .offset = 5}}), {"as in the directory"});
  refused(zip({{.name = "a", .data = "x", .offset = 4000}}),
          {"archive entry", "the end of the file"});
}

TEST(StoredZip, NamesTwiceAndOverlaps) {
  refused(zip({kA, kA}), {"archive entry a: expected each name once"});
  // Two names for one entry; an entry that reaches into the next one and into the directory.
  refused(zip({kA, {.name = "a", .data = "first", .offset = 0}}),
          {"archive entry a", "overlapping"});
  refused(zip({{.name = "a", .data = "x", .local_size = 40, .central_size = 40}, kB}),
          {"archive entry a: expected at most 1 bytes", "got 40"});
  refused(zip({{.name = "a", .data = "x", .local_size = 2, .central_size = 2}}),
          {"at most 1 bytes"});
  refused(zip({{.name = "a", .data = "x", .local_size = 0xfffffffe, .central_size = 0xfffffffe}}),
          {"at most 1 bytes"});
  refused(zip({{.name = "a", .data = "x", .central_compressed = 2}}),
          {"the same size stored and unpacked, got 2 and 1"});
}

TEST(StoredZip, DirectoryMustBeWhereItSays) {
  const std::string entry = local(kA), directory = central(kA, 0);
  const auto size = static_cast<uint32_t>(directory.size());
  const auto at = static_cast<uint32_t>(entry.size());
  EXPECT_EQ(read(entry + directory + end(1, size, at)).size(), 1u);
  refused(entry + directory + end(1, size, at + 1), {"directory: expected it to end at byte"});
  refused(entry + directory + end(1, size - 1, at), {"directory: expected it to end at byte"});
  refused(entry + directory + end(1, 0xfffffff0, 0xfffffff0), {"directory"});
  refused(entry + directory + end(0, size, at), {"0 entries to fill it"});
  refused(entry + directory + end(2, size, at), {"at most 1 entries"});
  refused(entry + directory + "gap" + end(1, size, at), {"expected it to end at byte"});
  refused("prefix" + entry + directory + end(1, size, at), {"directory"});
  std::string other = directory;
  other[0] = 'Q';
  refused(entry + other + end(1, size, at), {"directory: expected entry 0 at byte 36"});
  Part long_name = kA;
  std::string cut = central(long_name, 0);
  cut[28] = 100;  // length of the name
  refused(entry + cut + end(1, size, at), {"directory: expected entry 0"});
}

TEST(StoredZip, Zip64) {
  const std::string entry = local(kA);
  const uint64_t at = entry.size();
  Part part = kA;
  part.central_size = part.central_compressed = 0xffffffff;
  const auto with = [&](const std::string& extra, uint32_t offset = 0xffffffff) {
    part.extra = extra;
    const std::string directory = central(part, offset);
    return entry + directory + end64(1, directory.size(), at, at + directory.size()) +
           end(0xffff, 0xffffffff, 0xffffffff);
  };
  const std::string values = pack(uint64_t{5}, uint64_t{5}, uint64_t{0});
  EXPECT_EQ(read(with(pack(uint16_t{1}, uint16_t{24}) + values)).at("a"), "first");
  EXPECT_EQ(
      read(with(pack(uint16_t{9}, uint16_t{1}) + "x" + pack(uint16_t{1}, uint16_t{24}) + values))
          .at("a"),
      "first");
  EXPECT_EQ(read(with(pack(uint16_t{1}, uint16_t{16}) + values.substr(0, 16), 0)).at("a"), "first");
  refused(with(""), {"archive entry a: expected its sizes in a zip64 field, got none"});
  refused(with(pack(uint16_t{2}, uint16_t{0})), {"zip64 field, got none"});
  refused(with(pack(uint16_t{1}, uint16_t{8}) + values.substr(0, 8)), {"zip64 field: cut short"});
  refused(with(pack(uint16_t{1}, uint16_t{99}) + values), {"extra field: cut short"});
  refused(with(pack(uint16_t{1}, uint16_t{24}, ~uint64_t{0}, ~uint64_t{0}, uint64_t{0})),
          {"same size and CRC"});
  refused(with(pack(uint16_t{1}, uint16_t{24}, uint64_t{5}, uint64_t{5}, ~uint64_t{0})),
          {"the end of the file"});
  // Wrong records at the end.
  const std::string directory = central(kA, 0);
  const uint64_t end_at = at + directory.size();
  const auto ends = [&](const std::string& record, uint16_t entries = 1) {
    return entry + directory + record +
           end(entries, static_cast<uint32_t>(directory.size()), static_cast<uint32_t>(at));
  };
  EXPECT_EQ(read(ends(end64(1, directory.size(), at, end_at))).size(), 1u);
  refused(ends(end64(1, directory.size(), at, end_at), 2),
          {"the same numbers as in its zip64 form"});
  refused(ends(end64(1, directory.size(), at, end_at + 1)), {"zip64"});
  refused(ends(end64(1, directory.size(), at, ~uint64_t{0})), {"zip64 end of the archive"});
  refused(ends(end64(1, ~uint64_t{0}, at, end_at)), {"same numbers"});
  const auto plain_end = end(0xffff, 0xffffffff, 0xffffffff);
  refused(entry + directory + end64(~uint64_t{0}, directory.size(), at, end_at) + plain_end,
          {"at most 1 entries"});
  refused(entry + directory + end64(1, ~uint64_t{0}, at, end_at) + plain_end,
          {"expected it to end"});
  refused(entry + directory + end64(1, 8, ~uint64_t{0} - 7, end_at) + plain_end,
          {"expected it to end"});
}

// A storage of 5 GB that takes no disk, and a small one behind it.
TEST(StoredZip, Beyond4GB) {
  const ScratchDirectory scratch;
  const std::filesystem::path path = scratch.path() / "large.zip";
  constexpr uint64_t kHole = uint64_t{5} << 30;
  Part big{.name = "big", .data = ""};
  big.flags = big.local_flags = 8;
  big.central_size = big.central_compressed = 0xffffffff;
  const std::string first = local(big), second = local(kA);
  const uint64_t second_at = first.size() + kHole, directory_at = second_at + second.size();
  big.extra = pack(uint16_t{1}, uint16_t{16}, kHole, kHole);
  Part behind = kA;
  behind.extra = pack(uint16_t{1}, uint16_t{8}, second_at);
  const std::string directory = central(big, 0) + central(behind, 0xffffffff);
  const std::string tail =
      second + directory +
      end64(2, directory.size(), directory_at, directory_at + directory.size()) +
      end(2, static_cast<uint32_t>(directory.size()), 0xffffffff);
  const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY, 0600);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::pwrite(fd, first.data(), first.size(), 0), static_cast<ssize_t>(first.size()));
  if (::pwrite(fd, tail.data(), tail.size(), static_cast<off_t>(second_at)) !=
      static_cast<ssize_t>(tail.size())) {
    ::close(fd);
    GTEST_SKIP() << "this file system has no files of 5 GB";
  }
  ::close(fd);
  const MappedFile file(path);
  const StoredZip zip = read_stored_zip(file.bytes(), "x");
  EXPECT_EQ(zip.at("big").data.size(), kHole);
  EXPECT_EQ(zip.at("a").data.size(), 5u);
  EXPECT_EQ(zip.at("a").data[0], std::byte{'f'});
}

}  // namespace
}  // namespace billm
