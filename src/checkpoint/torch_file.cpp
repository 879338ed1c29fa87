// See include/billm/checkpoint/torch_file.h: the archive, the pickle, and that each fits the other.
#include "billm/checkpoint/torch_file.h"

#include <zlib.h>

#include <charconv>
#include <utility>

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"
#include "state_dict_pickle.h"
#include "stored_zip.h"

namespace billm {
namespace {

constexpr int kOldestVersion = 1, kNewestVersion = 10;  // caffe2/serialize/versions.h

// torch.save before 1.6: a pickle of this number comes first (torch/serialization.py,
// MAGIC_NUMBER).
constexpr std::string_view kLegacyMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
                                        14);

constexpr const char* kDamaged = "the file is damaged; get it again";
constexpr const char* kSaveAgain =
    "load it with torch and save it again: torch.save(torch.load(FILE, weights_only=True), "
    "NEW_FILE)";

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void check_is_archive(std::span<const std::byte> bytes, const std::string& file) {
  if (starts_like_zip(bytes)) return;
  if (as_text(bytes).starts_with(kLegacyMagic)) {
    throw bad_input(file + ": expected the zip format of torch.save, got the one before torch 1.6",
                    kSaveAgain);
  }
  throw bad_input(
      file + ": expected a file of torch.save (a zip archive), got another kind of file",
      "the download may be incomplete");
}

class TorchArchive {
 public:
  TorchArchive(std::span<const std::byte> bytes, const std::string& file)
      : file_(file), zip_(read_stored_zip(bytes, file)) {
    // torch names the folder after the file: everything stands below the one that has data.pkl.
    constexpr std::string_view kPickle = "/data.pkl";
    for (const auto& [name, entry] : zip_) {
      const size_t slash = name.find('/');
      if (slash == 0 || slash == std::string::npos || name.substr(slash) != kPickle) continue;
      if (!folder_.empty()) throw bad_input(file_ + ": expected one data.pkl, got two", kDamaged);
      folder_ = name.substr(0, slash + 1);
    }
    if (folder_.empty()) {
      throw bad_input(file_ + ": expected NAME/data.pkl in the archive, got none",
                      "this zip file was not written by torch.save");
    }
  }

  const StoredEntry* find(const std::string& name) const {
    const auto found = zip_.find(folder_ + name);
    return found == zip_.end() ? nullptr : &found->second;
  }
  std::string where(const std::string& name) const {
    return file_ + ": " + printable(folder_ + name);
  }

  void check_kind() const {
    if (find("constants.pkl") != nullptr) {
      throw bad_input(
          file_ + ": expected a state dict, got a TorchScript archive (a program)",
          "save the weights alone: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)");
    }
    if (const StoredEntry* order = find("byteorder")) {
      if (as_text(order->data) != "little") {
        throw bad_input(
            where("byteorder") + ": expected little, got " + printable(as_text(order->data)),
            kSaveAgain);
      }
    }
    const StoredEntry* version = find("version");
    std::string_view text = version == nullptr ? "nothing" : as_text(version->data);
    if (text.ends_with('\n')) text.remove_suffix(1);
    int number = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, number);
    if (parsed.ptr != end || number < kOldestVersion || number > kNewestVersion) {
      throw bad_input(where("version") + ": expected " + std::to_string(kOldestVersion) + " to " +
                          std::to_string(kNewestVersion) + ", got " + printable(text),
                      kSaveAgain);
    }
  }

  // A stored 0 means that it was not computed: torch.serialization.set_crc32_options(False).
  void check_crc(const std::string& name, const StoredEntry& entry) const {
    const auto crc = static_cast<uint32_t>(
        crc32_z(0, reinterpret_cast<const Bytef*>(entry.data.data()), entry.data.size()));
    if (entry.crc != 0 && entry.crc != crc) {
      throw bad_input(where(name) + ": checksum does not match", kDamaged);
    }
  }

 private:
  const std::string& file_;
  StoredZip zip_;
  std::string folder_;  // with the slash
};

}  // namespace

TensorContent parse_torch_file(std::span<const std::byte> bytes, const std::string& file) {
  check_is_archive(bytes, file);
  const TorchArchive archive(bytes, file);
  archive.check_kind();
  const StoredEntry& pickle = *archive.find("data.pkl");
  archive.check_crc("data.pkl", pickle);
  TensorContent content;
  for (auto& [name, tensor] : read_state_dict(pickle.data, archive.where("data.pkl"))) {
    const StoredEntry* storage = archive.find("data/" + tensor.storage);
    const std::string where = file + ": " + printable(name);
    if (storage == nullptr) {
      throw bad_input(where + ": expected the storage data/" + printable(tensor.storage) +
                          " in the archive, got none",
                      kDamaged);
    }
    const auto there = static_cast<int64_t>(storage->data.size());
    if (tensor.storage_bytes != there) {
      throw bad_input(where + ": expected a storage of " + std::to_string(tensor.storage_bytes) +
                          " bytes, got " + std::to_string(there),
                      kDamaged);
    }
    const int64_t size = *tensor_bytes(tensor.dtype, tensor.shape);
    if (tensor.offset_bytes > there || size > there - tensor.offset_bytes) {
      throw bad_input(where + ": expected it inside its storage of " + std::to_string(there) +
                          " bytes, got " + std::to_string(size) + " bytes from byte " +
                          std::to_string(tensor.offset_bytes),
                      kDamaged);
    }
    content.tensors.emplace(
        name, TensorView{tensor.dtype, tensor.shape,
                         storage->data.subspan(static_cast<size_t>(tensor.offset_bytes),
                                               static_cast<size_t>(size))});
  }
  return content;
}

}  // namespace billm
