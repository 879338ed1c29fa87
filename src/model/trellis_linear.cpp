// See trellis_linear.h.
#include "trellis_linear.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "billm/base/half.h"
#include "shared_pieces.h"

namespace billm {
namespace {

using kernels::kMaxTrellisTokens;
using kernels::kTrellisTileRows;

// From so many tokens on, tiles are decoded to fp32 and multiplied.
constexpr int64_t kDecodedTokens = 32;
constexpr int64_t kDecodedTiles = 4, kPieces = 4;
// With fewer: tiles that a thread takes at a time.
constexpr int64_t kFewestTiles = 2;

kernels::TrellisTiles make_tiles(const kernels::TrellisTable& table, const PackedTrellis& packed) {
  const TrellisFormat& format = packed.format;
  const std::vector<int32_t> gains = trellis_gains(format.rates);
  std::vector<kernels::TrellisPlaneSource> planes;
  for (int p = 0; p < format.planes(); ++p) {
    planes.push_back({format.rates[static_cast<size_t>(p)],
                      static_cast<float>(gains[static_cast<size_t>(p)]),
                      reinterpret_cast<const uint8_t*>(packed.codes(p))});
  }
  std::vector<float> scale = packed.row_scales();
  for (float& each : scale) each = std::ldexp(each, -kTrellisShift);
  return {format.rows, format.cols, table, planes, scale.data()};
}

}  // namespace

TrellisRoom::TrellisRoom(WorkerTeam& threads)
    : team(threads),
      table(kTrellisTable),
      inputs(kMaxTrellisTokens),
      decoded(static_cast<size_t>(threads.size())) {}

TrellisLinear::TrellisLinear(TrellisRoom& room, const PackedTrellis& packed)
    : room_(room), tiles_(make_tiles(room.table, packed)) {}

at::Tensor TrellisLinear::apply(const at::Tensor& x) const {
  const at::Tensor input = x.contiguous();
  const int64_t tokens = input.size(0), rows = tiles_.view().rows, cols = tiles_.view().cols;
  at::Tensor result = at::empty({tokens, rows}, input.options());
  const float* from = input.const_data_ptr<float>();
  float* to = result.mutable_data_ptr<float>();
  if (tokens >= kDecodedTokens) {
    multiply_decoded(from, tokens, to);
    return result;
  }
  for (int64_t first = 0; first < tokens; first += kMaxTrellisTokens) {
    const int64_t count = std::min<int64_t>(kMaxTrellisTokens, tokens - first);
    multiply(from + first * cols, count, to + first * rows);
  }
  return result;
}

void TrellisLinear::multiply(const float* x, int64_t tokens, float* y) const {
  const kernels::TrellisTilesView& view = tiles_.view();
  std::vector<kernels::TrellisInput>& inputs = room_.inputs;
  for (int64_t t = 0; t < tokens; ++t) inputs[static_cast<size_t>(t)].reserve(view.cols);
  const int64_t chunks = kernels::TrellisInput::chunks(view.cols), team = room_.team.size();
  const int64_t at_once = std::max(kFewestTiles, view.tiles / (16 * team));
  std::atomic<int64_t> next{0};
  room_.team.run([&](int worker) {
    // Each worker its share of the chunks of all tokens.
    const int64_t first = chunks * worker / team, end = chunks * (worker + 1) / team;
    for (int64_t t = 0; t < tokens; ++t) {
      inputs[static_cast<size_t>(t)].fill(room_.table, view.cols, x + t * view.cols, first,
                                          end - first);
    }
    room_.team.barrier();
    for (int64_t tile = next.fetch_add(at_once); tile < view.tiles;
         tile = next.fetch_add(at_once)) {
      kernels::trellis_gemv(view, inputs.data(), static_cast<int>(tokens), tile,
                            std::min(at_once, view.tiles - tile), y, view.rows);
    }
  });
}

void TrellisLinear::multiply_decoded(const float* x, int64_t tokens, float* y) const {
  const kernels::TrellisTilesView& view = tiles_.view();
  // Pieces that depend on the shape alone, since sums of a product depend on how it is cut.
  const int64_t most = (view.tiles + kDecodedTiles - 1) / kDecodedTiles;
  const int64_t pieces = (most + kPieces - 1) / kPieces * kPieces;
  const int64_t at_once = (view.tiles + pieces - 1) / pieces, stride = at_once * kTrellisTileRows;
  share_pieces(room_.team, pieces, [&](int64_t piece, int worker) {
    const int64_t tile = piece * at_once;
    if (tile >= view.tiles) return;  // few rows
    const at::NoGradGuard no_grad;
    std::vector<float>& weight = room_.decoded[static_cast<size_t>(worker)];
    weight.resize(std::max(weight.size(), static_cast<size_t>(view.cols * stride)));
    const int64_t tiles = std::min(at_once, view.tiles - tile), first = tile * kTrellisTileRows;
    const int64_t rows = std::min(tiles * kTrellisTileRows, view.rows - first);
    kernels::trellis_decode(view, tile, tiles, weight.data(), stride);
    const at::Tensor in = at::from_blob(const_cast<float*>(x), {tokens, view.cols}, at::kFloat);
    const at::Tensor w = at::from_blob(weight.data(), {view.cols, rows}, {stride, 1}, at::kFloat);
    at::Tensor part = at::from_blob(y + first, {tokens, rows}, {view.rows, 1}, at::kFloat);
    at::mm_out(part, in, w);
  });
}

}  // namespace billm
