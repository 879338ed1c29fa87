// Highway implementation of rotation.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rotation.cpp"
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format off
#include "hwy/highway.h"
// clang-format on

#include <algorithm>
#include <new>

#include "kernels/cpu/rotation.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using DU = hn::RebindToUnsigned<D>;
using V = hn::Vec<D>;

constexpr int kGroup = 16;  // elements whose butterflies are done in registers

#if HWY_TARGET != HWY_SCALAR

constexpr int kLanes = hn::MaxLanes(D());
constexpr int kVectors = kGroup / kLanes;  // of a group

alignas(64) constexpr uint32_t kBit[16] = {1,       2,       4,       8,      1 << 4,  1 << 5,
                                           1 << 6,  1 << 7,  1 << 8,  1 << 9, 1 << 10, 1 << 11,
                                           1 << 12, 1 << 13, 1 << 14, 1 << 15};
constexpr uint32_t kMinus = uint32_t{1} << 31;
// The sign bit where lane & 1, lane & 2, lane & 4, lane & 8.
alignas(64) constexpr uint32_t kUpper[4][16] = {
    {0, kMinus, 0, kMinus, 0, kMinus, 0, kMinus, 0, kMinus, 0, kMinus, 0, kMinus, 0, kMinus},
    {0, 0, kMinus, kMinus, 0, 0, kMinus, kMinus, 0, 0, kMinus, kMinus, 0, 0, kMinus, kMinus},
    {0, 0, 0, 0, kMinus, kMinus, kMinus, kMinus, 0, 0, 0, 0, kMinus, kMinus, kMinus, kMinus},
    {0, 0, 0, 0, 0, 0, 0, 0, kMinus, kMinus, kMinus, kMinus, kMinus, kMinus, kMinus, kMinus}};

// Vector v of the group that begins at element i, with the group's signs.
HWY_INLINE V WithSigns(D d, const uint64_t* signs, int64_t i, int v, V x) {
  const DU du;
  const auto word = static_cast<uint32_t>(signs[i / 64] >> (i % 64));
  const auto bits = hn::And(hn::Set(du, word), hn::Load(du, kBit + v * kLanes));
  const auto minus = hn::IfThenElseZero(hn::Eq(bits, hn::Zero(du)), hn::Set(du, kMinus));
  return hn::Xor(x, hn::BitCast(d, minus));
}

// (a, b) -> (a + b, a - b) of the lanes that are 2^kStage apart; `other` is x with them exchanged.
template <int kStage>
HWY_INLINE V Exchange(D d, V x, V other) {
  return hn::Add(other, hn::Xor(x, hn::BitCast(d, hn::Load(DU(), kUpper[kStage]))));
}

// The butterflies at the distances 1, 2, 4 and 8 of a group.
HWY_INLINE void GroupButterflies(D d, V* x) {
  for (int v = 0; v < kVectors; ++v) {
    x[v] = Exchange<0>(d, x[v], hn::Shuffle2301(x[v]));
    x[v] = Exchange<1>(d, x[v], hn::Shuffle1032(x[v]));
#if HWY_TARGET <= HWY_AVX2
    x[v] = Exchange<2>(d, x[v], hn::SwapAdjacentBlocks(x[v]));
#endif
#if HWY_TARGET <= HWY_AVX3
    x[v] = Exchange<3>(d, x[v], hn::ConcatLowerUpper(d, x[v], x[v]));
#endif
  }
  for (int distance = 1; distance < kVectors; distance *= 2) {
    for (int v = 0; v < kVectors; ++v) {
      if ((v & distance) != 0) continue;
      const V a = x[v], b = x[v + distance];
      x[v] = hn::Add(a, b);
      x[v + distance] = hn::Sub(a, b);
    }
  }
}

