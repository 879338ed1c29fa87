// See packed_result.h.
#include "packed_result.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "billm/pack/packed_checkpoint.h"
#include "block_shard.h"
#include "result_files.h"

namespace billm {
namespace {

// Tensors of the original that the result has in another form, or twice.
std::set<std::string> replaced_tensors(const Model& model, const QuantizeRequest& request,
                                       const QuantizeReport& report) {
  const ModelSpec& spec = model.spec();
  std::set<std::string> replaced;
  for (const LayerReport& layer : report.layers) replaced.insert(layer.name + ".weight");
  for (int64_t b = 0; request.tune && b < spec.blocks(); ++b) {
    for (const std::string& norm : norm_names(spec, b)) replaced.insert(norm);
  }
  // A .bin file lists a tied head beside the embedding whose storage it shares.
  const Checkpoint& source = model.checkpoint();
  if (spec.head != spec.embed &&
      source.tensor(spec.head).data.data() == source.tensor(spec.embed).data.data()) {
    replaced.insert(spec.head);
  }
  return replaced;
}

}  // namespace

void sum_up(const Journal& journal, QuantizeReport* report) {
  double weights = 0, nominal = 0, stored = 0;
  for (const JournalBlock& block : journal.blocks) {
    for (const LayerReport& layer : block.layers) {
      const auto count = static_cast<double>(layer.rows * layer.cols);
      weights += count;
      nominal += count * layer.nominal_bits;
      stored += count * layer.stored_bits;
      report->layers.push_back(layer);
    }
    if (block.tune) report->tune.push_back(*block.tune);
  }
  report->nominal_bits = nominal / weights;
  report->stored_bits = stored / weights;
}

std::vector<WrittenFile> write_result(const Model& model, const QuantizeRequest& request,
                                      const Journal& journal, const QuantizeReport& report,
                                      const std::filesystem::path& directory) {
  const Checkpoint& source = model.checkpoint();
  const int64_t blocks = model.spec().blocks();
  std::vector<std::string> shards;
  std::vector<WrittenFile> files;
  for (const JournalBlock& block : journal.blocks) {
    shards.push_back(block.shard.name);
    files.push_back(block.shard);
  }
  shards.push_back(shard_name(blocks, blocks + 1));
  files.push_back(
      write_rest(source, replaced_tensors(model, request, report), {}, directory, shards.back()));
  write_index(directory, shards);
  const int version = result_version(directory, shards);
  write_config(source, request.method, version, report.nominal_bits, report.stored_bits, directory);
  std::vector<std::string> names = copy_side_files(source.directory(), directory);
  names.insert(names.end(), {"config.json", "model.safetensors.index.json"});
  for (const std::string& name : names) files.push_back(written_file(directory, name));

  nlohmann::ordered_json head = {{"format_version", version},
                                 {"settings", journal.settings},
                                 {"nominal_bits", report.nominal_bits},
                                 {"stored_bits", report.stored_bits}};
  for (const LayerReport& layer : report.layers) {
    nlohmann::ordered_json json;
    to_json(json, layer);
    head["layers"].push_back(std::move(json));
  }
  for (const TuneReport& tune : report.tune) {
    nlohmann::ordered_json json;
    to_json(json, tune);
    json.erase("seconds");  // the same bytes on every run
    head["tune"].push_back(std::move(json));
  }
  write_manifest(directory, head, files);
  return files;
}

}  // namespace billm
