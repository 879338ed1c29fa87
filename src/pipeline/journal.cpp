// See journal.h.
#include "journal.h"

#include <atomic>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/base/parallel.h"
#include "billm/base/sha256.h"

namespace billm {
namespace {

void check_shard(const std::filesystem::path& directory, const WrittenFile& file) {
  const std::filesystem::path path = directory / file.name;
  if (sha256_file(path) != file.sha256) {
    throw bad_input(path.string() + ": changed since it was written",
                    "start again with --overwrite");
  }
}

bool is_as_written(const std::filesystem::path& directory, const WrittenFile& file) {
  const std::filesystem::path path = directory / file.name;
  return is_file(path) && sha256_file(path) == file.sha256;
}

}  // namespace

void check_settings(const nlohmann::ordered_json& old, const nlohmann::ordered_json& now) {
  std::string differences;
  const auto compare = [&](const std::string& key) {
    // With the order of keys: of a plan's patterns the last holds.
    const auto before = old.value(key, nlohmann::ordered_json());
    const auto after = now.value(key, nlohmann::ordered_json());
    if (before == after) return;
    differences += (differences.empty() ? "" : "; ") + key + " was " + dump_json(before) + ", is " +
                   dump_json(after);
  };
  for (const auto& [key, value] : now.items()) compare(key);
  for (const auto& [key, value] : old.items()) {  // what only some runs have
    if (!now.contains(key)) compare(key);
  }
  if (!differences.empty()) {
    throw Error(ErrorCode::kUsage, "--resume: settings have changed: " + differences,
                "run with the old settings, or start again with --overwrite");
  }
}

nlohmann::ordered_json file_json(const WrittenFile& file) {
  return {{"name", file.name}, {"sha256", file.sha256}, {"bytes", file.bytes}};
}

WrittenFile file_from(const nlohmann::json& json) {
  return {json.at("name"), json.at("sha256"), json.at("bytes")};
}

nlohmann::ordered_json journal_json(const Journal& journal) {
  nlohmann::ordered_json json;
  json["settings"] = journal.settings;
  json["plan"] = journal.plan;
  json["sinks"] = journal.sinks;
  json["hidden"] = nlohmann::ordered_json::array();
  for (const WrittenFile& file : journal.hidden) json["hidden"].push_back(file_json(file));
  json["hidden_block"] = journal.hidden_block;
  json["blocks"] = nlohmann::ordered_json::array();
  for (const JournalBlock& block : journal.blocks) {
    nlohmann::ordered_json entry = {{"shard", file_json(block.shard)}};
    for (const LayerReport& layer : block.layers) entry["layers"].push_back(layer);
    if (block.tune) entry["tune"] = *block.tune;
    if (block.sinks) entry["sinks"] = *block.sinks;
    json["blocks"].push_back(std::move(entry));
  }
  return json;
}

Journal journal_from(const nlohmann::ordered_json& json) {
  Journal journal;
  journal.settings = json.at("settings");
  journal.plan = json.at("plan").get<LayerPlan>();
  if (json.contains("sinks")) journal.sinks = json.at("sinks").get<SinksBySequence>();
  for (const auto& file : json.at("hidden")) journal.hidden.push_back(file_from(file));
  // Once the states were always those of the next block.
  journal.hidden_block = json.value("hidden_block", static_cast<int64_t>(json.at("blocks").size()));
  for (const auto& entry : json.at("blocks")) {
    JournalBlock block{file_from(entry.at("shard")), {}, {}, {}};
    if (entry.contains("tune")) block.tune = entry.at("tune").get<TuneReport>();
    if (entry.contains("sinks")) block.sinks = entry.at("sinks").get<SinkReport>();
    block.layers = entry.at("layers").get<std::vector<LayerReport>>();
    journal.blocks.push_back(std::move(block));
  }
  return journal;
}

void write_journal(const std::filesystem::path& directory, const Journal& journal) {
  write_file_atomic(directory / kJournalName, dump_json(journal_json(journal), 1) + "\n");
}

bool read_journal(const std::filesystem::path& directory, const nlohmann::ordered_json& settings,
                  int threads, Journal* journal) {
  const std::filesystem::path path = directory / kJournalName;
  if (!std::filesystem::exists(path)) return false;
  try {
    const auto json = parse_ordered_json(read_text_file(path));
    check_settings(json.at("settings"), settings);
    *journal = journal_from(json);
    journal->settings = settings;
  } catch (const nlohmann::json::exception& error) {
    throw bad_input(path.string() + ": not a journal of billm: " + error.what(),
                    "start again with --overwrite");
  }
  parallel_for(static_cast<int64_t>(journal->blocks.size()), threads,
               [&](int64_t b) { check_shard(directory, journal->blocks[b].shard); });
  std::atomic<bool> hidden_there = true;
  parallel_for(static_cast<int64_t>(journal->hidden.size()), threads, [&](int64_t i) {
    if (!is_as_written(directory, journal->hidden[i])) hidden_there = false;
  });
  const auto finished = static_cast<int64_t>(journal->blocks.size());
  if (journal->hidden_block < 0 || journal->hidden_block > finished) hidden_there = false;
  if (!hidden_there) journal->hidden.clear();
  return true;
}

}  // namespace billm
