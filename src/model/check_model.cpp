// check_model() of include/billm/model/family.h: every tensor that a model of the family has, with
// its shape, before anything reads one.
#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/model/family.h"
#include "billm/pack/packed_checkpoint.h"

namespace billm {
namespace {

class ModelCheck {
 public:
  ModelCheck(const Checkpoint& checkpoint, const ModelSpec& spec, const PackedModules* packed)
      : checkpoint_(checkpoint), spec_(spec), packed_(packed) {}

  void run() const {
    const Family& family = *spec_.family;
    const ModelConfig& config = spec_.config;
    const int64_t width = config.embed_width;
    check_matrix(spec_.embed, {config.vocab_size, width});
    check_matrix(spec_.head, {config.vocab_size, width});
    check_integer_rows();
    if (spec_.has_projections()) {
      check_module(spec_.base + family.project_in, {config.hidden_size, width}, true, false);
      check_module(spec_.base + family.project_out, {width, config.hidden_size}, true, false);
    }
    if (family.position == PositionKind::kLearned) {
      check(spec_.base + family.positions + ".weight",
            {config.max_position_embeddings + kPositionOffset, config.hidden_size});
    }
    for (int64_t block = 0; block < spec_.blocks(); ++block) check_block(block);
    if (spec_.has_final_norm()) {
      check_module(spec_.final_norm(), {config.hidden_size}, spec_.norms_have_weights(),
                   spec_.norms_have_biases());
    }
  }

 private:
  void check(const std::string& tensor, const std::vector<int64_t>& shape) const {
    checkpoint_.check_tensor(tensor, shape);
  }

  // A tensor "NAME.weight" as it is, or NAME as integer rows.
  void check_matrix(const std::string& tensor, const std::vector<int64_t>& shape) const {
    const std::string module = tensor.substr(0, tensor.rfind('.'));
    const IntegerRows* const rows = packed_ != nullptr ? packed_->integer_rows(module) : nullptr;
    if (rows == nullptr) return check(tensor, shape);
    if (const std::vector<int64_t> got = {rows->rows, rows->cols}; got != shape) {
      throw bad_input(checkpoint_.directory().string() + ": " + module + ": expected " +
                      shape_text(shape) + ", got " + shape_text(got));
    }
  }

  // Nothing else is read from them.
  void check_integer_rows() const {
    if (packed_ == nullptr) return;
    for (const auto& [module, rows] : packed_->all_integer_rows()) {
      const std::string where = checkpoint_.directory().string() + ": " + module;
      if (module + ".weight" != spec_.embed && module + ".weight" != spec_.head) {
        throw bad_input(where + ": integer rows: expected only the embedding and the output head");
      }
      if (checkpoint_.has(module + ".weight")) {
        throw bad_input(where + ": expected either integer rows or a weight, got both");
      }
    }
  }

  void check_block(int64_t block) const {
    const std::string prefix = spec_.block_prefix(block);
    for (const NormSpec& norm : spec_.family->norms) {
      check_module(prefix + norm.suffix, {norm.width(spec_.config)}, spec_.norms_have_weights(),
                   spec_.norms_have_biases());
    }
    for (const LinearSpec& linear : spec_.family->linears) {
      const std::string module = spec_.module(block, linear);
      const std::vector<int64_t> shape = {linear.out_width(spec_.config),
                                          linear.in_width(spec_.config)};
      const bool is_packed = packed_ != nullptr && packed_->has(module);
      check_module(module, shape, !is_packed, linear.has_bias(spec_.config));
      if (!is_packed) continue;
      const auto [rows, cols] = packed_->size(module);
      const std::vector<int64_t> got = {rows, cols};
      if (got != shape) {
        throw bad_input(checkpoint_.directory().string() + ": " + module + ": expected " +
                        shape_text(shape) + ", got " + shape_text(got));
      }
    }
  }

  // A bias has as many values as the weight has rows.
  void check_module(const std::string& module, const std::vector<int64_t>& shape, bool weight,
                    bool bias) const {
    if (weight) check(module + ".weight", shape);
    if (bias) {
      check(module + ".bias", {shape.front()});
    } else if (checkpoint_.has(module + ".bias")) {
      throw bad_input(checkpoint_.directory().string() + ": " + module +
                          ".bias: expected no bias in this module",
                      "config.json and the tensors do not match");
    }
  }

  const Checkpoint& checkpoint_;
  const ModelSpec& spec_;
  const PackedModules* packed_;
};

}  // namespace

void check_model(const Checkpoint& checkpoint, const ModelSpec& spec, const PackedModules* packed) {
  ModelCheck(checkpoint, spec, packed).run();
}

}  // namespace billm