// Signs (where they come first) and the distances below 16, from x to y.
void Begin(const VectorRotation& rotation, const float* x, float* y) {
  const D d;
  for (int64_t i = 0; i < rotation.size(); i += kGroup) {
    V group[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      group[v] = hn::LoadU(d, x + i + v * kLanes);
      if (!rotation.transposed()) group[v] = WithSigns(d, rotation.signs(), i, v, group[v]);
    }
    GroupButterflies(d, group);
    for (int v = 0; v < kVectors; ++v) hn::StoreU(group[v], d, y + i + v * kLanes);
  }
}

// The distances from 16 on, two at a time.
void Butterflies(const VectorRotation& rotation, float* y) {
  const D d;
  int64_t distance = kGroup;
  for (; 2 * distance < rotation.power(); distance *= 4) {
    for (int64_t from = 0; from < rotation.size(); from += 4 * distance) {
      for (int64_t i = from; i < from + distance; i += kLanes) {
        float* at[4] = {y + i, y + i + distance, y + i + 2 * distance, y + i + 3 * distance};
        const V a = hn::LoadU(d, at[0]), b = hn::LoadU(d, at[1]);
        const V c = hn::LoadU(d, at[2]), e = hn::LoadU(d, at[3]);
        const V ab = hn::Add(a, b), a_b = hn::Sub(a, b), ce = hn::Add(c, e), c_e = hn::Sub(c, e);
        hn::StoreU(hn::Add(ab, ce), d, at[0]);
        hn::StoreU(hn::Add(a_b, c_e), d, at[1]);
        hn::StoreU(hn::Sub(ab, ce), d, at[2]);
        hn::StoreU(hn::Sub(a_b, c_e), d, at[3]);
      }
    }
  }
  if (distance >= rotation.power()) return;
  for (int64_t from = 0; from < rotation.size(); from += 2 * distance) {
    for (int64_t i = from; i < from + distance; i += kLanes) {
      const V a = hn::LoadU(d, y + i), b = hn::LoadU(d, y + i + distance);
      hn::StoreU(hn::Add(a, b), d, y + i);
      hn::StoreU(hn::Sub(a, b), d, y + i + distance);
    }
  }
}

// kOutputs rows of the DCT for one vector of lanes: input v is x[v * power], output u y[u * power].
template <int kOutputs>
HWY_INLINE void DctRows(D d, const float* constants, int64_t odd, int64_t power, const float* x,
                        float* y) {
  V sum[kOutputs];
  const V first = hn::LoadU(d, x);
  for (int u = 0; u < kOutputs; ++u) sum[u] = hn::Mul(hn::Set(d, constants[u]), first);
  for (int64_t v = 1; v < odd; ++v) {
    const V input = hn::LoadU(d, x + v * power);
    const float* row = constants + v * odd;
    for (int u = 0; u < kOutputs; ++u) {
      sum[u] = hn::Add(sum[u], hn::Mul(hn::Set(d, row[u]), input));
    }
  }
  for (int u = 0; u < kOutputs; ++u) hn::StoreU(sum[u], d, y + u * power);
}

// The DCT and the scale, from x to y.
void Dct(const VectorRotation& rotation, const float* x, float* y) {
  const D d;
  const int64_t odd = rotation.odd(), power = rotation.power();
  for (int64_t i = 0; i < power; i += kLanes) {
    int64_t u = 0;
    for (; u + 8 <= odd; u += 8) {
      DctRows<8>(d, rotation.constants() + u, odd, power, x + i, y + i + u * power);
    }
    for (; u + 3 <= odd; u += 3) {
      DctRows<3>(d, rotation.constants() + u, odd, power, x + i, y + i + u * power);
    }
    for (; u < odd; ++u) {
      DctRows<1>(d, rotation.constants() + u, odd, power, x + i, y + i + u * power);
    }
  }
}

