// Highway implementation of row_tiles.h. Every operation is elementwise over lanes; sums run over
// columns in ascending order; Mul and Add are never fused (and -ffp-contract=off keeps it so).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/row_tiles.cpp"
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format off
#include "hwy/highway.h"
// clang-format on

#include "kernels/cpu/row_tiles-inl.h"
#include "kernels/cpu/row_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

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

void SolveFactor(const BlockFactor& factor, const float* y, float* x) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  for (int c = 0; c < factor.width; ++c) {
    const float* column = factor.columns + static_cast<int64_t>(c) * factor.width;
    const V inverse = hn::Set(tag, 1.0f / column[c]);
    for (int lane = 0; lane < kT; lane += 2 * n) {
      const Pair sum = DotColumn(tag, x, column, c, lane);
      const float* from = y + c * kT + lane;
      float* to = x + c * kT + lane;
      const V low = hn::Mul(hn::Sub(hn::Load(tag, from), sum.low), inverse);
      const V high = hn::Mul(hn::Sub(hn::Load(tag, from + n), sum.high), inverse);
      hn::Store(low, tag, to);
      hn::Store(high, tag, to + n);
    }
  }
}

void MultiplyFactor(const BlockFactor& factor, const float* x, float* y) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  for (int c = 0; c < factor.width; ++c) {
    const float* column = factor.columns + static_cast<int64_t>(c) * factor.width;
    for (int lane = 0; lane < kT; lane += 2 * n) {
      const Pair sum = DotColumn(tag, x, column, c + 1, lane);
      hn::Store(sum.low, tag, y + c * kT + lane);
      hn::Store(sum.high, tag, y + c * kT + lane + n);
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

HWY_INLINE V Keep(D tag, const BlockCodes& codes, int64_t at) {
  return codes.keep == nullptr ? hn::Set(tag, 1.0f) : hn::Load(tag, codes.keep + at);
}

// The code of column c, lanes `lane`.., for its target t; kMixed: what `keep` leaves out is an
// integer.
template <bool kMixed>
HWY_INLINE void CodeWeight(D tag, const Levels& levels, const BlockCodes& codes, int c, int lane,
                           V t) {
  const int64_t at = static_cast<int64_t>(c) * kT + lane;
  const Nearest code = NearestLevel(tag, levels, codes.set[c], lane, t);
  const V keep = Keep(tag, codes, at);
  V q = hn::Mul(code.q, keep), cls = code.cls;
  if constexpr (kMixed) {
    const auto integer = hn::Eq(keep, hn::Zero(tag));
    const V nearest = NearestCode(tag, *codes.integers, lane, t);
    q = hn::IfThenElse(integer, CodeValue(tag, *codes.integers, lane, nearest), q);
    cls = hn::IfThenElse(integer, nearest, cls);
  }
  hn::Store(q, tag, codes.q + at);
  hn::Store(hn::Mul(code.sign, keep), tag, codes.sign + at);
  hn::Store(cls, tag, codes.cls + at);
}

template <bool kFeedback, bool kMixed>
void Code(const BlockFactor& factor, const Levels& levels, const float* w, const BlockCodes& codes,
          float* delta, float* loss) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  for (int lane = 0; lane < kT; lane += n) hn::Store(hn::Zero(tag), tag, loss + lane);
  for (int c = 0; c < factor.width; ++c) {
    const float* column = factor.columns + static_cast<int64_t>(c) * factor.width;
    const V diagonal = hn::Set(tag, column[c]);
    const V inverse = hn::Set(tag, 1.0f / column[c]);
    for (int lane = 0; lane < kT; lane += 2 * n) {
      const Pair carried = DotColumn(tag, delta, column, c, lane);
      for (int half = 0; half < 2; ++half) {
        const int l = lane + half * n;
        const V sum = half == 0 ? carried.low : carried.high;
        const int64_t at = static_cast<int64_t>(c) * kT + l;
        const V weight = hn::Load(tag, w + at);
        const V target = kFeedback ? hn::Add(weight, hn::Mul(sum, inverse)) : weight;
        CodeWeight<kMixed>(tag, levels, codes, c, l, target);
        const V d = hn::Sub(weight, hn::Load(tag, codes.q + at));
        hn::Store(d, tag, delta + at);
        const V error = hn::Add(sum, hn::Mul(d, diagonal));
        hn::Store(hn::Add(hn::Load(tag, loss + l), hn::Mul(error, error)), tag, loss + l);
      }
    }
  }
}

void CodeWithFeedback(const BlockFactor& factor, const Levels& levels, const float* w,
                      const BlockCodes& codes, float* delta, float* loss) {
  const auto code = codes.integers == nullptr ? Code<true, false> : Code<true, true>;
  code(factor, levels, w, codes, delta, loss);
}

void CodeNearest(const BlockFactor& factor, const Levels& levels, const float* w,
                 const BlockCodes& codes, float* delta, float* loss) {
  const auto code = codes.integers == nullptr ? Code<false, false> : Code<false, true>;
  code(factor, levels, w, codes, delta, loss);
}

template <bool kMixed>
void Descend(const BlockFactor& factor, const Levels& levels, const BlockCodes& codes, float* delta,
             float* residual, float* loss) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  const int width = factor.width;
  for (int c = 0; c < width; ++c) {
    const float* row = factor.rows + static_cast<int64_t>(c) * width;
    const V inverse = hn::Set(tag, 1.0f / factor.norm[c]);
    for (int lane = 0; lane < kT; lane += 2 * n) {
      const int64_t first = static_cast<int64_t>(c) * kT;
      const Pair dot = DotColumn(tag, residual + first, row + c, width - c, lane);
      V change[2];
      for (int half = 0; half < 2; ++half) {
        const int l = lane + half * n;
        const V old = hn::Load(tag, codes.q + first + l);
        const V target = hn::Add(old, hn::Mul(half == 0 ? dot.low : dot.high, inverse));
        CodeWeight<kMixed>(tag, levels, codes, c, l, target);
        change[half] = hn::Sub(hn::Load(tag, codes.q + first + l), old);
        float* d = delta + first + l;
        hn::Store(hn::Sub(hn::Load(tag, d), change[half]), tag, d);
      }
      const V zero = hn::Zero(tag);
      if (hn::AllTrue(tag, hn::Eq(hn::Or(hn::Abs(change[0]), hn::Abs(change[1])), zero))) continue;
      for (int j = c; j < width; ++j) {
        float* r = residual + static_cast<int64_t>(j) * kT + lane;
        const V factor_cj = hn::Set(tag, row[j]);
        hn::Store(hn::Sub(hn::Load(tag, r), hn::Mul(change[0], factor_cj)), tag, r);
        hn::Store(hn::Sub(hn::Load(tag, r + n), hn::Mul(change[1], factor_cj)), tag, r + n);
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

void DescendCodes(const BlockFactor& factor, const Levels& levels, const BlockCodes& codes,
                  float* delta, float* residual, float* loss) {
  const auto descend = codes.integers == nullptr ? Descend<false> : Descend<true>;
  descend(factor, levels, codes, delta, residual, loss);
}

void Requantize(const BlockFactor& factor, const Levels& levels, const float* w,
                const BlockCodes& codes, float* delta) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  for (int c = 0; c < factor.width; ++c) {
    const int set = codes.set[c];
    for (int lane = 0; lane < kT; lane += n) {
      const int64_t at = static_cast<int64_t>(c) * kT + lane;
      const V cls = hn::Load(tag, codes.cls + at);
      V level = hn::Load(tag, levels.level[set][0] + lane);
      for (int k = 1; k < levels.classes[set]; ++k) {
        level = hn::IfThenElse(hn::Eq(cls, hn::Set(tag, static_cast<float>(k))),
                               hn::Load(tag, levels.level[set][k] + lane), level);
      }
      const V value = hn::Add(hn::Load(tag, levels.offset + lane),
                              hn::Mul(hn::Load(tag, codes.sign + at), level));
      const V keep = Keep(tag, codes, at);
      V q = hn::Mul(value, keep);
      if (codes.integers != nullptr) {
        q = hn::IfThenElse(hn::Eq(keep, hn::Zero(tag)), CodeValue(tag, *codes.integers, lane, cls),
                           q);
      }
      hn::Store(q, tag, codes.q + at);
      hn::Store(hn::Sub(hn::Load(tag, w + at), q), tag, delta + at);
    }
  }
}

// y[k][lanes] += sum over the columns `list` of z[k][column] * r[column], k < kCount, two vectors
// of lanes; `plane` is the distance between z[k] and z[k + 1].
template <int kCount>
HWY_INLINE void SumPlanes(D tag, const float* z, int64_t plane, const float* r, const int* list,
                          int length, float* y, int64_t y_plane) {
  const int n = static_cast<int>(hn::Lanes(tag));
  V s0[kCount], s1[kCount];
  for (int k = 0; k < kCount; ++k) s0[k] = s1[k] = hn::Zero(tag);
  for (int at = 0; at < length; ++at) {
    const int i = list[at];
    const V factor = hn::Set(tag, r[i]);
    for (int k = 0; k < kCount; ++k) {
      const float* from = z + k * plane + static_cast<int64_t>(i) * kT;
      s0[k] = hn::Add(s0[k], hn::Mul(hn::Load(tag, from), factor));
      s1[k] = hn::Add(s1[k], hn::Mul(hn::Load(tag, from + n), factor));
    }
  }
  for (int k = 0; k < kCount; ++k) {
    hn::Store(s0[k], tag, y + k * y_plane);
    hn::Store(s1[k], tag, y + k * y_plane + n);
  }
}

void LevelEquations(const BlockFactor& factor, const BlockCodes& codes, const int* classes,
                    bool with_offset, const float* target, float* scratch, float* gram,
                    float* right) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  const int width = factor.width;
  const int64_t plane = static_cast<int64_t>(width) * kT;
  float* z = scratch;                         // [U][width][64]: signs of each unknown's weights
  float* y = scratch + kMaxUnknowns * plane;  // [U][width][64]: z R
  // The unknowns that exist; those of a set are neighbours, the offset comes last.
  int unknown[kMaxUnknowns];
  int count = 0, first[kColumnSets];
  for (int set = 0; set < kColumnSets; ++set) {
    first[set] = count;
    for (int k = 0; k < classes[set]; ++k) unknown[count++] = set * kMaxLevels + k;
  }
  const int offset = count;
  if (with_offset) unknown[count++] = kMaxUnknowns - 1;
  // The columns of each set, and all of them.
  int list[kColumnSets + 1][kMaxBlockWidth], length[kColumnSets + 1] = {};
  for (int c = 0; c < width; ++c) {
    const int set = codes.set[c];
    list[set][length[set]++] = c;
    list[kColumnSets][length[kColumnSets]++] = c;
    for (int lane = 0; lane < kT; lane += n) {
      const int64_t at = static_cast<int64_t>(c) * kT + lane;
      const V sign = hn::Load(tag, codes.sign + at);
      const V cls = hn::Load(tag, codes.cls + at);
      for (int k = 0; k < classes[set]; ++k) {
        const auto mine = hn::Eq(cls, hn::Set(tag, static_cast<float>(k)));
        hn::Store(hn::IfThenElseZero(mine, sign), tag, z + (first[set] + k) * plane + at);
      }
      if (with_offset) hn::Store(Keep(tag, codes, at), tag, z + offset * plane + at);
    }
  }
  int upto[kColumnSets + 1] = {};  // how many of list[set] are <= c
  for (int c = 0; c < width; ++c) {
    const float* column = factor.columns + static_cast<int64_t>(c) * width;
    ++upto[codes.set[c]];
    ++upto[kColumnSets];
    for (int lane = 0; lane < kT; lane += 2 * n) {
      const int64_t at = static_cast<int64_t>(c) * kT + lane;
      for (int set = 0; set < kColumnSets; ++set) {
        const float* from = z + first[set] * plane + lane;
        float* to = y + first[set] * plane + at;
        if (classes[set] == 1) {
          SumPlanes<1>(tag, from, plane, column, list[set], upto[set], to, plane);
        } else if (classes[set] == 2) {
          SumPlanes<2>(tag, from, plane, column, list[set], upto[set], to, plane);
        } else if (classes[set] == 3) {
          SumPlanes<3>(tag, from, plane, column, list[set], upto[set], to, plane);
        }
      }
      if (with_offset) {
        SumPlanes<1>(tag, z + offset * plane + lane, plane, column, list[kColumnSets],
                     upto[kColumnSets], y + offset * plane + at, plane);
      }
    }
  }
  for (int lane = 0; lane < kT; lane += n) {
    for (int u = 0; u < count; ++u) {
      const float* yu = y + u * plane + lane;
      V b = hn::Zero(tag);
      for (int64_t at = 0; at < plane; at += kT) {
        b = hn::Add(b, hn::Mul(hn::Load(tag, yu + at), hn::Load(tag, target + at + lane)));
      }
      hn::Store(b, tag, right + unknown[u] * kT + lane);
      for (int v = u; v < count; ++v) {
        const float* yv = y + v * plane + lane;
        V a = hn::Zero(tag);
        for (int64_t at = 0; at < plane; at += kT) {
          a = hn::Add(a, hn::Mul(hn::Load(tag, yu + at), hn::Load(tag, yv + at)));
        }
        hn::Store(a, tag, gram + (unknown[u] * kMaxUnknowns + unknown[v]) * kT + lane);
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
HWY_EXPORT(Requantize);
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
void requantize(const BlockFactor& factor, const Levels& levels, const float* w,
                const BlockCodes& codes, float* delta) {
  HWY_DYNAMIC_DISPATCH(Requantize)(factor, levels, w, codes, delta);
}
void level_equations(const BlockFactor& factor, const BlockCodes& codes, const int* classes,
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
