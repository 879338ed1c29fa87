// Highway implementation of trellis_viterbi.h. The states that the 2^K values of h give in
// m + h * 256 / 2^K have the same successors, so lane by lane their least metric and its h are
// found in vectors of 16 states (more lanes would not do: with K = 4 there are 16 sets of
// successors).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/trellis_viterbi.cpp"
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format off
#include "hwy/highway.h"
// clang-format on

#include <algorithm>
#include <limits>

#include "kernels/cpu/trellis_viterbi.h"

#ifndef BILLM_TRELLIS_VITERBI_ONCE_
#define BILLM_TRELLIS_VITERBI_ONCE_
namespace billm::kernels {

// Where the numbers of a call stand in the scratch memory.
struct ViterbiMemory {
  // Rows are prepared in whole vectors.
  static constexpr int64_t kRows = 16;
  // `best` is read in 16 bytes from any place.
  static constexpr int64_t kMargin = 32;

  ViterbiMemory(int16_t* memory, int64_t rows)
      : padded((rows + kRows - 1) / kRows * kRows),
        input{memory, memory + padded, memory + 2 * padded, memory + 3 * padded},
        square(memory + 4 * padded),
        weight(memory + 5 * padded),
        best(memory + 6 * padded),
        path(best + kTrellisStates + kMargin),
        from(path + kTrellisStates) {}
  static int64_t size(int k, int64_t rows) {
    const int64_t padded = (rows + kRows - 1) / kRows * kRows;
    return 6 * padded + 2 * kTrellisStates + kMargin + (kTrellisStates >> k) * rows;
  }

  int64_t padded;
  int16_t *input[kTrellisColumns], *square, *weight;  // [padded]
  int16_t* best;                                      // [256 >> k]: of a set of predecessors
  int16_t* path;                                      // [256]: of the last row
  int16_t* from;                                      // [rows][256 >> k]: h of the best one
};

}  // namespace billm::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128

void Viterbi(const TrellisMetric& metric, int k, const float* x, const float* row_weight,
             int64_t rows, uint8_t* states, TrellisScratch* scratch) {
  (void)scratch;
  trellis_viterbi_reference(metric, k, x, row_weight, rows, states);
}

#else

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
using D16 = hn::CappedTag<int16_t, 16>;
using V16 = hn::Vec<D16>;

constexpr int kLanes = hn::MaxLanes(D16());

// The rows [first, first + lanes) in the metric's units; x and row_weight are theirs.
HWY_INLINE void PrepareRows(const TrellisMetric& metric, const float* x, const float* row_weight,
                            float scale, int64_t first, const ViterbiMemory& memory) {
  const D d;
  const hn::Rebind<int16_t, D> half;
  const V largest = hn::Set(d, kTrellisLargest), one = hn::Set(d, 1.0f);
  const V finite = hn::Set(d, std::numeric_limits<float>::max());
  V in[kTrellisColumns], y[kTrellisColumns];
  hn::LoadInterleaved4(d, x, in[0], in[1], in[2], in[3]);
  for (V& value : in) {
    const V clamped = hn::Max(hn::Min(value, largest), hn::Neg(largest));
    value = hn::IfThenElseZero(hn::Le(hn::Abs(value), finite), clamped);
  }
  for (int j = 0; j < kTrellisColumns; ++j) {
    y[j] = hn::Mul(in[0], hn::Set(d, metric.factor[0][j]));
    for (int i = 1; i < kTrellisColumns; ++i) {
      y[j] = hn::Add(y[j], hn::Mul(in[i], hn::Set(d, metric.factor[i][j])));
    }
  }
  V weight = one;
  if (row_weight != nullptr) {
    const V given = hn::LoadU(d, row_weight);
    const auto counts = hn::And(hn::Gt(given, hn::Zero(d)), hn::Le(given, finite));
    weight = hn::IfThenElseZero(counts, hn::Min(hn::Mul(given, hn::Set(d, scale)), one));
  }
  const V square = hn::Add(hn::Add(hn::Mul(y[0], y[0]), hn::Mul(y[1], y[1])),
                           hn::Add(hn::Mul(y[2], y[2]), hn::Mul(y[3], y[3])));
  const V shrink = hn::Div(weight, hn::Sqrt(hn::Max(square, one)));
  const auto store = [&](V value, float steps, int16_t* to) HWY_ATTR {
    const auto number = hn::NearestInt(hn::Mul(value, hn::Set(d, steps)));
    hn::StoreU(hn::DemoteTo(half, number), half, to + first);
  };
  for (int j = 0; j < kTrellisColumns; ++j) {
    store(hn::Mul(y[j], shrink), kTrellisInputSteps, memory.input[j]);
  }
  store(hn::Mul(hn::Min(square, one), weight), kTrellisSquareSteps, memory.square);
  store(weight, 32767.0f, memory.weight);
}

