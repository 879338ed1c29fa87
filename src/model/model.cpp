// Opening a model directory: see include/billm/model/model.h.
#include "billm/model/model.h"

#include "billm/base/error.h"

namespace billm {

Model::Model(const std::filesystem::path& directory, int threads) : checkpoint_(directory) {
  if (is_packed_model(checkpoint_)) {
    verify_manifest(directory, threads);
    packed_.emplace(checkpoint_);
  } else if (!checkpoint_.config().quantization_config.is_null()) {
    throw bad_input((directory / "config.json").string() +
                        ": quantization_config: expected none, or quant_method billm",
                    "give the original checkpoint, not one quantized by another tool");
  }
  spec_ = model_spec(checkpoint_);
  check_model(checkpoint_, spec_, packed());
  weights_.emplace(checkpoint_, packed());
}

}  // namespace billm
