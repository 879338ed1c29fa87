// The end of a quantization: totals over the layers, and the result's files besides the shards of
// the blocks.
#pragma once

#include <filesystem>
#include <vector>

#include "billm/model/model.h"
#include "billm/pipeline/quantize_model.h"
#include "journal.h"

namespace billm {

// Layers, tuning and mean bits of all blocks.
void sum_up(const Journal& journal, QuantizeReport* report);

// Writes the untouched tensors, index, config.json, tokenizer and manifest; all files of the result
// but the manifest.
std::vector<WrittenFile> write_result(const Model& model, const QuantizeRequest& request,
                                      const Journal& journal, const QuantizeReport& report,
                                      const std::filesystem::path& directory);

}  // namespace billm
