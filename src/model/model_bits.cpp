// See include/billm/model/model_bits.h.
#include "billm/model/model_bits.h"

#include <filesystem>

namespace billm {

int64_t checkpoint_bytes(const Checkpoint& checkpoint) {
  int64_t total = 0;
  for (const TensorFile& shard : checkpoint.shards()) {
    total += static_cast<int64_t>(std::filesystem::file_size(shard.path()));
  }
  return total;
}

bool head_is_embedding(const Model& model) {
  const ModelSpec& spec = model.spec();
  const Checkpoint& checkpoint = model.checkpoint();
  if (spec.head == spec.embed) return true;
  // A .bin file lists a tied head beside the embedding whose storage it shares.
  return checkpoint.has(spec.head) && checkpoint.has(spec.embed) &&
         checkpoint.tensor(spec.head).data.data() == checkpoint.tensor(spec.embed).data.data();
}

int64_t parameters(const Model& model) {
  const ModelSpec& spec = model.spec();
  const int64_t all = quantized_weights(spec) + other_weights(spec);
  const bool counted_twice = spec.head != spec.embed && head_is_embedding(model);
  return all - (counted_twice ? spec.config.vocab_size * spec.config.embed_width : 0);
}

double file_bits(int64_t bytes, int64_t parameters) {
  return 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters);
}

ModelBits model_bits(const Model& model) {
  ModelBits bits;
  bits.parameters = parameters(model);
  bits.file_bytes = checkpoint_bytes(model.checkpoint());
  bits.file_bits = file_bits(bits.file_bytes, bits.parameters);
  if (const PackedModules* packed = model.packed()) {
    double bytes = 0, weights = 0;
    for (const std::string& module : model.spec().modules()) {
      if (packed->has(module)) {
        const auto [rows, cols] = packed->size(module);
        bytes += static_cast<double>(packed->bytes(module));
        weights += static_cast<double>(rows * cols);
      } else {
        const TensorView& weight = model.checkpoint().tensor(module + ".weight");
        bytes += static_cast<double>(weight.data.size());
        weights += static_cast<double>(weight.shape[0] * weight.shape[1]);
      }
    }
    bits.stored_bits = 8 * bytes / weights;
  }
  return bits;
}

}  // namespace billm
