// The end of the model in distillation: from the last hidden states through the final norm and the
// output head to the divergence from the original's distribution, and back.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "billm/model/block.h"

namespace billm {

// What the original makes of windows of embedded tokens `hidden` [tokens, hidden]: final_states()
// of its last block's outputs [tokens, embed_width].
std::vector<at::Tensor> teacher_states(const ModelWeights& original, const ModelSpec& spec,
                                       const Rope& rope, std::vector<at::Tensor> hidden,
                                       int threads, c10::Device device);

struct KlHead {
  double loss = 0;          // mean KL(original || quantized) per token, nats
  at::Tensor hidden, norm;  // d loss / d hidden [tokens, hidden] and / d last.norm [hidden]
};

// hidden [tokens, hidden]: the quantized model's, the last block's output; last: what follows it;
// teacher [tokens, embed_width]: the original's final_states(). Logits are made for kKlHeadRows
// tokens at a time. Gradients are left empty unless asked for.
inline constexpr int64_t kKlHeadRows = 128;
KlHead kl_head(const ModelWeights& original, const ModelSpec& spec, const at::Tensor& hidden,
               const FinalLayers& last, const at::Tensor& teacher, bool gradients);

}  // namespace billm
