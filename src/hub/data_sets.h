// The table of data sets, and where their files are on this machine or come from.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace billm {

// A part of a data set.
enum class DataPart { kTrain, kValidation, kTest };
const char* part_name(DataPart part);  // "train", "validation", "test"

struct DataSet {
  const char* name;
  // Data sets of the hub; the others are former names of the first, which is where it is loaded
  // from.
  std::vector<std::string> repositories;
  const char* revision;
  // Paths in the repository, by DataPart.
  const char* files[3];
  // Names of plain files of the same content in a directory of the user's, by DataPart; may be
  // null.
  const char* raw_files[3];
  bool sample;         // in such a directory *.jsonl, a sample without parts, will do, too
  const char* column;  // of parquet files
  const char* glue;    // between rows
};

const std::vector<DataSet>& data_sets();
const DataSet* find_data_set(const std::string& name);  // null if there is none

struct DataFiles {
  std::vector<std::filesystem::path> paths;  // one, or all *.jsonl of a directory
  DataPart part = DataPart::kTest;
};

// The first of `parts` that can be had, in the order of load_text's places. On the hub the first of
// `parts` is preferred to another one in the cache. Throws as load_text says.
DataFiles find_data_files(const DataSet& set, const std::vector<DataPart>& parts,
                          const std::filesystem::path& data_dir, bool quiet);

}  // namespace billm
