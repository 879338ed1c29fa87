// Highway implementation of row_tiles.h. Every operation is elementwise over lanes; sums run over
// columns in ascending order; Mul and Add are never fused (and -ffp-contract=off keeps it so).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/row_tiles.cpp"
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format off
#include "hwy/highway.h"
// clang-format on

#include "kernels/cpu/row_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
constexpr int kT = kTileRows;

// out[c..c+3] for two vectors of lanes at a time: eight accumulators.
void AccumulateFeedback(const float* d, int64_t count, const float* factor, int64_t stride,
                        int64_t width, float* out) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  int64_t c = 0;
  for (; c + 4 <= width; c += 4) {
    for (int lane = 0; lane < kT; lane += 2 * n) {
      float* o = out + c * kT + lane;
      V a00 = hn::Load(tag, o), a01 = hn::Load(tag, o + n);
      V a10 = hn::Load(tag, o + kT), a11 = hn::Load(tag, o + kT + n);
      V a20 = hn::Load(tag, o + 2 * kT), a21 = hn::Load(tag, o + 2 * kT + n);
      V a30 = hn::Load(tag, o + 3 * kT), a31 = hn::Load(tag, o + 3 * kT + n);
      const float* r = factor + c;
      const float* x = d + lane;
      for (int64_t i = 0; i < count; ++i, r += stride, x += kT) {
        const V x0 = hn::Load(tag, x), x1 = hn::Load(tag, x + n);
        const V r0 = hn::Set(tag, r[0]), r1 = hn::Set(tag, r[1]);
        const V r2 = hn::Set(tag, r[2]), r3 = hn::Set(tag, r[3]);
        a00 = hn::Add(a00, hn::Mul(x0, r0));
        a01 = hn::Add(a01, hn::Mul(x1, r0));
        a10 = hn::Add(a10, hn::Mul(x0, r1));
        a11 = hn::Add(a11, hn::Mul(x1, r1));
        a20 = hn::Add(a20, hn::Mul(x0, r2));
        a21 = hn::Add(a21, hn::Mul(x1, r2));
        a30 = hn::Add(a30, hn::Mul(x0, r3));
        a31 = hn::Add(a31, hn::Mul(x1, r3));
      }
      hn::Store(a00, tag, o);
      hn::Store(a01, tag, o + n);
      hn::Store(a10, tag, o + kT);
      hn::Store(a11, tag, o + kT + n);
      hn::Store(a20, tag, o + 2 * kT);
      hn::Store(a21, tag, o + 2 * kT + n);
      hn::Store(a30, tag, o + 3 * kT);
      hn::Store(a31, tag, o + 3 * kT + n);
    }
  }
  for (; c < width; ++c) {
    for (int lane = 0; lane < kT; lane += n) {
      V sum = hn::Load(tag, out + c * kT + lane);
      for (int64_t i = 0; i < count; ++i) {
        sum = hn::Add(
            sum, hn::Mul(hn::Load(tag, d + i * kT + lane), hn::Set(tag, factor[i * stride + c])));
      }
      hn::Store(sum, tag, out + c * kT + lane);
    }
  }
}

// sum_{i < count} x[i][lane] * column[i]
HWY_INLINE V DotColumn(D tag, const float* x, const float* column, int count, int lane) {
  V sum = hn::Zero(tag);
  for (int i = 0; i < count; ++i) {
    sum = hn::Add(sum, hn::Mul(hn::Load(tag, x + i * kT + lane), hn::Set(tag, column[i])));
  }
  return sum;
}

void SolveFactor(const BlockFactor& factor, const float* y, float* x) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  for (int c = 0; c < factor.width; ++c) {
    const float* column = factor.columns + static_cast<int64_t>(c) * factor.width;
    const V inverse = hn::Set(tag, 1.0f / column[c]);
    for (int lane = 0; lane < kT; lane += n) {
      const V sum = DotColumn(tag, x, column, c, lane);
      const V value = hn::Mul(hn::Sub(hn::Load(tag, y + c * kT + lane), sum), inverse);
      hn::Store(value, tag, x + c * kT + lane);
    }
  }
}

void MultiplyFactor(const BlockFactor& factor, const float* x, float* y) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  for (int c = 0; c < factor.width; ++c) {
    const float* column = factor.columns + static_cast<int64_t>(c) * factor.width;
    for (int lane = 0; lane < kT; lane += n) {
      hn::Store(DotColumn(tag, x, column, c + 1, lane), tag, y + c * kT + lane);
    }
  }
}

