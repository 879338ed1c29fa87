// ModelWeights: the weights of a dense or packed model as fp32 tensors, converted one at a time and
// never all held: what is returned belongs to the caller. The mapped pages that were read of a
// dense tensor are given back to the system.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>

#include "billm/checkpoint/checkpoint.h"
#include "billm/pack/packed_checkpoint.h"

namespace billm {

// The weight [out, in] of a packed linear as fp32 on the CPU. Throws Error{kBadInput} "MODULE: NaN
// at [r, c]" where it is not finite.
at::Tensor decode_weight(const PackedLayer& packed, const std::string& module, int threads);

class ModelWeights {
 public:
  // Keeps both references; `packed` may be null (a dense model).
  ModelWeights(const Checkpoint& checkpoint, const PackedModules* packed)
      : checkpoint_(checkpoint), packed_(packed) {}

  // A whole tensor as fp32 on the CPU, in its own shape (rank 1 or 2). Every method here throws
  // Error{kBadInput} "FILE: tensor: NaN at [r, c]" where a weight is not finite. Integer rows are
  // decoded here as in rows() and gather().
  at::Tensor dense(const std::string& name, int threads) const;

  bool is_packed(const std::string& module) const {
    return packed_ != nullptr && packed_->has(module);
  }

  // The weight [out, in] of a linear: decoded from its planes if packed, else "<module>.weight".
  at::Tensor linear(const std::string& module, int threads) const;

  // The integers of a matrix outside of the blocks ("NAME.weight"); null where it is stored as it
  // was.
  const IntegerRows* integer_rows(const std::string& name) const;

  // The planes of a packed linear.
  PackedLayer packed(const std::string& module) const { return packed_->open(module); }

  // Rows [first, first + count) of a matrix, [count, columns]: the output head in pieces.
  at::Tensor rows(const std::string& name, int64_t first, int64_t count) const;

  // The rows named by `ids`, [ids, columns]: an embedding. Throws Error{kBadInput} for an id that
  // is no row.
  at::Tensor gather(const std::string& name, std::span<const int32_t> ids) const;

  // Gives the pages of a packed linear, or of a tensor that rows() or gather() have read, back to
  // the system.
  void release_packed(const std::string& module) const;
  void release(const std::string& name) const;

 private:
  at::Tensor decoded_rows(const IntegerRows& stored, int64_t first, int64_t count,
                          int threads) const;

  const Checkpoint& checkpoint_;
  const PackedModules* packed_;
};

}  // namespace billm
