// Highway implementation of row_tiles.h: the dispatch. Every operation is elementwise over lanes;
// sums run over columns in ascending order; Mul and Add are never fused (and -ffp-contract=off
// keeps it so).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/row_tiles.cpp"
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format off
#include "hwy/highway.h"
// clang-format on

#include "kernels/cpu/row_tiles.h"
#include "kernels/cpu/row_tiles_algebra-inl.h"
#include "kernels/cpu/row_tiles_coding-inl.h"
#include "kernels/cpu/row_tiles_equations-inl.h"

#if HWY_ONCE
namespace billm::kernels {

HWY_EXPORT(AccumulateFeedback);
HWY_EXPORT(SolveFactor);
HWY_EXPORT(MultiplyFactor);
HWY_EXPORT(CodeWithFeedback);
HWY_EXPORT(CodeNearest);
HWY_EXPORT(DescendCodes);
HWY_EXPORT(Requantize);
HWY_EXPORT(LevelEquations);

void accumulate_feedback(const float* d, int64_t count, const float* factor, int64_t stride,
                         int64_t width, float* out) {
  HWY_DYNAMIC_DISPATCH(AccumulateFeedback)(d, count, factor, stride, width, out);
}
void solve_factor(const GroupFactor& factor, const float* y, float* x) {
  HWY_DYNAMIC_DISPATCH(SolveFactor)(factor, y, x);
}
void multiply_factor(const GroupFactor& factor, const float* x, float* y) {
  HWY_DYNAMIC_DISPATCH(MultiplyFactor)(factor, x, y);
}
void code_with_feedback(const GroupFactor& factor, const Levels& levels, const float* w,
                        const GroupCodes& codes, float* delta, float* loss) {
  HWY_DYNAMIC_DISPATCH(CodeWithFeedback)(factor, levels, w, codes, delta, loss);
}
void code_nearest(const GroupFactor& factor, const Levels& levels, const float* w,
                  const GroupCodes& codes, float* delta, float* loss) {
  HWY_DYNAMIC_DISPATCH(CodeNearest)(factor, levels, w, codes, delta, loss);
}
void descend_codes(const GroupFactor& factor, const Levels& levels, const GroupCodes& codes,
                   float* delta, float* residual, float* loss) {
  HWY_DYNAMIC_DISPATCH(DescendCodes)(factor, levels, codes, delta, residual, loss);
}
void requantize(const GroupFactor& factor, const Levels& levels, const float* w,
                const GroupCodes& codes, float* delta) {
  HWY_DYNAMIC_DISPATCH(Requantize)(factor, levels, w, codes, delta);
}
void level_equations(const GroupFactor& factor, const GroupCodes& codes, const int* classes,
                     bool with_offset, const float* target, float* scratch, float* gram,
                     float* right) {
  HWY_DYNAMIC_DISPATCH(LevelEquations)
  (factor, codes, classes, with_offset, target, scratch, gram, right);
}

int64_t supported_targets() { return hwy::SupportedTargets() & HWY_TARGETS; }
void force_target(int64_t target) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace billm::kernels
#endif
