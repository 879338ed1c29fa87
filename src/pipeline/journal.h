// What an unfinished run has done: written after every block, read by --resume.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "billm/quantize/layer_plan.h"
#include "billm/report/report.h"

namespace billm {

struct WrittenFile {
  std::string name, sha256;
  int64_t bytes = 0;
};

struct JournalBlock {
  WrittenFile shard;
  std::vector<LayerReport> layers;
  std::optional<TuneReport> tune;
  std::optional<SinkReport> sinks;
};

// Positions with massive activations (sinks.h) by the number of their sequence.
using SinksBySequence = std::map<int64_t, std::vector<int64_t>>;

struct Journal {
  nlohmann::ordered_json settings;   // everything that decides the result's bytes
  LayerPlan plan;                    // empty if all layers have the run's settings
  SinksBySequence sinks;             // those that count more; empty if none do
  std::vector<JournalBlock> blocks;  // finished ones, in order
  std::vector<WrittenFile> hidden;   // inputs of block hidden_block, of all processes
  int64_t hidden_block = 0;          // at most blocks.size()
};

nlohmann::ordered_json file_json(const WrittenFile& file);
WrittenFile file_from(const nlohmann::json& json);
nlohmann::ordered_json journal_json(const Journal& journal);
// Throws nlohmann::json::exception for what journal_json() does not write.
Journal journal_from(const nlohmann::ordered_json& json);

// Written atomically into `directory`.
inline constexpr const char* kJournalName = "journal.json";
void write_journal(const std::filesystem::path& directory, const Journal& journal);

// Throws Error{kUsage} "--resume: NAME was OLD, is NEW" unless `old` and `now` are the same.
void check_settings(const nlohmann::ordered_json& old, const nlohmann::ordered_json& now);

// True and filled if there is a journal; without `hidden` if one of its files is missing or
// changed. Throws Error{kUsage} "--resume: NAME was OLD, is NEW" if its settings differ from
// `settings`, Error{kBadInput} if a file of a finished block is missing or changed.
bool read_journal(const std::filesystem::path& directory, const nlohmann::ordered_json& settings,
                  int threads, Journal* journal);

}  // namespace billm
