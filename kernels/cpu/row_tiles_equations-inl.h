// The normal equations of the levels, for given codes.
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_ROW_TILES_EQUATIONS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_ROW_TILES_EQUATIONS_INL_H_
#undef BILLM_ROW_TILES_EQUATIONS_INL_H_
#else
#define BILLM_ROW_TILES_EQUATIONS_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/row_tiles-inl.h"
#include "kernels/cpu/row_tiles_coding-inl.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

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

void LevelEquations(const GroupFactor& factor, const GroupCodes& codes, const int* classes,
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
  int list[kColumnSets + 1][kMaxGroupWidth], length[kColumnSets + 1] = {};
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

#endif
