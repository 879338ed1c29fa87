// See sinks.h.
#include "sinks.h"

#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/median.h>

#include <cmath>
#include <set>

#include "billm/base/error.h"
#include "billm/base/parallel.h"

namespace billm {

std::vector<int64_t> sink_positions(const at::Tensor& state) {
  const at::Tensor norms = at::linalg_vector_norm(state, 2, at::IntArrayRef{1}).cpu();
  const float least = static_cast<float>(kSinkRatio) * norms.median().item<float>();
  const float* values = norms.const_data_ptr<float>();
  std::vector<int64_t> positions;
  for (int64_t i = 0; i < norms.numel(); ++i) {
    if (values[i] >= least && values[i] > 0) positions.push_back(i);
  }
  return positions;
}

std::vector<std::vector<int64_t>> find_sinks(const OriginalPass& pass, HiddenStates* hidden) {
  std::vector<std::set<int64_t>> found(static_cast<size_t>(hidden->count()));
  pass_original(pass, "sinks", /*last=*/true, hidden, [&](int64_t b, const Block&) {
    if (b == 0) return;  // no block has made them
    parallel_for(hidden->count(), pass.threads, [&](int64_t i) {
      const at::NoGradGuard no_grad;
      const std::vector<int64_t> here = sink_positions(hidden->load(i));
      found[static_cast<size_t>(i)].insert(here.begin(), here.end());
    });
  });
  std::vector<std::vector<int64_t>> positions;
  for (const std::set<int64_t>& of_sequence : found) {
    positions.emplace_back(of_sequence.begin(), of_sequence.end());
  }
  return positions;
}

std::vector<SinkReport> compare_sinks(const Sequences& originals, const Sequences& present,
                                      int threads) {
  std::vector<SinkReport> parts(static_cast<size_t>(originals.count()));
  parallel_for(originals.count(), threads, [&](int64_t i) {
    const at::NoGradGuard no_grad;
    const at::Tensor original = originals.load(i), now = present.load(i);
    SinkReport& part = parts[static_cast<size_t>(i)];
    for (const int64_t token : sink_positions(original)) {
      const at::Tensor x = original.select(0, token).cpu(), y = now.select(0, token).cpu();
      const double norm = x.norm().item<double>(), error = x.sub(y).norm().item<double>();
      part.tokens += 1;
      part.original_norm += norm;
      part.norm += y.norm().item<double>();
      part.error += error * error / (norm * norm);
      if (!std::isfinite(part.error)) {
        throw Error(ErrorCode::kFailure,
                    "the hidden states of a token with massive activations are not finite",
                    "the model overflows in fp32, or its weights are damaged");
      }
    }
  });
  return parts;
}

}  // namespace billm
