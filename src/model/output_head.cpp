// See include/billm/model/output_head.h.
#include "billm/model/output_head.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "billm/base/parallel.h"

namespace billm {
namespace {

// Rows of the head that one thread multiplies at a time. Fixed, since a product's rounding may
// depend on its size.
constexpr int64_t kRows = 4096;

}  // namespace

OutputHead::OutputHead(const ModelWeights& weights, const ModelSpec& spec, int threads,
                       c10::Device device)
    : weight_(weights.dense(spec.head, threads).to(device)), threads_(threads) {}

at::Tensor OutputHead::logits(const at::Tensor& states) const {
  if (!states.is_cpu()) return at::mm(states, weight_.t());
  const int64_t vocab = weight_.size(0);
  const at::Tensor result = at::empty({states.size(0), vocab}, states.options());
  const bool inference = c10::InferenceMode::is_enabled();
  parallel_for((vocab + kRows - 1) / kRows, threads_, [&](int64_t tile) {
    const c10::InferenceMode mode(inference);  // a thread's own setting
    const int64_t first = tile * kRows, count = std::min(kRows, vocab - first);
    at::Tensor part = result.narrow(1, first, count);
    at::mm_out(part, states, weight_.narrow(0, first, count).t());
  });
  return result;
}

}  // namespace billm
