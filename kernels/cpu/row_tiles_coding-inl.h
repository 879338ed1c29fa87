// The codes of a quantization group: nearest levels, feedback, descent.
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_ROW_TILES_CODING_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_ROW_TILES_CODING_INL_H_
#undef BILLM_ROW_TILES_CODING_INL_H_
#else
#define BILLM_ROW_TILES_CODING_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/row_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

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

HWY_INLINE V Keep(D tag, const GroupCodes& codes, int64_t at) {
  return codes.keep == nullptr ? hn::Set(tag, 1.0f) : hn::Load(tag, codes.keep + at);
}

// The code of column c, lanes `lane`.., for its target t; kMixed: what `keep` leaves out is an
// integer.
template <bool kMixed>
HWY_INLINE void CodeWeight(D tag, const Levels& levels, const GroupCodes& codes, int c, int lane,
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
void Code(const GroupFactor& factor, const Levels& levels, const float* w, const GroupCodes& codes,
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

void CodeWithFeedback(const GroupFactor& factor, const Levels& levels, const float* w,
                      const GroupCodes& codes, float* delta, float* loss) {
  const auto code = codes.integers == nullptr ? Code<true, false> : Code<true, true>;
  code(factor, levels, w, codes, delta, loss);
}

void CodeNearest(const GroupFactor& factor, const Levels& levels, const float* w,
                 const GroupCodes& codes, float* delta, float* loss) {
  const auto code = codes.integers == nullptr ? Code<false, false> : Code<false, true>;
  code(factor, levels, w, codes, delta, loss);
}

template <bool kMixed>
void Descend(const GroupFactor& factor, const Levels& levels, const GroupCodes& codes, float* delta,
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

void DescendCodes(const GroupFactor& factor, const Levels& levels, const GroupCodes& codes,
                  float* delta, float* residual, float* loss) {
  const auto descend = codes.integers == nullptr ? Descend<false> : Descend<true>;
  descend(factor, levels, codes, delta, residual, loss);
}

void Requantize(const GroupFactor& factor, const Levels& levels, const float* w,
                const GroupCodes& codes, float* delta) {
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

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#endif