// The scale, where the DCT's constants do not have it, and the signs where they come last.
void Finish(const VectorRotation& rotation, float* y) {
  const D d;
  const bool scaled = rotation.odd() > 1;
  if (scaled && !rotation.transposed()) return;
  const V scale = hn::Set(d, rotation.scale());
  for (int64_t i = 0; i < rotation.size(); i += kGroup) {
    for (int v = 0; v < kVectors; ++v) {
      V value = hn::LoadU(d, y + i + v * kLanes);
      if (!scaled) value = hn::Mul(value, scale);
      if (rotation.transposed()) value = WithSigns(d, rotation.signs(), i, v, value);
      hn::StoreU(value, d, y + i + v * kLanes);
    }
  }
}

void Rotate(const VectorRotation& rotation, const float* x, float* scratch, float* y) {
  if (rotation.odd() == 1) scratch = y;
  Begin(rotation, x, scratch);
  Butterflies(rotation, scratch);
  if (rotation.odd() > 1) Dct(rotation, scratch, y);
  Finish(rotation, y);
}

#endif  // HWY_TARGET != HWY_SCALAR

// The same in plain loops, for powers below a group.
void RotateSmall(const VectorRotation& rotation, const float* x, float* scratch, float* y) {
  const int64_t odd = rotation.odd(), power = rotation.power(), size = rotation.size();
  const auto plus = [&](int64_t i) { return (rotation.signs()[i / 64] >> (i % 64) & 1) != 0; };
  for (int64_t i = 0; i < size; ++i) scratch[i] = rotation.transposed() || plus(i) ? x[i] : -x[i];
  for (int64_t distance = 1; distance < power; distance *= 2) {
    for (int64_t i = 0; i < size; ++i) {
      if ((i & distance) != 0) continue;
      const float a = scratch[i], b = scratch[i + distance];
      scratch[i] = a + b;
      scratch[i + distance] = a - b;
    }
  }
  for (int64_t i = 0; i < size; ++i) {
    if (odd == 1) {
      y[i] = scratch[i] * rotation.scale();
      continue;
    }
    const float* constants = rotation.constants() + i / power;
    float sum = constants[0] * scratch[i % power];
    for (int64_t v = 1; v < odd; ++v) sum += constants[v * odd] * scratch[v * power + i % power];
    y[i] = sum;
  }
  if (!rotation.transposed()) return;
  for (int64_t i = 0; i < size; ++i) y[i] = plus(i) ? y[i] : -y[i];
}

void RotateVectors(const VectorRotation& rotation, const float* x, int64_t x_stride, int64_t count,
                   float* scratch, float* y, int64_t y_stride) {
  for (int64_t v = 0; v < count; ++v) {
#if HWY_TARGET != HWY_SCALAR
    if (rotation.power() >= kGroup) {
      Rotate(rotation, x + v * x_stride, scratch, y + v * y_stride);
      continue;
    }
#endif
    RotateSmall(rotation, x + v * x_stride, scratch, y + v * y_stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace billm::kernels {

HWY_EXPORT(RotateVectors);

VectorRotation::VectorRotation(int64_t odd, int64_t power, const uint64_t* signs, const double* dct,
                               double scale, bool transposed)
    : odd_(odd),
      power_(power),
      transposed_(transposed),
      signs_(signs, signs + (odd * power + 63) / 64),
      constants_(static_cast<size_t>(odd * odd)),
      scale_(static_cast<float>(scale)) {
  for (int64_t input = 0; input < odd; ++input) {
    for (int64_t output = 0; output < odd; ++output) {
      const double constant = transposed ? dct[input * odd + output] : dct[output * odd + input];
      constants_[static_cast<size_t>(input * odd + output)] = static_cast<float>(constant * scale);
    }
  }
}

void VectorRotation::apply(const float* x, int64_t x_stride, int64_t count, float* y,
                           int64_t y_stride) const {
  const auto scratch = hwy::AllocateAligned<float>(static_cast<size_t>(size()));
  if (scratch == nullptr) throw std::bad_alloc();
  HWY_DYNAMIC_DISPATCH(RotateVectors)(*this, x, x_stride, count, scratch.get(), y, y_stride);
}

}  // namespace billm::kernels
#endif