void Prepare(const TrellisMetric& metric, const float* x, const float* row_weight, int64_t rows,
             const ViterbiMemory& memory) {
  const int64_t n = static_cast<int64_t>(hn::Lanes(D()));
  const float scale = row_weight == nullptr ? 1.0f : trellis_weight_scale(row_weight, rows);
  int64_t first = 0;
  for (; first + n <= rows; first += n) {
    PrepareRows(metric, x + first * kTrellisColumns,
                row_weight == nullptr ? nullptr : row_weight + first, scale, first, memory);
  }
  if (first == rows) return;
  float rest[16 * kTrellisColumns] = {}, weights[16] = {};
  std::copy(x + first * kTrellisColumns, x + rows * kTrellisColumns, rest);
  if (row_weight != nullptr) std::copy(row_weight + first, row_weight + rows, weights);
  PrepareRows(metric, rest, row_weight == nullptr ? nullptr : weights, scale, first, memory);
}

// The least metrics of the predecessors of the states [first, first + lanes).
template <int K>
HWY_INLINE V16 Predecessors(const int16_t* best, int first) {
  const D16 d;
  if constexpr ((1 << K) >= kLanes) {
    return hn::Set(d, best[first >> K]);
  } else {
    // Lane i takes number i >> K of those that begin here.
    alignas(32) static constexpr int16_t kIndex[5][16] = {
        {},
        {0x0100, 0x0100, 0x0302, 0x0302, 0x0504, 0x0504, 0x0706, 0x0706, 0x0908, 0x0908, 0x0b0a,
         0x0b0a, 0x0d0c, 0x0d0c, 0x0f0e, 0x0f0e},
        {0x0100, 0x0100, 0x0100, 0x0100, 0x0302, 0x0302, 0x0302, 0x0302, 0x0504, 0x0504, 0x0504,
         0x0504, 0x0706, 0x0706, 0x0706, 0x0706},
        {0x0100, 0x0100, 0x0100, 0x0100, 0x0100, 0x0100, 0x0100, 0x0100, 0x0302, 0x0302, 0x0302,
         0x0302, 0x0302, 0x0302, 0x0302, 0x0302},
        {}};
    return hn::TableLookupBytes(hn::LoadDup128(d, best + (first >> K)), hn::Load(d, kIndex[K]));
  }
}

// A row, as vectors of equal lanes.
struct RowVectors {
  V16 input[kTrellisColumns];
  V16 weight;
};

// The metrics of the states [first, first + lanes).
template <int K, bool kWeighted>
HWY_INLINE V16 Path(const TrellisMetric& metric, const RowVectors& row, const int16_t* best,
                    int first) {
  const D16 d;
  V16 product[kTrellisColumns];
  for (int j = 0; j < kTrellisColumns; ++j) {
    product[j] = hn::MulFixedPoint15(row.input[j], hn::Load(d, metric.table[j] + first));
  }
  V16 norm = hn::Load(d, metric.norm + first);
  if constexpr (kWeighted) norm = hn::MulFixedPoint15(norm, row.weight);
  const V16 sum = hn::SaturatedAdd(hn::SaturatedAdd(product[0], product[1]),
                                   hn::SaturatedAdd(product[2], product[3]));
  return hn::SaturatedAdd(Predecessors<K>(best, first), hn::SaturatedSub(norm, sum));
}

// The better one, lane by lane, of the states so far and those of the other h. Recursion, so
// that no loop is left.
template <int K, bool kWeighted, int kH = 1>
HWY_INLINE void Compete(const TrellisMetric& metric, const RowVectors& row, const int16_t* best,
                        int m, V16& lowest, V16& arg) {
  if constexpr (kH < (1 << K)) {
    const V16 path = Path<K, kWeighted>(metric, row, best, m + kH * (kTrellisStates >> K));
    arg = hn::IfThenElse(hn::Lt(path, lowest), hn::Set(D16(), kH), arg);
    lowest = hn::Min(path, lowest);
    Compete<K, kWeighted, kH + 1>(metric, row, best, m, lowest, arg);
  }
}

