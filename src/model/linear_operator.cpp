// Packed linears on the CPU: see include/billm/model/linear_operator.h.
#include "billm/model/linear_operator.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "billm/base/worker_team.h"
#include "billm/model/product_linear.h"
#include "billm/pack/plane_tiles.h"
#include "cuda_runner.h"
#include "factor_operators.h"
#include "kernels/cpu/gemv.h"
#include "kernels/cpu/rotation.h"
#include "kernels/cpu/targets.h"
#include "shared_pieces.h"
#include "trellis_linear.h"

namespace billm {
namespace {

using kernels::kMaxGemvTokens;

// Tokens whose tables are held at once: 4 bytes a column and token, 1 MB with rows of 4096.
constexpr int64_t kTokensAtOnce = 64;
// With several tokens: tiles that stay in the cache while all tokens pass them.
constexpr int64_t kTilesAtOnce = 8;
// With one: tiles that a thread takes at a time, so that none waits long for another.
constexpr int64_t kFewestTiles = 8;

// From so many tokens on, layers of more than 2 planes, with scattered integers, or of 2 planes and
// few rows (for which tables take too long to make) are multiplied by tiles decoded to fp32.
// docs/measurements/speed.md, "Prefill", has both ways' times.
constexpr int64_t kDecodedTokens = 32;
constexpr int64_t kFewRows = 2048;
constexpr int64_t kDecodedRows = 256, kPieces = 4;

kernels::VectorRotation make_vector_rotation(const Rotation& rotation) {
  const RotationTables tables = make_rotation_tables(rotation);
  return {tables.odd,        tables.power, tables.signs.data(),
          tables.dct.data(), tables.scale, rotation.transposed};
}

}  // namespace

struct CpuRunner::Impl {
  explicit Impl(int threads)
      : team(threads),
        inputs(kTokensAtOnce),
        decoded(static_cast<size_t>(team.size())),
        trellis(team) {}
  WorkerTeam team;
  std::vector<kernels::GemvInput> inputs;
  std::vector<std::vector<float>> decoded;  // by worker: tiles of a layer
  TrellisRoom trellis;
};

class CpuLinear : public LinearOperator {
 public:
  CpuLinear(CpuRunner::Impl& runner, PlaneTiles tiles) : runner_(runner), tiles_(std::move(tiles)) {
    const kernels::PlaneTilesView& view = tiles_.view();
    decodes_ = view.scattered.start != nullptr;
    for (int g = 0; g < view.group_count; ++g) {
      const int planes = view.groups[g].planes;
      decodes_ = decodes_ || planes > 2 || (planes == 2 && view.rows < kFewRows);
    }
  }

  int64_t bytes() const override { return tiles_.bytes(); }
  at::Tensor apply(const at::Tensor& x) const override {
    const at::Tensor input = x.contiguous();
    const int64_t tokens = input.size(0), rows = tiles_.view().rows;
    at::Tensor result = at::empty({tokens, rows}, input.options());
    const float* from = input.const_data_ptr<float>();
    float* to = result.mutable_data_ptr<float>();
    if (decodes_ && tokens >= kDecodedTokens) {
      multiply_decoded(from, tokens, to);
      return result;
    }
    for (int64_t first = 0; first < tokens; first += kTokensAtOnce) {
      const int64_t count = std::min(kTokensAtOnce, tokens - first);
      multiply(from + first * input.size(1), count, to + first * rows);
    }
    return result;
  }

 private:
  // x [count, cols] -> y [count, rows].
  void multiply(const float* x, int64_t count, float* y) const {
    const kernels::PlaneTilesView& view = tiles_.view();
    for (int64_t t = 0; t < count; ++t) runner_.inputs[static_cast<size_t>(t)].reserve(view);
    const int team = runner_.team.size();
    const int64_t at_once =
        count > kMaxGemvTokens ? kTilesAtOnce : std::max(kFewestTiles, view.tiles() / (16 * team));
    std::atomic<int64_t> next{0};
    runner_.team.run([&](int worker) {
      fill(x, count, worker, team);
      runner_.team.barrier();
      for (int64_t tile = next.fetch_add(at_once); tile < view.tiles();
           tile = next.fetch_add(at_once)) {
        const int64_t tiles = std::min(at_once, view.tiles() - tile);
        for (int64_t t = 0; t < count; t += kMaxGemvTokens) {
          kernels::gemv(view, runner_.inputs.data() + t,
                        static_cast<int>(std::min<int64_t>(kMaxGemvTokens, count - t)), tile, tiles,
                        y + t * view.rows, view.rows);
        }
      }
    });
  }

