// The files of a result besides its tensors: config.json, index, tokenizer, manifest
// (docs/format.md).
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "billm/checkpoint/checkpoint.h"
#include "billm/checkpoint/safetensors.h"
#include "billm/quantize/config.h"
#include "billm/report/report.h"
#include "journal.h"

namespace billm {

// "model-00003-of-00031.safetensors" (index from 0).
std::string shard_name(int64_t index, int64_t count);

// Copies tokenizer and generation files that are there. Returns their names.
std::vector<std::string> copy_side_files(const std::filesystem::path& from,
                                         const std::filesystem::path& to);

// The format version of a result with these shards: the highest of theirs.
int result_version(const std::filesystem::path& directory, const std::vector<std::string>& shards);

// config.json of `source` with the quantization_config of the result, in the first format version.
// `head_quantized`: the output head is stored as integer rows. `as_they_are`: linears of the blocks
// that are not quantized.
nlohmann::ordered_json packed_config(const Checkpoint& source, const MethodConfig& method,
                                     const MeanBits& bits, bool head_quantized,
                                     const std::vector<std::string>& as_they_are);

// model.safetensors.index.json for the safetensors files `shards` in `directory`.
void write_index(const std::filesystem::path& directory, const std::vector<std::string>& shards);

// Writes a safetensors file; its size and checksum.
WrittenFile write_tensors(const std::filesystem::path& directory, const std::string& name,
                          std::vector<TensorToWrite> tensors, const Metadata& metadata = {},
                          FileSync sync = FileSync::kYes);

// Size and checksum of a file just written.
WrittenFile written_file(const std::filesystem::path& directory, const std::string& name);

// manifest.json and manifest.sha256.
void write_manifest(const std::filesystem::path& directory, const nlohmann::ordered_json& head,
                    const std::vector<WrittenFile>& files);

// Removes what a killed run may have left: every file but `files`, the manifest and the journal.
void remove_others(const std::filesystem::path& directory, const std::vector<WrittenFile>& files);

}  // namespace billm
