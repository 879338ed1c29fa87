// See include/billm/model/output_head.h.
#include "billm/model/output_head.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <cmath>

#include "billm/base/parallel.h"
#include "billm/model/dense_linear.h"

namespace billm {

OutputHead::OutputHead(const ModelWeights& weights, const ModelSpec& spec, int threads,
                       c10::Device device, WorkerTeam* team) {
  parts_.push_back(
      std::make_unique<DenseLinear>(weights.dense(spec.head, threads).to(device), team));
}

OutputHead::OutputHead(const ModelWeights& weights, const ModelSpec& spec, LinearRunner& runner) {
  const int64_t vocab = spec.config.vocab_size;
  const IntegerRows* const stored = weights.integer_rows(spec.head);
  for (int64_t first = 0; first < vocab; first += kHeadRows) {
    const int64_t count = std::min(kHeadRows, vocab - first);
    if (stored != nullptr) {
      parts_.push_back(runner.make(pack(region_codes(*stored, first, count, kHeadBlock))));
      continue;
    }
    const at::Tensor rows = weights.rows(spec.head, first, count);
    parts_.push_back(runner.make(pack(round_to_8_bits(rows.const_data_ptr<float>(), rows.size(0),
                                                      rows.size(1), runner.threads()))));
  }
  weights.release(spec.head);
}

int64_t OutputHead::bytes() const {
  int64_t sum = 0;
  for (const auto& part : parts_) sum += part->bytes();
  return sum;
}

RegionCodes round_to_8_bits(const float* weight, int64_t rows, int64_t cols, int threads) {
  constexpr int kLargest = 127, kZero = 128;
  RegionFormat shape;
  shape.rows = rows;
  shape.cols = cols;
  shape.block_size = kHeadBlock;
  shape.classes = shape.salient_classes = 0;
  shape.integer_bits = 8;
  shape.scale_format = ScaleFormat::kF16;
  RegionCodes out = make_region_codes(shape);
  std::fill(out.region.begin(), out.region.end(), static_cast<uint8_t>(shape.integer_region()));
  parallel_for(rows, threads, [&](int64_t row) {
    for (int64_t block = 0; block < shape.groups(); ++block) {
      const int64_t first = row * cols + block * kHeadBlock;
      const int64_t end = row * cols + std::min<int64_t>(cols, (block + 1) * kHeadBlock);
      float largest = 0;
      for (int64_t i = first; i < end; ++i) largest = std::max(largest, std::fabs(weight[i]));
      const float step = round_to_half(largest / kLargest);
      for (int64_t i = first; i < end; ++i) {
        const float place = step > 0 ? std::nearbyint(weight[i] / step) : 0.0f;
        out.code[static_cast<size_t>(i)] = static_cast<uint8_t>(
            kZero + static_cast<int>(std::clamp<float>(place, -kLargest, kLargest)));
      }
      const auto at = static_cast<size_t>(out.step_index(block, row));
      out.step[at] = step;
      out.zero[at] = kZero;
    }
  });
  return out;
}

at::Tensor OutputHead::logits(const at::Tensor& states) const {
  if (parts_.size() == 1) return parts_[0]->apply(states);
  std::vector<at::Tensor> parts;
  for (const auto& part : parts_) parts.push_back(part->apply(states));
  return at::cat(parts, 1);
}

}  // namespace billm
