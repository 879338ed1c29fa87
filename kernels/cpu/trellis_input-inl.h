// The input of a trellis product: the tables of a chunk of columns (trellis_gemv.h).
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_TRELLIS_INPUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_TRELLIS_INPUT_INL_H_
#undef BILLM_TRELLIS_INPUT_INL_H_
#else
#define BILLM_TRELLIS_INPUT_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "hwy/highway.h"
#include "kernels/cpu/trellis_gemv.h"
#include "kernels/cpu/trellis_vbmi-inl.h"
#include "kernels/cpu/trellis_words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128

constexpr bool kSplit = false;

#else

// The tables of a group whose columns are worth `input`.
HWY_INLINE void MakeTable(const TrellisTable& table, const int16_t* input, uint8_t* to) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<int16_t, 32> d;
  const hn::Repartition<uint8_t, decltype(d)> d8;
  const int n = static_cast<int>(hn::Lanes(d));
  hn::Vec<decltype(d)> x[kTrellisColumns];
  for (int j = 0; j < kTrellisColumns; ++j) x[j] = hn::Set(d, input[j]);
  [[maybe_unused]] const auto bias = hn::Set(d, kTrellisHighBias << kTrellisLowBits);
  [[maybe_unused]] const auto mask = hn::Set(d, (1 << kTrellisLowBits) - 1);
  [[maybe_unused]] const auto bytes = [&](auto a, auto b) HWY_ATTR {
    return hn::ConcatEven(d8, hn::BitCast(d8, b), hn::BitCast(d8, a));
  };
  const auto entries = [&](int s) HWY_ATTR {
    auto sum = hn::MulFixedPoint15(x[0], hn::Load(d, table.wide[0] + s));
    for (int j = 1; j < kTrellisColumns; ++j) {
      sum = hn::Add(sum, hn::MulFixedPoint15(x[j], hn::Load(d, table.wide[j] + s)));
    }
    return hn::MulFixedPoint15(sum, hn::Set(d, 1 << 11));  // (sum + 8) / 16
  };
  if constexpr (!kSplit) {
    auto* words = reinterpret_cast<int16_t*>(to);
    for (int s = 0; s < kTrellisStates; s += n) hn::Store(entries(s), d, words + s);
    return;
  }
  for (int s = 0; s < kTrellisStates; s += 2 * n) {
    const auto a = hn::Add(entries(s), bias), b = hn::Add(entries(s + n), bias);
    hn::Store(bytes(hn::And(a, mask), hn::And(b, mask)), d8, to + s);
    hn::Store(bytes(hn::ShiftRight<kTrellisLowBits>(a), hn::ShiftRight<kTrellisLowBits>(b)), d8,
              to + kTrellisStates + s);
  }
}

#endif

// The tables of zeros.
inline void ZeroChunk(uint8_t* tables) {
  for (int g = 0; g < kTrellisChunk; ++g, tables += kTrellisTableBytes) {
    std::fill_n(tables, kTrellisTableBytes, uint8_t{0});
    if (kSplit) {
      std::fill_n(tables + kTrellisStates, kTrellisStates, uint8_t{kTrellisHighBias});
    }
  }
}

bool SplitTables() { return kSplit; }

// x [32 * 4], aligned.
void FillChunk(const TrellisTable& table, const float* x, uint8_t* tables, float* step) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  trellis_chunk_reference(table, x, reinterpret_cast<int16_t*>(tables), step);
#else
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<float, 16> d;
  using V = hn::Vec<decltype(d)>;
  const hn::Rebind<int16_t, decltype(d)> half;
  const int n = static_cast<int>(hn::Lanes(d));
  V most = hn::Zero(d), nothing = hn::Zero(d);
  for (int i = 0; i < kTrellisChunk * kTrellisColumns; i += n) {
    const V value = hn::Load(d, x + i);
    most = hn::Max(hn::Abs(value), most);
    nothing = hn::Add(nothing, hn::Sub(value, value));  // NaN where something is not finite
  }
  const float largest = hn::GetLane(hn::MaxOfLanes(d, most));
  const bool finite = hn::GetLane(hn::SumOfLanes(d, nothing)) == 0;
  if (!finite || largest < kTrellisSmallest) {
    ZeroChunk(tables);
    *step = finite ? 0.0f : NAN;
    return;
  }
  const V inverse = hn::Set(d, 1.0f / largest);
  V squares = hn::Zero(d);
  for (int g = 0; g < kTrellisChunk; g += n) {
    V in[kTrellisColumns];
    hn::LoadInterleaved4(d, x + g * kTrellisColumns, in[0], in[1], in[2], in[3]);
    for (V& value : in) {
      value = hn::Mul(value, inverse);
      value = hn::Mul(value, value);
    }
    squares = hn::Max(squares, hn::Add(hn::Add(in[0], in[1]), hn::Add(in[2], in[3])));
  }
  const float longest = std::sqrt(hn::GetLane(hn::MaxOfLanes(d, squares)));
  const float steps = trellis_input_steps(table) / longest;
  *step = largest / steps * 2048.0f;
  alignas(64) int16_t input[kTrellisChunk * kTrellisColumns];
  for (int i = 0; i < kTrellisChunk * kTrellisColumns; i += n) {
    const V value = hn::Mul(hn::Mul(hn::Load(d, x + i), inverse), hn::Set(d, steps));
    hn::Store(hn::DemoteTo(half, hn::NearestInt(value)), half, input + i);
  }
  for (int g = 0; g < kTrellisChunk; ++g) {
    MakeTable(table, input + g * kTrellisColumns, tables + g * kTrellisTableBytes);
  }
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#endif
