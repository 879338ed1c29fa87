// See device_coder.h.
#include "device_coder.h"

#include <algorithm>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "billm/quantize/accelerator.h"
#include "billm/quantize/row_share.h"
#include "kernels/cuda/coder_layer.h"

namespace billm {
namespace {

using kernels::kColumnSets;
using kernels::kMaxLevels;
using kernels::cuda::CodeFeedback;
using kernels::cuda::CoderParams;
using kernels::cuda::kRowLevels;

CodeFeedback feedback_of(Feedback feedback) {
  switch (feedback) {
    case Feedback::kColumns:
      return CodeFeedback::kColumns;
    case Feedback::kBlocks:
      return CodeFeedback::kBlocks;
    case Feedback::kNone:
      break;
  }
  return CodeFeedback::kNone;
}

// levels: [groups][count][kRowLevels] of the rows [first, first + count).
void store_levels(const std::vector<float>& levels, int64_t first, int64_t count, int threads,
                  RegionCodes* out) {
  const RegionFormat& shape = out->shape;
  const int classes[kColumnSets] = {shape.classes, shape.salient_classes};
  parallel_for(shape.groups(), threads, [&](int64_t b) {
    for (int64_t i = 0; i < count; ++i) {
      const float* const row = levels.data() + (b * count + i) * kRowLevels;
      int region = 0;
      for (int set = 0; set < kColumnSets; ++set) {
        for (int k = 0; k < classes[set]; ++k) {
          out->scale[out->scale_index(b, ++region, first + i)] = row[set * kMaxLevels + k];
        }
      }
      if (shape.offset_kind == OffsetKind::kBlock) {
        out->offset[out->offset_index(b, 1, first + i)] = row[kRowLevels - 1];
      }
    }
  });
}

}  // namespace

bool device_codes(const BinaryPlan& plan, const QuantizeContext& context) {
  return context.accelerator != nullptr && context.accelerator->kernels() != nullptr &&
         plan.shape.block_size <= kernels::cuda::kMaxCodedWidth;
}

void code_on_device(const WeightView& weight, const Hessian& hessian, const BinaryPlan& plan,
                    const MethodConfig& config, const QuantizeContext& context,
                    const std::vector<GroupTriangle>& triangles, const LevelGrid& grid,
                    RegionCodes* out) {
  const RegionFormat& shape = plan.shape;
  constexpr int64_t kTile = kernels::kTileRows;  // the unit in which processes share rows
  const int64_t tiles = (shape.rows + kTile - 1) / kTile;
  const RowShare::Tiles own =
      context.share != nullptr ? context.share->own(tiles) : RowShare::Tiles{0, tiles};
  const int64_t first = std::min(shape.rows, own.first * kTile);
  const int64_t count = std::min(shape.rows, (own.first + own.count) * kTile) - first;

  std::vector<float> norm, zero;
  for (const GroupTriangle& triangle : triangles) {
    norm.insert(norm.end(), triangle.norm.begin(), triangle.norm.end());
  }
  std::vector<uint8_t> set = plan.salient;
  set.resize(static_cast<size_t>(shape.cols), 0);
  const std::vector<uint8_t>& mask = plan.integer.empty() ? plan.keep : plan.integer;

  kernels::cuda::CoderJob job;
  job.device = context.accelerator->device();
  job.block_size = shape.block_size;
  job.make_room = [&] { context.accelerator->give_back_memory(); };
  CoderParams& layer = job.layer;
  layer.rows = count;
  layer.cols = shape.cols;
  layer.weight = weight.data + first * shape.cols;
  layer.factor = hessian.factor.data();
  layer.diagonal = hessian.diagonal.data();
  layer.norm = norm.data();
  layer.set = set.data();
  layer.mask = mask.empty() ? nullptr : mask.data() + first * shape.cols;
  if (!plan.integer.empty()) {
    layer.binary = 0;
    layer.last = static_cast<float>((1 << shape.integer_bits) - 1);
    zero.assign(out->zero.begin() + first, out->zero.begin() + first + count);
    layer.step = out->step.data() + first;
    layer.zero = zero.data();
  }
  layer.classes[0] = shape.classes;
  layer.classes[1] = shape.salient_classes;
  layer.rounding = grid.rounding();
  layer.feedback = feedback_of(config.feedback);
  layer.refine_rounds = config.refine_rounds;
  layer.descend = config.descend;
  std::vector<float> levels(static_cast<size_t>(shape.groups() * count * kRowLevels));
  job.region = out->region.data() + first * shape.cols;
  job.code = out->code.data() + first * shape.cols;
  job.levels = levels.data();
  if (count > 0) {
    const char* const problem = kernels::cuda::code_layer(*context.accelerator->kernels(), job);
    if (problem != nullptr) {
      throw Error(ErrorCode::kFailure, std::string("coding on the GPU: ") + problem,
                  "use --device cpu");
    }
    store_levels(levels, first, count, context.threads, out);
  }
  if (context.share != nullptr) context.share->complete(kTile, out);
}

}  // namespace billm