  void multiply_decoded(const float* x, int64_t tokens, float* y) const {
    const kernels::PlaneTilesView& view = tiles_.view();
    const int64_t tile_rows = view.order.tile_rows;
    // Pieces that depend on the shape alone, since sums of a product depend on how it is cut; at
    // least so many that some threads have equal shares.
    const int64_t most = (view.rows + kDecodedRows - 1) / kDecodedRows;
    const int64_t pieces = (most + kPieces - 1) / kPieces * kPieces;
    const int64_t at_once = (view.tiles() + pieces - 1) / pieces;
    const int64_t stride = at_once * tile_rows;
    share_pieces(runner_.team, pieces, [&](int64_t piece, int worker) {
      const int64_t tile = piece * at_once;
      if (tile >= view.tiles()) return;  // few rows
      const at::NoGradGuard no_grad;
      const at::Tensor input =
          at::from_blob(const_cast<float*>(x), {tokens, view.cols}, at::kFloat);
      std::vector<float>& weight = runner_.decoded[static_cast<size_t>(worker)];
      weight.resize(std::max(weight.size(), static_cast<size_t>(view.cols * stride)));
      const int64_t tiles = std::min(at_once, view.tiles() - tile), first = tile * tile_rows;
      const int64_t rows = std::min(tiles * tile_rows, view.rows - first);
      kernels::decode_tiles(view, tile, tiles, weight.data(), stride);
      const at::Tensor w = at::from_blob(weight.data(), {view.cols, rows}, {stride, 1}, at::kFloat);
      at::Tensor part = at::from_blob(y + first, {tokens, rows}, {view.rows, 1}, at::kFloat);
      at::mm_out(part, input, w);
    });
  }

  // This worker's share of the inputs: segments of one token, or whole tokens.
  void fill(const float* x, int64_t count, int worker, int team) const {
    const kernels::PlaneTilesView& view = tiles_.view();
    if (count == 1) {
      const int first = view.segment_count * worker / team;
      runner_.inputs[0].fill(view, x, first, view.segment_count * (worker + 1) / team - first);
      return;
    }
    for (int64_t t = worker; t < count; t += team) {
      runner_.inputs[static_cast<size_t>(t)].fill(view, x + t * view.cols, 0, view.segment_count);
    }
  }

  CpuRunner::Impl& runner_;
  const PlaneTiles tiles_;
  bool decodes_ = false;  // where there are many tokens
};

CpuRunner::CpuRunner(int threads) : impl_(std::make_unique<Impl>(threads)) {}
CpuRunner::~CpuRunner() = default;
int CpuRunner::threads() const { return impl_->team.size(); }
std::string CpuRunner::kernels() const { return "cpu, " + kernels::best_target(); }
WorkerTeam* CpuRunner::team() { return &impl_->team; }

std::unique_ptr<LinearRunner> make_runner(c10::Device device, int threads) {
  if (device.is_cpu()) return std::make_unique<CpuRunner>(threads);
  return make_cuda_runner(device, threads);
}

at::Tensor LinearOperator::apply_with_bias(const at::Tensor& x, const at::Tensor& bias) const {
  return apply(x).add_(bias);
}

std::string LinearRunner::unsupported(const PackedLayer& packed) const {
  return billm::unsupported(packed);
}

std::unique_ptr<LinearOperator> LinearRunner::make(const PackedLayer& packed) {
  if (!unsupported(packed).empty()) return nullptr;
  std::vector<std::unique_ptr<LinearOperator>> parts;
  for (const PackedFactor& factor : packed.factors) {
    parts.push_back(factor_operators()[factor.index()].make(*this, factor));
  }
  if (parts.size() == 1) return std::move(parts.front());
  return std::make_unique<ProductLinear>(std::move(parts));
}

// Rotates the vectors of tokens, which the team's threads share.
class CpuRotation : public LinearOperator {
 public:
  CpuRotation(CpuRunner::Impl& runner, const Rotation& rotation)
      : runner_(runner), rotation_(make_vector_rotation(rotation)) {}

  at::Tensor apply(const at::Tensor& x) const override {
    const at::Tensor input = x.contiguous();
    const int64_t tokens = input.size(0), size = rotation_.size();
    at::Tensor result = at::empty({tokens, size}, input.options());
    const float* from = input.const_data_ptr<float>();
    float* to = result.mutable_data_ptr<float>();
    if (tokens < kRotatedTokens) {
      rotation_.apply(from, size, tokens, to, size);
      return result;
    }
    share_pieces(
        runner_.team, (tokens + kRotatedTokens - 1) / kRotatedTokens, [&](int64_t piece, int) {
          const int64_t first = piece * kRotatedTokens;
          rotation_.apply(from + first * size, size, std::min(kRotatedTokens, tokens - first),
                          to + first * size, size);
        });
    return result;
  }
  int64_t bytes() const override { return 0; }

 private:
  static constexpr int64_t kRotatedTokens = 16;  // that a thread takes at a time

  CpuRunner::Impl& runner_;
  const kernels::VectorRotation rotation_;
};

std::unique_ptr<LinearOperator> CpuRunner::make_rotation(const Rotation& rotation) {
  return std::make_unique<CpuRotation>(*impl_, rotation);
}

std::unique_ptr<LinearOperator> CpuRunner::make_trellis(const PackedTrellis& packed) {
  return std::make_unique<TrellisLinear>(impl_->trellis, packed);
}

std::vector<std::unique_ptr<LinearOperator>> CpuRunner::make_copies(const PackedPlanes& packed,
                                                                    int64_t bytes) {
  PlaneTiles tiles(packed, kernels::cpu_tile_order(), threads());
  const int64_t more = (bytes + tiles.bytes() - 1) / tiles.bytes() - 1;
  std::vector<std::unique_ptr<LinearOperator>> result;
  for (int64_t i = 0; i < more; ++i) {
    result.push_back(std::make_unique<CpuLinear>(*impl_, tiles.copy()));
  }
  result.push_back(std::make_unique<CpuLinear>(*impl_, std::move(tiles)));
  return result;
}

}  // namespace billm