// Of the sets [kM, ...): the best states, of which `from` gets the h and `found` the metrics.
template <int K, bool kWeighted, int kM = 0>
HWY_INLINE void CompeteSets(const TrellisMetric& metric, const RowVectors& row, const int16_t* best,
                            int16_t* from, V16* found, V16& least) {
  const D16 d;
  if constexpr (kM < (kTrellisStates >> K)) {
    V16 lowest = Path<K, kWeighted>(metric, row, best, kM), arg = hn::Zero(d);
    Compete<K, kWeighted>(metric, row, best, kM, lowest, arg);
    hn::Store(arg, d, from + kM);
    *found = lowest;
    least = hn::Min(least, lowest);
    CompeteSets<K, kWeighted, kM + kLanes>(metric, row, best, from, found + 1, least);
  }
}

template <int K, bool kWeighted>
void Search(const TrellisMetric& metric, int64_t rows, const ViterbiMemory& memory,
            uint8_t* states) {
  constexpr int kSets = kTrellisStates >> K;
  static_assert(kSets % kLanes == 0);
  const D16 d;
  const V16 floor = hn::Set(d, kTrellisFloor);
  // Each row's `best` has the next row's square in it.
  int16_t* best = memory.best;
  for (int m = 0; m < kSets; m += kLanes) {
    hn::Store(hn::SaturatedAdd(floor, hn::Set(d, memory.square[0])), d, best + m);
  }
  const auto row_vectors = [&](int64_t i) HWY_ATTR {
    RowVectors row;
    for (int j = 0; j < kTrellisColumns; ++j) row.input[j] = hn::Set(d, memory.input[j][i]);
    row.weight = hn::Set(d, memory.weight[i]);
    return row;
  };
  for (int64_t i = 0; i + 1 < rows; ++i) {
    const RowVectors row = row_vectors(i);
    int16_t* from = memory.from + i * kSets;
    V16 least = hn::Set(d, 32767), found[kSets / kLanes];
    CompeteSets<K, kWeighted>(metric, row, best, from, found, least);
    const V16 down = hn::Sub(hn::Max(hn::MinOfLanes(d, least), floor), floor);
    const V16 square = hn::Set(d, memory.square[i + 1]);
    for (int m = 0; m < kSets; m += kLanes) {
      hn::Store(hn::SaturatedAdd(hn::Sub(found[m / kLanes], down), square), d, best + m);
    }
  }
  const RowVectors row = row_vectors(rows - 1);
  for (int s = 0; s < kTrellisStates; s += kLanes) {
    hn::Store(Path<K, kWeighted>(metric, row, best, s), d, memory.path + s);
  }
  auto s =
      static_cast<int>(std::min_element(memory.path, memory.path + kTrellisStates) - memory.path);
  for (int64_t i = rows - 1; i > 0; --i) {
    states[i] = static_cast<uint8_t>(s);
    const int m = s >> K;
    s = m + memory.from[(i - 1) * kSets + m] * kSets;
  }
  states[0] = static_cast<uint8_t>(s);
}

void Viterbi(const TrellisMetric& metric, int k, const float* x, const float* row_weight,
             int64_t rows, uint8_t* states, TrellisScratch* scratch) {
  using Kernel = void (*)(const TrellisMetric&, int64_t, const ViterbiMemory&, uint8_t*);
  static constexpr Kernel kPlain[] = {Search<1, false>, Search<2, false>, Search<3, false>,
                                      Search<4, false>};
  static constexpr Kernel kWeighted[] = {Search<1, true>, Search<2, true>, Search<3, true>,
                                         Search<4, true>};
  const ViterbiMemory memory(scratch->reserve(ViterbiMemory::size(k, rows)), rows);
  Prepare(metric, x, row_weight, rows, memory);
  (row_weight == nullptr ? kPlain : kWeighted)[k - 1](metric, rows, memory, states);
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace billm::kernels {

HWY_EXPORT(Viterbi);

void trellis_viterbi(const TrellisMetric& metric, int k, const float* x, const float* row_weight,
                     int64_t rows, uint8_t* states, TrellisScratch* scratch) {
  if (rows <= 0) return;
  HWY_DYNAMIC_DISPATCH(Viterbi)(metric, k, x, row_weight, rows, states, scratch);
}

}  // namespace billm::kernels
#endif