// Nearest level to t in column set `set`: value, sign and class. Ties take the lower class and
// plus.
struct Nearest {
  V q, sign, cls;
};
HWY_INLINE Nearest NearestLevel(D tag, const Levels& levels, int set, int lane, V t) {
  const V zero = hn::Zero(tag), one = hn::Set(tag, 1.0f), half = hn::Set(tag, 0.5f);
  const V offset = hn::Load(tag, levels.offset + lane);
  const V centred = hn::Sub(t, offset);
  const V sign = hn::IfThenElse(hn::Lt(centred, zero), hn::Neg(one), one);
  const V magnitude = hn::Abs(centred);
  V level = hn::Load(tag, levels.level[set][0] + lane);
  V cls = zero;
  for (int k = 1; k < levels.classes[set]; ++k) {
    const V next = hn::Load(tag, levels.level[set][k] + lane);
    const V threshold =
        hn::Mul(hn::Add(hn::Load(tag, levels.level[set][k - 1] + lane), next), half);
    const auto above = hn::Gt(magnitude, threshold);
    level = hn::IfThenElse(above, next, level);
    cls = hn::IfThenElse(above, hn::Set(tag, static_cast<float>(k)), cls);
  }
  return {hn::Add(offset, hn::Mul(sign, level)), sign, cls};
}

HWY_INLINE void StoreCode(D tag, const BlockCodes& codes, int64_t at, const Nearest& code, V keep) {
  hn::Store(hn::Mul(code.q, keep), tag, codes.q + at);
  hn::Store(hn::Mul(code.sign, keep), tag, codes.sign + at);
  hn::Store(code.cls, tag, codes.cls + at);
}

HWY_INLINE V Keep(D tag, const BlockCodes& codes, int64_t at) {
  return codes.keep == nullptr ? hn::Set(tag, 1.0f) : hn::Load(tag, codes.keep + at);
}

template <bool kFeedback>
void Code(const BlockFactor& factor, const Levels& levels, const float* w, const BlockCodes& codes,
          float* delta, float* loss) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  for (int lane = 0; lane < kT; lane += n) hn::Store(hn::Zero(tag), tag, loss + lane);
  for (int c = 0; c < factor.width; ++c) {
    const float* column = factor.columns + static_cast<int64_t>(c) * factor.width;
    const V diagonal = hn::Set(tag, column[c]);
    const V inverse = hn::Set(tag, 1.0f / column[c]);
    for (int lane = 0; lane < kT; lane += n) {
      const int64_t at = static_cast<int64_t>(c) * kT + lane;
      const V weight = hn::Load(tag, w + at);
      const V carried = DotColumn(tag, delta, column, c, lane);
      const V target = kFeedback ? hn::Add(weight, hn::Mul(carried, inverse)) : weight;
      StoreCode(tag, codes, at, NearestLevel(tag, levels, codes.set[c], lane, target),
                Keep(tag, codes, at));
      const V d = hn::Sub(weight, hn::Load(tag, codes.q + at));
      hn::Store(d, tag, delta + at);
      const V error = hn::Add(carried, hn::Mul(d, diagonal));
      hn::Store(hn::Add(hn::Load(tag, loss + lane), hn::Mul(error, error)), tag, loss + lane);
    }
  }
}

void CodeWithFeedback(const BlockFactor& factor, const Levels& levels, const float* w,
                      const BlockCodes& codes, float* delta, float* loss) {
  Code<true>(factor, levels, w, codes, delta, loss);
}

void CodeNearest(const BlockFactor& factor, const Levels& levels, const float* w,
                 const BlockCodes& codes, float* delta, float* loss) {
  Code<false>(factor, levels, w, codes, delta, loss);
}

void DescendCodes(const BlockFactor& factor, const Levels& levels, const BlockCodes& codes,
                  float* delta, float* residual, float* loss) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  const int width = factor.width;
  for (int c = 0; c < width; ++c) {
    const float* row = factor.rows + static_cast<int64_t>(c) * width;
    const V inverse = hn::Set(tag, 1.0f / factor.norm[c]);
    for (int lane = 0; lane < kT; lane += n) {
      const int64_t at = static_cast<int64_t>(c) * kT + lane;
      V dot = hn::Zero(tag);
      for (int j = c; j < width; ++j) {
        dot = hn::Add(dot, hn::Mul(hn::Load(tag, residual + j * kT + lane), hn::Set(tag, row[j])));
      }
      const V old = hn::Load(tag, codes.q + at);
      const V target = hn::Add(old, hn::Mul(dot, inverse));
      StoreCode(tag, codes, at, NearestLevel(tag, levels, codes.set[c], lane, target),
                Keep(tag, codes, at));
      const V change = hn::Sub(hn::Load(tag, codes.q + at), old);
      if (hn::AllTrue(tag, hn::Eq(change, hn::Zero(tag)))) continue;
      hn::Store(hn::Sub(hn::Load(tag, delta + at), change), tag, delta + at);
      for (int j = c; j < width; ++j) {
        float* r = residual + j * kT + lane;
        hn::Store(hn::Sub(hn::Load(tag, r), hn::Mul(change, hn::Set(tag, row[j]))), tag, r);
      }
    }
  }
  for (int lane = 0; lane < kT; lane += n) {
    V sum = hn::Zero(tag);
    for (int j = 0; j < width; ++j) {
      const V r = hn::Load(tag, residual + j * kT + lane);
      sum = hn::Add(sum, hn::Mul(r, r));
    }
    hn::Store(sum, tag, loss + lane);
  }
}

