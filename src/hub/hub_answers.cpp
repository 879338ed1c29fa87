// See include/billm/hub/hub_answers.h.
#include "billm/hub/hub_answers.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"
#include "billm/hub/hub_cache.h"

namespace billm {
namespace {

constexpr int64_t kMostBytes = int64_t{1} << 62;

std::optional<int64_t> size_in(const nlohmann::json& file) {
  const auto lfs = file.find("lfs");
  const nlohmann::json& holder = lfs != file.end() && lfs->is_object() ? *lfs : file;
  const auto size = holder.find("size");
  if (size == holder.end() || !size->is_number_unsigned()) return std::nullopt;
  const uint64_t value = size->get<uint64_t>();
  if (value >= static_cast<uint64_t>(kMostBytes)) return std::nullopt;
  return static_cast<int64_t>(value);
}

}  // namespace

const ListedFile* RepositoryListing::find(std::string_view path) const {
  const auto found = std::lower_bound(
      files.begin(), files.end(), path,
      [](const ListedFile& file, std::string_view name) { return file.path < name; });
  return found != files.end() && found->path == path ? &*found : nullptr;
}

RepositoryListing parse_listing(std::string_view json, const std::string& where) {
  const nlohmann::json answer = parse_json_object(json, where);
  RepositoryListing listing;
  const auto sha = answer.find("sha");
  if (sha == answer.end() || !sha->is_string() || !is_commit(sha->get_ref<const std::string&>())) {
    throw bad_input(where + ": expected \"sha\" with a commit, got another answer",
                    "is HF_ENDPOINT a HuggingFace hub?");
  }
  listing.commit = sha->get<std::string>();
  const auto files = answer.find("siblings");
  if (files == answer.end() || !files->is_array()) {
    throw bad_input(where + ": expected \"siblings\" with a list of files, got another answer",
                    "is HF_ENDPOINT a HuggingFace hub?");
  }
  for (const nlohmann::json& file : *files) {
    const auto name = file.is_object() ? file.find("rfilename") : file.end();
    if (!file.is_object() || name == file.end() || !name->is_string()) {
      throw bad_input(where + ": siblings: expected each to have an \"rfilename\"");
    }
    const std::string& path = name->get_ref<const std::string&>();
    if (!is_relative_path(path)) {
      throw bad_input(where + ": expected file names that stay in the repository, got " +
                      printable(path));
    }
    listing.files.push_back({path, size_in(file)});
  }
  std::sort(listing.files.begin(), listing.files.end(),
            [](const ListedFile& a, const ListedFile& b) { return a.path < b.path; });
  const auto twice =
      std::adjacent_find(listing.files.begin(), listing.files.end(),
                         [](const ListedFile& a, const ListedFile& b) { return a.path == b.path; });
  if (twice != listing.files.end()) {
    throw bad_input(where + ": expected each file once, got " + printable(twice->path) + " twice");
  }
  return listing;
}

std::vector<std::string> parse_index_files(std::string_view json, const std::string& where) {
  const nlohmann::json index = parse_json_object(json, where);
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object() || weight_map->empty()) {
    throw bad_input(where + ": weight_map: expected an object of tensor name to file name");
  }
  std::set<std::string> files;
  for (const auto& [tensor, value] : weight_map->items()) {
    if (!value.is_string() || !is_relative_path(value.get_ref<const std::string&>()) ||
        value.get_ref<const std::string&>().find('/') != std::string::npos) {
      throw bad_input(where + ": weight_map: " + printable(tensor) +
                      ": expected the name of a file beside the index");
    }
    files.insert(value.get<std::string>());
  }
  return {files.begin(), files.end()};
}

std::optional<std::string> parse_etag(std::string_view header) {
  if (header.starts_with("W/")) header.remove_prefix(2);
  if (header.size() >= 2 && header.front() == '"' && header.back() == '"') {
    header = header.substr(1, header.size() - 2);
  }
  if ((header.size() != 40 && header.size() != 64) ||
      header.find_first_not_of("0123456789abcdef") != std::string_view::npos) {
    return std::nullopt;
  }
  return std::string(header);
}

std::optional<int64_t> parse_size(std::string_view header) {
  int64_t value = 0;
  const char* end = header.data() + header.size();
  const auto [stop, failure] = std::from_chars(header.data(), end, value);
  if (header.empty() || header[0] == '-' || failure != std::errc() || stop != end ||
      value >= kMostBytes) {
    return std::nullopt;
  }
  return value;
}

std::optional<ContentRange> parse_content_range(std::string_view header) {
  constexpr std::string_view kUnit = "bytes ";
  const size_t dash = header.find('-'), slash = header.find('/');
  if (!header.starts_with(kUnit) || dash == std::string_view::npos ||
      slash == std::string_view::npos || slash < dash) {
    return std::nullopt;
  }
  const auto first = parse_size(header.substr(kUnit.size(), dash - kUnit.size()));
  const auto last = parse_size(header.substr(dash + 1, slash - dash - 1));
  const auto total = parse_size(header.substr(slash + 1));
  if (!first || !last || !total || *first > *last || *last >= *total) return std::nullopt;
  return ContentRange{*first, *last, *total};
}

}  // namespace billm
