// Weights as fp32 tensors: see include/billm/model/weights.h.
#include "billm/model/weights.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "billm/checkpoint/dtype.h"

namespace billm {
namespace {

// Rows one thread converts at a time: small enough to balance threads, large enough to amortize
// starting an item. Any value gives the same result.
constexpr int64_t kTileRows = 64;

std::string where_of(const Checkpoint& checkpoint, const std::string& name) {
  return checkpoint.shard(name).path().filename().string() + ": " + name;
}

// [rows, columns] of a tensor of rank 1 (one row) or 2. Checks the dtype too, where the name is
// known.
struct Extent {
  int64_t rows, columns;
};

Extent extent(const Checkpoint& checkpoint, const std::string& name, const TensorView& view) {
  if (!is_weight_dtype(view.dtype)) {
    throw bad_input(where_of(checkpoint, name) + ": expected F16, BF16, F32 or F64, got " +
                    dtype_name(view.dtype));
  }
  if (view.shape.size() == 1) return {1, view.shape[0]};
  if (view.shape.size() == 2) return {view.shape[0], view.shape[1]};
  throw bad_input(where_of(checkpoint, name) + ": expected a vector or a matrix, got shape " +
                  shape_text(view.shape));
}

bool all_finite(std::span<const float> values) {
  constexpr uint32_t kExponent = 0x7f800000u;
  uint32_t found = 0;  // no early exit: this loop is to be vectorized
  for (const float value : values) {
    found |= (std::bit_cast<uint32_t>(value) & kExponent) == kExponent ? 1u : 0u;
  }
  return found == 0;
}

[[noreturn]] void throw_not_finite(const std::string& where, std::span<const float> values,
                                   int64_t first_row, int64_t columns) {
  const auto at = std::find_if(values.begin(), values.end(),
                               [](float value) { return !(value - value == 0.0f); });
  const int64_t index = at - values.begin();
  throw bad_input(
      where + ": " + (*at != *at ? "NaN" : "infinity") + " at " +
          shape_text(std::vector<int64_t>{first_row + index / columns, index % columns}),
      "the checkpoint is damaged or was trained to overflow; get it again");
}

void convert_rows(const std::string& where, const TensorView& view, int64_t columns, int64_t first,
                  int64_t count, float* out) {
  const int64_t row_bytes = dtype_bytes(view.dtype) * columns;
  const std::span<float> values(out, static_cast<size_t>(count * columns));
  convert_to_float(view.dtype,
                   view.data.subspan(static_cast<size_t>(first * row_bytes),
                                     static_cast<size_t>(count * row_bytes)),
                   values);
  if (!all_finite(values)) throw_not_finite(where, values, first, columns);
}

// Calls body(first, count) for row tiles in parallel.
void for_row_tiles(int64_t rows, int threads, const std::function<void(int64_t, int64_t)>& body) {
  parallel_for((rows + kTileRows - 1) / kTileRows, threads, [&](int64_t tile) {
    const int64_t first = tile * kTileRows;
    body(first, std::min(kTileRows, rows - first));
  });
}

[[noreturn]] void throw_no_token(const std::string& where, int32_t id, int64_t rows) {
  throw bad_input(where + ": token id " + std::to_string(id) + " is outside the vocabulary of " +
                      std::to_string(rows),
                  "the tokens were made with another model's tokenizer");
}

// "model.embed_tokens" of "model.embed_tokens.weight".
std::string module_of_weight(const std::string& name) {
  return name.ends_with(".weight") ? name.substr(0, name.rfind('.')) : "";
}

}  // namespace

const IntegerRows* ModelWeights::integer_rows(const std::string& name) const {
  return packed_ == nullptr ? nullptr : packed_->integer_rows(module_of_weight(name));
}

at::Tensor ModelWeights::decoded_rows(const IntegerRows& stored, int64_t first, int64_t count,
                                      int threads) const {
  at::Tensor result = at::empty({count, stored.cols}, at::kFloat);
  float* out = result.mutable_data_ptr<float>();
  for_row_tiles(count, threads, [&](int64_t begin, int64_t rows) {
    decode_rows(stored, first + begin, rows, out + begin * stored.cols);
  });
  return result;
}

void ModelWeights::release(const std::string& name) const {
  if (integer_rows(name) == nullptr) return checkpoint_.release(name);
  for (const std::string& tensor : PackedModules::tensors_of_rows(module_of_weight(name))) {
    checkpoint_.release(tensor);
  }
}

at::Tensor ModelWeights::dense(const std::string& name, int threads) const {
  if (const IntegerRows* stored = integer_rows(name)) {
    at::Tensor result = decoded_rows(*stored, 0, stored->rows, threads);
    release(name);
    return result;
  }
  const TensorView& view = checkpoint_.tensor(name);
  const auto [rows, columns] = extent(checkpoint_, name, view);
  at::Tensor result = at::empty(view.shape, at::kFloat);
  float* out = result.mutable_data_ptr<float>();
  const std::string where = where_of(checkpoint_, name);
  for_row_tiles(rows, threads, [&](int64_t first, int64_t count) {
    convert_rows(where, view, columns, first, count, out + first * columns);
  });
  checkpoint_.release(name);
  return result;
}

at::Tensor decode_weight(const PackedLayer& packed, const std::string& module, int threads) {
  const int64_t rows = packed.rows(), columns = packed.cols();
  at::Tensor result = at::empty({rows, columns}, at::kFloat);
  float* out = result.mutable_data_ptr<float>();
  decode(packed, threads, out);
  for_row_tiles(rows, threads, [&](int64_t first, int64_t count) {
    const std::span<const float> values(out + first * columns,
                                        static_cast<size_t>(count * columns));
    if (!all_finite(values)) throw_not_finite(module, values, first, columns);
  });
  return result;
}

void ModelWeights::release_packed(const std::string& module) const {
  for (const std::string& tensor : packed_->tensors(module)) checkpoint_.release(tensor);
}

at::Tensor ModelWeights::linear(const std::string& module, int threads) const {
  if (!is_packed(module)) return dense(module + ".weight", threads);
  at::Tensor result = decode_weight(packed_->open(module), module, threads);
  release_packed(module);
  return result;
}

at::Tensor ModelWeights::rows(const std::string& name, int64_t first, int64_t count) const {
  if (const IntegerRows* stored = integer_rows(name)) {
    if (first < 0 || count < 0 || first + count > stored->rows) {
      throw Error(ErrorCode::kFailure, name + ": rows past the end");
    }
    return decoded_rows(*stored, first, count, 1);
  }
  const TensorView& view = checkpoint_.tensor(name);
  const auto [rows, columns] = extent(checkpoint_, name, view);
  if (first < 0 || count < 0 || first + count > rows) {
    throw Error(ErrorCode::kFailure, where_of(checkpoint_, name) + ": rows past the end");
  }
  at::Tensor result = at::empty({count, columns}, at::kFloat);
  convert_rows(where_of(checkpoint_, name), view, columns, first, count,
               result.mutable_data_ptr<float>());
  return result;
}

at::Tensor ModelWeights::gather(const std::string& name, std::span<const int32_t> ids) const {
  if (const IntegerRows* stored = integer_rows(name)) {
    at::Tensor result = at::empty({static_cast<int64_t>(ids.size()), stored->cols}, at::kFloat);
    float* out = result.mutable_data_ptr<float>();
    for (const int32_t id : ids) {
      if (id < 0 || id >= stored->rows) throw_no_token(name, id, stored->rows);
      decode_rows(*stored, id, 1, out);
      out += stored->cols;
    }
    return result;
  }
  const TensorView& view = checkpoint_.tensor(name);
  const auto [rows, columns] = extent(checkpoint_, name, view);
  const std::string where = where_of(checkpoint_, name);
  at::Tensor result = at::empty({static_cast<int64_t>(ids.size()), columns}, at::kFloat);
  float* out = result.mutable_data_ptr<float>();
  for (const int32_t id : ids) {
    if (id < 0 || id >= rows) throw_no_token(where, id, rows);
    convert_rows(where, view, columns, id, 1, out);
    out += columns;
  }
  return result;
}

}  // namespace billm