void LevelEquations(const BlockFactor& factor, const BlockCodes& codes, const int* classes,
                    bool with_offset, const float* target, float* gram, float* right) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  const int width = factor.width;
  const V zero = hn::Zero(tag);
  // The unknowns that exist, as (set, class); the offset comes last.
  int unknown[kMaxUnknowns], set_of[kMaxUnknowns], class_of[kMaxUnknowns];
  int count = 0;
  for (int set = 0; set < kColumnSets; ++set) {
    for (int k = 0; k < classes[set]; ++k, ++count) {
      unknown[count] = set * kMaxLevels + k;
      set_of[count] = set;
      class_of[count] = k;
    }
  }
  const int levels = count;
  if (with_offset) unknown[count++] = kMaxUnknowns - 1;

  for (int lane = 0; lane < kT; lane += n) {
    V y[kMaxUnknowns];
    V a[kMaxUnknowns * (kMaxUnknowns + 1) / 2];
    V b[kMaxUnknowns];
    for (int u = 0; u < count; ++u) b[u] = zero;
    for (int u = 0; u < count * (count + 1) / 2; ++u) a[u] = zero;
    for (int c = 0; c < width; ++c) {
      const float* column = factor.columns + static_cast<int64_t>(c) * width;
      for (int u = 0; u < count; ++u) y[u] = zero;
      for (int i = 0; i <= c; ++i) {
        const int64_t at = static_cast<int64_t>(i) * kT + lane;
        const V r = hn::Set(tag, column[i]);
        const V signed_r = hn::Mul(hn::Load(tag, codes.sign + at), r);
        const V cls = hn::Load(tag, codes.cls + at);
        for (int u = 0; u < levels; ++u) {
          if (set_of[u] != codes.set[i]) continue;
          const auto mine = hn::Eq(cls, hn::Set(tag, static_cast<float>(class_of[u])));
          y[u] = hn::Add(y[u], hn::IfThenElseZero(mine, signed_r));
        }
        if (with_offset) y[levels] = hn::Add(y[levels], hn::Mul(Keep(tag, codes, at), r));
      }
      const V t = hn::Load(tag, target + static_cast<int64_t>(c) * kT + lane);
      for (int u = 0, at = 0; u < count; ++u) {
        b[u] = hn::Add(b[u], hn::Mul(y[u], t));
        for (int v = u; v < count; ++v, ++at) a[at] = hn::Add(a[at], hn::Mul(y[u], y[v]));
      }
    }
    for (int u = 0, at = 0; u < count; ++u) {
      hn::Store(b[u], tag, right + unknown[u] * kT + lane);
      for (int v = u; v < count; ++v, ++at) {
        hn::Store(a[at], tag, gram + (unknown[u] * kMaxUnknowns + unknown[v]) * kT + lane);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace billm::kernels {

HWY_EXPORT(AccumulateFeedback);
HWY_EXPORT(SolveFactor);
HWY_EXPORT(MultiplyFactor);
HWY_EXPORT(CodeWithFeedback);
HWY_EXPORT(CodeNearest);
HWY_EXPORT(DescendCodes);
HWY_EXPORT(LevelEquations);

void accumulate_feedback(const float* d, int64_t count, const float* factor, int64_t stride,
                         int64_t width, float* out) {
  HWY_DYNAMIC_DISPATCH(AccumulateFeedback)(d, count, factor, stride, width, out);
}
void solve_factor(const BlockFactor& factor, const float* y, float* x) {
  HWY_DYNAMIC_DISPATCH(SolveFactor)(factor, y, x);
}
void multiply_factor(const BlockFactor& factor, const float* x, float* y) {
  HWY_DYNAMIC_DISPATCH(MultiplyFactor)(factor, x, y);
}
void code_with_feedback(const BlockFactor& factor, const Levels& levels, const float* w,
                        const BlockCodes& codes, float* delta, float* loss) {
  HWY_DYNAMIC_DISPATCH(CodeWithFeedback)(factor, levels, w, codes, delta, loss);
}
void code_nearest(const BlockFactor& factor, const Levels& levels, const float* w,
                  const BlockCodes& codes, float* delta, float* loss) {
  HWY_DYNAMIC_DISPATCH(CodeNearest)(factor, levels, w, codes, delta, loss);
}
void descend_codes(const BlockFactor& factor, const Levels& levels, const BlockCodes& codes,
                   float* delta, float* residual, float* loss) {
  HWY_DYNAMIC_DISPATCH(DescendCodes)(factor, levels, codes, delta, residual, loss);
}
void level_equations(const BlockFactor& factor, const BlockCodes& codes, const int* classes,
                     bool with_offset, const float* target, float* gram, float* right) {
  HWY_DYNAMIC_DISPATCH(LevelEquations)
  (factor, codes, classes, with_offset, target, gram, right);
}

int64_t supported_targets() { return hwy::SupportedTargets() & HWY_TARGETS; }
void force_target(int64_t target) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace billm::kernels
#endif
