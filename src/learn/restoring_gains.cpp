// See include/billm/learn/restoring_gains.h.
#include "billm/learn/restoring_gains.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "billm/base/progress.h"
#include "billm/calibrate/collect.h"
#include "kl_head.h"

namespace billm {
namespace {

using Gains = std::map<std::string, double>;  // by suffix

class Pass {
 public:
  Pass(const Model& original, const Model& quantized, int64_t length, c10::Device device,
       int threads)
      : original_(original),
        quantized_(quantized),
        spec_(original.spec()),
        device_(device),
        threads_(threads),
        rope_(make_rope(spec_, length, device)) {}

  // Adds those of the sequences [first, first + count) to `sums`.
  void add(const TokenMatrix& tokens, int64_t first, int64_t count, RestoringGains* sums) {
    const std::vector<at::Tensor> teacher =
        teacher_states(original_.weights(), spec_, rope_, embedded(original_, tokens, first, count),
                       threads_, device_);
    std::vector<at::Tensor> hidden = embedded(quantized_, tokens, first, count);
    std::vector<std::vector<at::Tensor>> inputs;  // [block][window]
    for (int64_t b = 0; b < spec_.blocks(); ++b) {
      inputs.push_back(hidden);
      advance(spec_, load_block(quantized_.weights(), spec_, b, threads_, device_), rope_, hidden,
              threads_);
    }
    const FinalLayers last = load_final_layers(quantized_.weights(), spec_, device_);
    std::vector<KlHead> heads(static_cast<size_t>(count));
    parallel_for(count, threads_, [&](int64_t i) {
      const auto slot = static_cast<size_t>(i);
      heads[slot] = kl_head(original_.weights(), spec_, hidden[slot], last, teacher[slot], true);
    });
    std::vector<at::Tensor> gradients;  // of the next block's input
    for (const KlHead& head : heads) {
      sums->loss += head.loss;
      gradients.push_back(head.hidden);
    }
    for (int64_t b = spec_.blocks(); b-- > 0;) {
      const std::vector<Gains> gains = block_gains(b, inputs.back(), &gradients);
      inputs.pop_back();
      for (const Gains& of_window : gains) {
        for (const auto& [suffix, gain] : of_window) {
          sums->gain[spec_.block_prefix(b) + suffix] += gain;
        }
      }
    }
  }

 private:
  std::vector<at::Tensor> embedded(const Model& model, const TokenMatrix& tokens, int64_t first,
                                   int64_t count) const {
    const Embedding embed(model.weights(), spec_);
    std::vector<at::Tensor> hidden;
    for (int64_t i = first; i < first + count; ++i) {
      hidden.push_back(embed(tokens.row(i)).to(device_));
    }
    return hidden;
  }

  // Of each window. `gradients`: of the block's output, replaced by those of its input.
  std::vector<Gains> block_gains(int64_t b, const std::vector<at::Tensor>& inputs,
                                 std::vector<at::Tensor>* gradients) const {
    const Block block = load_block(quantized_.weights(), spec_, b, threads_, device_);
    const Block original = load_block(original_.weights(), spec_, b, threads_, device_);
    std::vector<Gains> gains(inputs.size());
    parallel_for(static_cast<int64_t>(inputs.size()), threads_, [&](int64_t i) {
      const auto slot = static_cast<size_t>(i);
      const at::AutoGradMode mode(true);
      Block leaves = block;
      std::vector<at::Tensor> variables;
      for (const LinearSpec& linear : spec_.family->linears) {
        const std::string suffix = linear.suffix;
        leaves.set_weight(suffix, block.weight(suffix).detach().set_requires_grad(true));
        variables.push_back(leaves.weight(suffix));
      }
      variables.push_back(inputs[slot].detach().set_requires_grad(true));
      const std::vector<at::Tensor> found = torch::autograd::grad(
          {forward_block(spec_, leaves, variables.back(), rope_)}, variables, {(*gradients)[slot]});
      const at::NoGradGuard no_grad;
      size_t number = 0;
      for (const LinearSpec& linear : spec_.family->linears) {
        const std::string suffix = linear.suffix;
        const at::Tensor change = block.weight(suffix).sub(original.weight(suffix));
        gains[slot][suffix] = at::Tensor(found[number++]).mul_(change).sum().item<double>();
      }
      (*gradients)[slot] = found.back();
    });
    return gains;
  }

  const Model& original_;
  const Model& quantized_;
  const ModelSpec& spec_;
  const c10::Device device_;
  const int threads_;
  const Rope rope_;
};

}  // namespace

RestoringGains restoring_gains(const Model& original, const Model& quantized,
                               const TokenMatrix& tokens, int64_t windows, c10::Device device,
                               int threads, bool quiet) {
  const at::NoGradGuard no_grad;
  const int64_t count = std::min(windows, tokens.rows);
  Pass pass(original, quantized, tokens.cols, device, threads);
  RestoringGains result;
  Progress progress("gains", count, quiet);
  for (int64_t first = 0; first < count; first += threads) {
    const int64_t here = std::min<int64_t>(threads, count - first);
    pass.add(tokens, first, here, &result);
    for (int64_t i = 0; i < here; ++i) progress.step();
  }
  result.loss /= static_cast<double>(count);
  bool finite = std::isfinite(result.loss);
  for (auto& [module, gain] : result.gain) {
    gain /= static_cast<double>(count);
    finite = finite && std::isfinite(gain);
  }
  if (!finite) {
    throw Error(ErrorCode::kFailure,
                "the divergence of the quantized model from the original is not finite",
                "its logits overflow: ask for more bits");
  }
  return result;
}

}  // namespace billm
