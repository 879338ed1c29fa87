// Packed linears on the CPU: see include/billm/model/linear_operator.h.
#include "billm/model/linear_operator.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "billm/base/worker_team.h"
#include "billm/pack/plane_tiles.h"
#include "kernels/cpu/gemv.h"

namespace billm {
namespace {

using kernels::kMaxGemvTokens;

// Tokens whose tables are held at once: 4 bytes a column and token, 1 MB with rows of 4096.
constexpr int64_t kTokensAtOnce = 64;
// With several tokens: tiles that stay in the cache while all tokens pass them.
constexpr int64_t kTilesAtOnce = 8;

}  // namespace

struct CpuRunner::Impl {
  explicit Impl(int threads) : team(threads), inputs(kTokensAtOnce) {}
  WorkerTeam team;
  std::vector<kernels::GemvInput> inputs;
};

class CpuLinear : public LinearOperator {
 public:
  CpuLinear(CpuRunner::Impl& runner, const PackedLinear& packed)
      : runner_(runner), tiles_(packed, kernels::cpu_tile_order(), runner.team.size()) {}

  CpuLinear(CpuRunner::Impl& runner, PlaneTiles tiles)
      : runner_(runner), tiles_(std::move(tiles)) {}

  int64_t bytes() const override { return tiles_.bytes(); }
  std::unique_ptr<LinearOperator> copy() const override {
    return std::make_unique<CpuLinear>(runner_, tiles_.copy());
  }

  at::Tensor apply(const at::Tensor& x) const override {
    const at::Tensor input = x.contiguous();
    const int64_t tokens = input.size(0), rows = tiles_.view().rows;
    at::Tensor result = at::empty({tokens, rows}, input.options());
    const float* from = input.const_data_ptr<float>();
    float* to = result.mutable_data_ptr<float>();
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
    runner_.team.run([&](int worker) {
      fill(x, count, worker, team);
      runner_.team.barrier();
      const int64_t first = view.tiles() * worker / team, end = view.tiles() * (worker + 1) / team;
      const int64_t at_once = count > kMaxGemvTokens ? kTilesAtOnce : end - first;
      for (int64_t tile = first; tile < end; tile += at_once) {
        const int64_t tiles = std::min(at_once, end - tile);
        for (int64_t t = 0; t < count; t += kMaxGemvTokens) {
          kernels::gemv(view, runner_.inputs.data() + t,
                        static_cast<int>(std::min<int64_t>(kMaxGemvTokens, count - t)), tile, tiles,
                        y + t * view.rows, view.rows);
        }
      }
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
};

CpuRunner::CpuRunner(int threads) : impl_(std::make_unique<Impl>(threads)) {}
CpuRunner::~CpuRunner() = default;
int CpuRunner::threads() const { return impl_->team.size(); }

std::unique_ptr<LinearOperator> CpuRunner::make(const PackedLinear& packed) {
  if (!PlaneTiles::unsupported(packed.shape).empty()) return nullptr;
  return std::make_unique<CpuLinear>(*impl_, packed);
}

}  // namespace billm
