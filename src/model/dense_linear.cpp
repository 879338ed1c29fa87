// See include/billm/model/dense_linear.h.
#include "billm/model/dense_linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "shared_pieces.h"

namespace billm {
namespace {

// Pieces of a product. Of few tokens, where reading the weight takes the time: so many bytes of it,
// about 20 microseconds. Of more: sizes at which packing the factors anew for each piece costs a
// twentieth.
constexpr int64_t kFewTokens = 16;
constexpr int64_t kPieceBytes = 256 << 10, kFewestRows = 64;
constexpr int64_t kPieceTokens = 256, kPieceRows = 256;

}  // namespace

at::Tensor DenseLinear::apply_with_bias(const at::Tensor& x, const at::Tensor& bias) const {
  if (team_ == nullptr) return at::addmm(bias, x, weight_.t());
  return LinearOperator::apply_with_bias(x, bias);
}

at::Tensor DenseLinear::apply(const at::Tensor& x) const {
  if (team_ == nullptr) return at::mm(x, weight_.t());
  const int64_t tokens = x.size(0), rows = weight_.size(0), columns = weight_.size(1);
  const bool few = tokens <= kFewTokens;
  const int64_t piece_tokens = few ? tokens : kPieceTokens;
  const int64_t most_rows = few ? std::max(kFewestRows, kPieceBytes / (4 * columns)) : kPieceRows;
  const int64_t across = (rows + most_rows - 1) / most_rows;
  const int64_t piece_rows = (rows + across - 1) / across;
  const int64_t pieces = across * ((tokens + piece_tokens - 1) / piece_tokens);
  at::Tensor result = at::empty({tokens, rows}, x.options());
  share_pieces(*team_, pieces, [&](int64_t piece, int) {
    const int64_t row = piece % across * piece_rows, token = piece / across * piece_tokens;
    const int64_t width = std::min(piece_rows, rows - row);
    const int64_t height = std::min(piece_tokens, tokens - token);
    at::Tensor part = result.narrow(0, token, height).narrow(1, row, width);
    at::mm_out(part, x.narrow(0, token, height), weight_.narrow(0, row, width).t());
  });
  return result;
}

}  // namespace billm
