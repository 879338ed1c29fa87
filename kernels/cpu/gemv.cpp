// Highway implementation of gemv.h.
//
// Tables of octet o: [o / interleave][half][o % interleave][16] bytes, half 0 for columns 0..3 of
// the octet, and every entry is its rounded sum plus 127.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemv.cpp"
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format off
#include "hwy/cache_control.h"
#include "hwy/highway.h"
// clang-format on

#include <algorithm>
#include <cmath>

#include "billm/base/log8.h"
#include "kernels/cpu/gemv.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using DI = hn::RebindToSigned<D>;
using V = hn::Vec<D>;

constexpr int kBias = 127;     // of table entries
constexpr int kMostRows = 64;  // of a tile
// How far ahead planes are fetched: hardware does not look past the end of a page. In memory 1.4
// times as fast as without on a Xeon of 2023 (1 thread, 4096 x 4096 layers of 2 and 4 planes).
[[maybe_unused]] constexpr int kPrefetch = 4096;

// ---- Levels
// ---------------------------------------------------------------------------------------

alignas(64) constexpr float kSmallSteps[16] = {
    kLog8Steps[0] * 0x1p-16f,  kLog8Steps[1] * 0x1p-16f,  kLog8Steps[2] * 0x1p-16f,
    kLog8Steps[3] * 0x1p-16f,  kLog8Steps[4] * 0x1p-16f,  kLog8Steps[5] * 0x1p-16f,
    kLog8Steps[6] * 0x1p-16f,  kLog8Steps[7] * 0x1p-16f,  kLog8Steps[8] * 0x1p-16f,
    kLog8Steps[9] * 0x1p-16f,  kLog8Steps[10] * 0x1p-16f, kLog8Steps[11] * 0x1p-16f,
    kLog8Steps[12] * 0x1p-16f, kLog8Steps[13] * 0x1p-16f, kLog8Steps[14] * 0x1p-16f,
    kLog8Steps[15] * 0x1p-16f};

// kSmallSteps[index], index 0..15.
HWY_INLINE V SmallSteps(D d, hn::Vec<DI> index) {
#if HWY_TARGET <= HWY_AVX3
  return hn::TableLookupLanes(hn::Load(d, kSmallSteps), hn::IndicesFromVec(d, index));
#elif HWY_TARGET == HWY_AVX2
  const DI di;
  const auto low = hn::IndicesFromVec(d, hn::And(index, hn::Set(di, 7)));
  const auto upper = hn::RebindMask(d, hn::Gt(index, hn::Set(di, 7)));
  return hn::IfThenElse(upper, hn::TableLookupLanes(hn::Load(d, kSmallSteps + 8), low),
                        hn::TableLookupLanes(hn::Load(d, kSmallSteps), low));
#else
  return hn::GatherIndex(d, kSmallSteps, index);
#endif
}

// log8_decode(code, 1) of a vector of codes: see include/billm/base/log8.h.
HWY_INLINE V DecodeLog8(D d, const uint8_t* codes) {
  const DI di;
  const hn::Rebind<uint8_t, DI> d8;
  const auto code = hn::PromoteTo(di, hn::LoadU(d8, codes));
  const auto next = hn::Add(code, hn::Set(di, 1));
  const V step = SmallSteps(d, hn::And(next, hn::Set(di, 15)));
  const auto octave = hn::ShiftLeft<23>(hn::ShiftRight<4>(next));
  const V value = hn::BitCast(d, hn::Add(hn::BitCast(di, step), octave));
  return hn::IfThenZeroElse(hn::RebindMask(d, hn::Eq(code, hn::Zero(di))), value);
}

// Twice the coefficients of a segment's planes for the rows [row, row + lanes) of a tile; without
// view.base.
template <int kPlanes>
HWY_INLINE void Coefficients(D d, const PlaneTilesView& view, const PlaneSegment& segment,
                             int64_t tile, int row, V* c) {
  const int64_t at = (tile * view.level_rows + segment.level_row) * view.order.tile_rows + row;
  const int64_t next = view.order.tile_rows;
  if (view.level_kind == LevelKind::kInteger) {
    c[0] = hn::LoadU(d, view.levels + at);
    for (int p = 1; p < kPlanes; ++p) c[p] = hn::Add(c[p - 1], c[p - 1]);
    return;
  }
  V level[kPlanes];
  const int pruned = view.pruned ? 1 : 0;
  level[0] = hn::Zero(d);
  for (int p = pruned; p < kPlanes; ++p) {
    const int64_t from = at + (p - pruned) * next;
    level[p] = view.level_kind == LevelKind::kLog8 ? DecodeLog8(d, view.codes + from)
                                                   : hn::LoadU(d, view.levels + from);
  }
  c[0] = hn::Add(level[0], level[kPlanes - 1]);
  for (int p = 1; p < kPlanes; ++p) c[p] = hn::Sub(level[p], level[p - 1]);
}

// ---- Inputs
// ---------------------------------------------------------------------------------------

// Entry v of the table of x_0..x_3 is the sum of x_i where bit i of v is 1, else -x_i.
alignas(64) constexpr float kSigns[4][16] = {
    {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1},
    {-1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1},
    {-1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1},
    {-1, -1, -1, -1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1, 1, 1}};

void MakeTable(const float* x, float inverse, uint8_t* table) {
  const D d;
  const DI di;
  const hn::Rebind<uint8_t, DI> d8;
  const int n = static_cast<int>(hn::Lanes(d));
  const V x0 = hn::Set(d, x[0] * inverse), x1 = hn::Set(d, x[1] * inverse);
  const V x2 = hn::Set(d, x[2] * inverse), x3 = hn::Set(d, x[3] * inverse);
  for (int v = 0; v < 16; v += n) {
    const V low =
        hn::MulAdd(hn::Load(d, kSigns[1] + v), x1, hn::Mul(hn::Load(d, kSigns[0] + v), x0));
    const V high =
        hn::MulAdd(hn::Load(d, kSigns[3] + v), x3, hn::Mul(hn::Load(d, kSigns[2] + v), x2));
    const auto entry = hn::Add(hn::NearestInt(hn::Add(low, high)), hn::Set(di, kBias));
    hn::StoreU(hn::DemoteTo(d8, entry), d8, table + v);
  }
}

// x of a segment in run order.
void GatherSegment(const PlaneTilesView& view, const PlaneSegment& segment, const float* x,
                   float* out) {
  const D d;
  const DI di;
  const int n = static_cast<int>(hn::Lanes(d));
  const int32_t* source = view.source + 8 * int64_t{segment.first_octet};
  const int size = 8 * segment.octets;
  for (int i = 0; i < size; i += n) {
    if (size - i < n) {  // vectors of 16, segments of 8
      for (; i < size; ++i) {
        const int32_t column = source[i];
        const float scale = column < 0                     ? 0.0f
                            : view.column_scale == nullptr ? 1.0f
                                                           : view.column_scale[column];
        out[i] = column < 0 ? 0.0f : x[column] * scale;
      }
      return;
    }
    const auto index = hn::LoadU(di, source + i);
    const auto inside = hn::Max(index, hn::Zero(di));
    V value = hn::GatherIndex(d, x, inside);
    if (view.column_scale != nullptr) {
      value = hn::Mul(value, hn::GatherIndex(d, view.column_scale, inside));
    }
    hn::StoreU(hn::IfThenElseZero(hn::RebindMask(d, hn::Eq(index, inside)), value), d, out + i);
  }
}

// Input of a segment: x [cols] -> x in run order, tables, scale and sum.
void FillSegment(const PlaneTilesView& view, const float* x, int s, float* run, uint8_t* tables,
                 float* scale, float* sum) {
  const D d;
  const int n = static_cast<int>(hn::Lanes(d)), interleave = view.order.interleave;
  const PlaneSegment& segment = view.segments[s];
  float* from = run + 8 * int64_t{segment.first_octet};
  GatherSegment(view, segment, x, from);
  const int size = 8 * segment.octets;
  V total = hn::Zero(d);
  float largest = 0;
  alignas(64) float magnitude[16] = {};
  for (int i = 0; i < size; i += n) {
    V value;
    if (size - i < n) {  // vectors of 16, segments of 8
      alignas(64) float rest[16] = {};
      std::copy_n(from + i, size - i, rest);
      value = hn::Load(d, rest);
    } else {
      value = hn::LoadU(d, from + i);
    }
    total = hn::Add(total, value);
#if HWY_TARGET == HWY_SCALAR
    const float* four = from + i / 4 * 4;
    const V sums = hn::Set(
        d, (std::fabs(four[0]) + std::fabs(four[1])) + (std::fabs(four[2]) + std::fabs(four[3])));
#else
    // |x_0| + ... + |x_3| in every lane of a group of four.
    V sums = hn::Abs(value);
    sums = hn::Add(sums, hn::Shuffle2301(sums));
    sums = hn::Add(sums, hn::Shuffle1032(sums));
#endif
    hn::Store(hn::Max(sums, hn::Load(d, magnitude)), d, magnitude);
  }
  for (const float value : magnitude) largest = std::max(largest, value);
  const float inverse = largest > 0 ? static_cast<float>(kBias) / largest : 0.0f;
  scale[s] = largest * (1.0f / static_cast<float>(kBias));
  sum[s] = hn::GetLane(hn::SumOfLanes(d, total));
  // Tables cannot say NaN or infinity, so the scale does: the products are then NaN.
  if (!std::isfinite(sum[s]) || !std::isfinite(largest)) scale[s] = NAN;
  for (int i = 0; i < segment.octets; ++i) {
    const int octet = segment.first_octet + i;
    uint8_t* low =
        tables + 32 * int64_t{octet / interleave * interleave} + 16 * (octet % interleave);
    MakeTable(from + 8 * i, inverse, low);
    MakeTable(from + 8 * i + 4, inverse, low + 16 * interleave);
  }
}

// ---- Products
// -------------------------------------------------------------------------------------

// What the kernels of a group need.
struct Task {
  const PlaneTilesView& view;
  const PlaneGroup& group;
  const GemvInput* inputs;
  int64_t tile;
  float* y;  // [tokens][kMostRows], of the tile
};

// y[t][row ...] += scale/2 * sum_p c_p sums[p][t] + constant * (sum of x).
template <int kPlanes, int kTokens>
HWY_INLINE void AddSegment(D d, const Task& task, int s, int row, const V (*sums)[kTokens]) {
  const PlaneTilesView& view = task.view;
  V c[kPlanes];
  Coefficients<kPlanes>(d, view, view.segments[s], task.tile, row, c);
  for (int t = 0; t < kTokens; ++t) {
    V sum = hn::Mul(c[0], sums[0][t]);
    for (int p = 1; p < kPlanes; ++p) sum = hn::MulAdd(c[p], sums[p][t], sum);
    float* y = task.y + t * kMostRows + row;
    V result =
        hn::MulAdd(sum, hn::Set(d, 0.5f * view.base * task.inputs[t].scale()[s]), hn::Load(d, y));
    if (view.constants != nullptr) {
      const float* constant =
          view.constants + (task.tile * view.segment_count + s) * view.order.tile_rows + row;
      result = hn::MulAdd(hn::LoadU(d, constant), hn::Set(d, task.inputs[t].sum()[s]), result);
    }
    hn::Store(result, d, y);
  }
}

#if HWY_TARGET <= HWY_AVX3_DL

constexpr TileOrder kOrder = {.tile_rows = 16, .interleave = 4, .split = false, .folded = true};

// _mm512_dpbusd_epi32: Highway 1.0 enables avxvnni for this target where avx512vnni is meant, so
// that compilers refuse the intrinsic. The target is only taken on CPUs that have the instruction.
HWY_INLINE __m512i AddProducts(__m512i sum, __m512i a, __m512i b) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

// Line by line: a vector has 16 rows of 4 octets. vpermb looks a nibble of each up in the tables of
// the four octets, vpdpbusd adds the four results of a row.
template <int kPlanes, int kTokens, int kStored = kPlanes>
void GroupProduct(const Task& task) {
  const D d;
  const PlaneGroup& group = task.group;
  const uint8_t* lines = task.view.planes + task.tile * task.view.tile_bytes + group.offset;
  const __m512i nibble = _mm512_set1_epi8(0x0f);
  const __m512i place = _mm512_set1_epi32(0x30201000);  // where the table of each octet begins
  for (int s = group.first_segment; s < group.first_segment + group.segments; ++s) {
    const PlaneSegment& segment = task.view.segments[s];
    const int begin = segment.first_octet - group.first_octet, end = begin + segment.octets;
    const int first = begin / 4, last = (end - 1) / 4;
    __m512i acc[kPlanes][kTokens];
    for (auto& of_plane : acc) {
      for (__m512i& sum : of_plane) sum = _mm512_set1_epi32(-2 * kBias * segment.octets);
    }
    for (int q = first; q <= last; ++q) {
      uint32_t ones = 0x01010101u;  // the octets of the segment
      if (q == first) ones &= ~uint32_t{0} << (8 * (begin % 4));
      if (q == last) ones &= ~uint32_t{0} >> (8 * (3 - (end - 1) % 4));
      const __m512i one = _mm512_set1_epi32(static_cast<int>(ones));
      const int64_t table = 128 * (int64_t{group.first_octet / 4} + q);
      __m512i bytes[kPlanes], low[kPlanes], high[kPlanes];
      for (int p = 0; p < kStored; ++p) {
        const uint8_t* line = lines + 64 * (int64_t{q} * kStored + p);
        hwy::Prefetch(line + kPrefetch);
        bytes[p] = _mm512_load_si512(line);
      }
      if constexpr (kStored < kPlanes) {  // unfold()
        const __m512i sign = bytes[0], one_of = bytes[1], two_of = bytes[2];
        bytes[1] = _mm512_ternarylogic_epi32(sign, one_of, two_of, 0xE1);  // ~(a ^ (b | c))
        bytes[2] = _mm512_ternarylogic_epi32(sign, two_of, two_of, 0xC3);  // ~(a ^ b)
        bytes[3] = _mm512_ternarylogic_epi32(sign, one_of, two_of, 0x87);  // ~(a ^ (b & c))
      }
      for (int p = 0; p < kPlanes; ++p) {
        // (a & nibble) | place
        low[p] = _mm512_ternarylogic_epi32(bytes[p], nibble, place, 0xEA);
        high[p] = _mm512_ternarylogic_epi32(_mm512_srli_epi32(bytes[p], 4), nibble, place, 0xEA);
      }
      for (int t = 0; t < kTokens; ++t) {
        const uint8_t* tables = task.inputs[t].tables() + table;
        const __m512i low_table = _mm512_load_si512(tables);
        const __m512i high_table = _mm512_load_si512(tables + 64);
        for (int p = 0; p < kPlanes; ++p) {
          acc[p][t] = AddProducts(acc[p][t], _mm512_permutexvar_epi8(low[p], low_table), one);
          acc[p][t] = AddProducts(acc[p][t], _mm512_permutexvar_epi8(high[p], high_table), one);
        }
      }
    }
    V sums[kPlanes][kTokens];
    for (int p = 0; p < kPlanes; ++p) {
      for (int t = 0; t < kTokens; ++t) sums[p][t] = V{_mm512_cvtepi32_ps(acc[p][t])};
    }
    AddSegment<kPlanes, kTokens>(d, task, s, 0, sums);
  }
}

#elif HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128

constexpr TileOrder kOrder = {.tile_rows = 64, .interleave = 1, .split = true, .folded = true};

// Octet by octet: a vector has an octet of as many rows as it has bytes. The sums of a segment fit
// 16 bits; those of the even bytes are found by taking the odd ones from the sum of pairs.
template <int kPlanes, int kTokens, int kStored = kPlanes>
void GroupProduct(const Task& task) {
  const D d;
  const DI di;
  const hn::CappedTag<uint8_t, 64> d8;
  const hn::RepartitionToWide<decltype(d8)> d16;
  const hn::Rebind<int16_t, DI> half;
  const int bytes_in = static_cast<int>(hn::Lanes(d8)), n = static_cast<int>(hn::Lanes(d));
  const PlaneGroup& group = task.group;
  const uint8_t* lines = task.view.planes + task.tile * task.view.tile_bytes + group.offset;
  const auto nibble = hn::Set(d8, 0x0f);
  alignas(64) uint16_t sums16[kPlanes][kTokens][kMostRows];
  for (int s = group.first_segment; s < group.first_segment + group.segments; ++s) {
    const PlaneSegment& segment = task.view.segments[s];
    const int begin = segment.first_octet - group.first_octet;
    for (int part = 0; part < kMostRows; part += bytes_in) {
      hn::Vec<decltype(d16)> all[kPlanes][kTokens], odd[kPlanes][kTokens];
      for (int p = 0; p < kPlanes; ++p) {
        for (int t = 0; t < kTokens; ++t) all[p][t] = odd[p][t] = hn::Zero(d16);
      }
      for (int o = begin; o < begin + segment.octets; ++o) {
        hn::Vec<decltype(d8)> octets[kPlanes];
        for (int p = 0; p < kStored; ++p) {
          const uint8_t* line = lines + 64 * (int64_t{o} * kStored + p) + part;
          hwy::Prefetch(line + kPrefetch);
          octets[p] = hn::Load(d8, line);
        }
        if constexpr (kStored < kPlanes) {  // unfold()
          const auto sign = octets[0], low = octets[1], high = octets[2];
          octets[1] = hn::Not(hn::Xor(sign, hn::Or(low, high)));
          octets[2] = hn::Not(hn::Xor(sign, high));
          octets[3] = hn::Not(hn::Xor(sign, hn::And(low, high)));
        }
        for (int p = 0; p < kPlanes; ++p) {
          const auto bytes = octets[p];
          const auto low = hn::And(bytes, nibble);
          const auto high =
              hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, bytes))), nibble);
          for (int t = 0; t < kTokens; ++t) {
            const uint8_t* table = task.inputs[t].tables() + 32 * (int64_t{group.first_octet} + o);
            const auto a = hn::BitCast(d16, hn::TableLookupBytes(hn::LoadDup128(d8, table), low));
            const auto b =
                hn::BitCast(d16, hn::TableLookupBytes(hn::LoadDup128(d8, table + 16), high));
            all[p][t] = hn::Add(all[p][t], hn::Add(a, b));
            odd[p][t] = hn::Add(odd[p][t], hn::Add(hn::ShiftRight<8>(a), hn::ShiftRight<8>(b)));
          }
        }
      }
      for (int p = 0; p < kPlanes; ++p) {
        for (int t = 0; t < kTokens; ++t) {
          uint16_t* to = sums16[p][t] + part / 2;
          hn::Store(hn::Sub(all[p][t], hn::ShiftLeft<8>(odd[p][t])), d16, to);
          hn::Store(odd[p][t], d16, to + kMostRows / 2);
        }
      }
    }
    const auto bias = hn::Set(di, 2 * kBias * segment.octets);
    for (int row = 0; row < kMostRows; row += n) {
      V sums[kPlanes][kTokens];
      for (int p = 0; p < kPlanes; ++p) {
        for (int t = 0; t < kTokens; ++t) {
          const auto from = reinterpret_cast<const int16_t*>(sums16[p][t]) + row;
          const auto sum = hn::PromoteTo(di, hn::LoadU(half, from));
          sums[p][t] = hn::ConvertTo(d, hn::Sub(sum, bias));
        }
      }
      AddSegment<kPlanes, kTokens>(d, task, s, row, sums);
    }
  }
}

#endif

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128

constexpr TileOrder kOrder = {.tile_rows = 64, .interleave = 1, .split = false, .folded = true};

void Gemv(const PlaneTilesView& view, const GemvInput* inputs, int tokens, int64_t first,
          int64_t count, float* y, int64_t stride) {
  for (int t = 0; t < tokens; ++t) {
    gemv_reference(view, inputs[t].x(), first, count, y + t * stride);
  }
}

void DecodeTiles(const PlaneTilesView& view, int64_t first, int64_t count, float* out,
                 int64_t stride) {
  decode_reference(view, first, count, out, stride);
}

#else

// y[t][i] += the scattered integers of row first_row + i.
void AddScattered(const PlaneTilesView& view, const GemvInput* inputs, int tokens,
                  int64_t first_row, int64_t rows, float* y) {
  const D d;
  const DI di;
  const hn::Rebind<uint8_t, DI> d8;
  const int n = static_cast<int>(hn::Lanes(d));
  const ScatteredView& scattered = view.scattered;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = first_row + i;
    const V step = hn::Set(d, scattered.step[row]);
    V sum[kMaxGemvTokens];
    for (V& of_token : sum) of_token = hn::Zero(d);
    uint32_t entry = scattered.start[row];
    for (int s = 0; s < view.segment_count; ++s) {
      const int64_t at = row * view.segment_count + s;
      const int count = scattered.count[at];
      const V shift = hn::Set(d, scattered.shift[at]);
      const int64_t from = 8 * int64_t{view.segments[s].first_octet};
      for (int e = 0; e < count;
           e += n, entry += static_cast<uint32_t>(std::min(n, count - e + n))) {
        const auto column = hn::PromoteTo(di, hn::LoadU(d8, scattered.column + entry));
        const auto code = hn::PromoteTo(di, hn::LoadU(d8, scattered.code + entry));
        V value = hn::MulAdd(hn::ConvertTo(d, code), step, shift);
        if (count - e < n) {
          value = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(count - e)), value);
        }
        for (int t = 0; t < tokens; ++t) {
          sum[t] = hn::MulAdd(value, hn::GatherIndex(d, inputs[t].x() + from, column), sum[t]);
        }
      }
    }
    for (int t = 0; t < tokens; ++t) {
      y[t * kMostRows + i] += hn::GetLane(hn::SumOfLanes(d, sum[t]));
    }
  }
}

template <int kPlanes, int kStored = kPlanes>
void GroupTokens(const Task& task, int tokens) {
  // More sums than this do not fit the registers.
  if constexpr (kPlanes <= 2) {
    if (tokens == 4) return GroupProduct<kPlanes, 4, kStored>(task);
  }
  if constexpr (kPlanes <= 4) {
    if (tokens == 2) return GroupProduct<kPlanes, 2, kStored>(task);
  }
  for (int t = 0; t < tokens; ++t) {
    Task one = {task.view, task.group, task.inputs + t, task.tile, task.y + t * kMostRows};
    GroupProduct<kPlanes, 1, kStored>(one);
  }
}

// Tokens in fours, twos and ones.
void Gemv(const PlaneTilesView& view, const GemvInput* inputs, int tokens, int64_t first,
          int64_t count, float* y, int64_t stride) {
  using Kernel = void (*)(const Task&, int);
  static constexpr Kernel kKernels[kMaxPlanes + 1] = {
      nullptr,        GroupTokens<1>, GroupTokens<2>, GroupTokens<3>, GroupTokens<4>,
      GroupTokens<5>, GroupTokens<6>, GroupTokens<7>, GroupTokens<8>};
  const int tile_rows = view.order.tile_rows;
  alignas(64) float sums[kMaxGemvTokens * kMostRows];
  for (int64_t tile = first; tile < first + count; ++tile) {
    std::fill_n(sums, tokens * kMostRows, 0.0f);
    for (int g = 0; g < view.group_count; ++g) {
      const PlaneGroup& group = view.groups[g];
      const int at_once = group.planes <= 2 ? 4 : group.planes <= 4 ? 2 : 1;
      for (int t = 0; t < tokens;) {
        const int left = tokens - t;
        const int now = left >= at_once ? at_once : left >= 2 ? 2 : 1;
        const Kernel kernel = group.stored < group.planes
                                  ? GroupTokens<kFoldedPlanes, kFoldedStored>
                                  : kKernels[group.planes];
        kernel({view, group, inputs + t, tile, sums + t * kMostRows}, std::min(now, at_once));
        t += std::min(now, at_once);
      }
    }
    const int64_t row = tile * tile_rows;
    const int64_t rows = std::min<int64_t>(tile_rows, view.rows - row);
    if (view.scattered.start != nullptr) AddScattered(view, inputs, tokens, row, rows, sums);
    for (int t = 0; t < tokens; ++t) {
      std::copy_n(sums + t * kMostRows, rows, y + t * stride + row);
    }
  }
}

// The low byte of each lane is the octet of a row from `row` on, `line` the octet's for row 0.
template <class DI_>
HWY_INLINE hn::Vec<DI_> LoadOctets(DI_ di, const TileOrder& order, const uint8_t* line, int row) {
#if HWY_TARGET <= HWY_AVX3_DL
  (void)order, (void)row;  // a line has four octets of each of 16 rows
  return hn::LoadU(di, reinterpret_cast<const int32_t*>(line));
#else
  const hn::Rebind<uint16_t, DI_> d16;  // two rows, the second of which is in the tile's upper half
  const int half = order.tile_rows / 2, upper = row >= half ? 1 : 0;
  const auto pairs = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(line) + (row - upper * half));
  const auto lanes = hn::PromoteTo(di, pairs);
  return upper != 0 ? hn::ShiftRight<8>(lanes) : lanes;
#endif
}

// The weights of one segment of a tile.
template <int kPlanes, int kStored = kPlanes>
void DecodeSegment(const PlaneTilesView& view, const PlaneGroup& group, int s, int64_t tile,
                   float* out, int64_t stride) {
  const D d;
  const DI di;
  const int n = static_cast<int>(hn::Lanes(d));
  const PlaneSegment& segment = view.segments[s];
  const uint8_t* bytes = view.planes + tile * view.tile_bytes;
  const int64_t line_bytes = view.order.line_bytes();
  for (int row = 0; row < view.order.tile_rows; row += n) {
    V c[kPlanes];
    Coefficients<kPlanes>(d, view, segment, tile, row, c);
    const V half = hn::Set(d, 0.5f * view.base);
    for (V& of_plane : c) of_plane = hn::Mul(of_plane, half);
    V constant = hn::Zero(d);
    if (view.constants != nullptr) {
      constant = hn::LoadU(
          d, view.constants + (tile * view.segment_count + s) * view.order.tile_rows + row);
    }
    for (int o = segment.first_octet; o < segment.first_octet + segment.octets; ++o) {
      // A whole line, of which the octet's byte is then moved down (AVX3_DL), or the octet's own.
      const int in_line = (o - group.first_octet) % view.order.interleave;
      const uint8_t* line = bytes + plane_byte(view.order, group, 0, o - in_line, 0);
      hn::Vec<DI> bits[kPlanes];
      for (int p = 0; p < kStored; ++p) {
        bits[p] =
            hn::ShiftRightSame(LoadOctets(di, view.order, line + p * line_bytes, row), 8 * in_line);
      }
      if constexpr (kStored < kPlanes) {  // unfold()
        const auto sign = bits[0], low = bits[1], high = bits[2];
        bits[1] = hn::Not(hn::Xor(sign, hn::Or(low, high)));
        bits[2] = hn::Not(hn::Xor(sign, high));
        bits[3] = hn::Not(hn::Xor(sign, hn::And(low, high)));
      }
      for (auto& of_plane : bits) of_plane = hn::Not(of_plane);
      const auto sign = hn::Set(di, INT32_MIN);
      const int32_t* columns = view.source + 8 * int64_t{o};
      for (int bit = 0; bit < 8; ++bit) {
        const int32_t column = columns[bit];
        if (column < 0) continue;
        V value = constant;
        for (int p = 0; p < kPlanes; ++p) {
          const auto flip = hn::And(hn::ShiftLeftSame(bits[p], 31 - bit), sign);
          value = hn::Add(value, hn::Xor(c[p], hn::BitCast(d, flip)));
        }
        if (view.column_scale != nullptr) {
          value = hn::Mul(value, hn::Set(d, view.column_scale[column]));
        }
        hn::StoreU(value, d, out + column * stride + row);
      }
    }
  }
}

void DecodeTiles(const PlaneTilesView& view, int64_t first, int64_t count, float* out,
                 int64_t stride) {
  using Kernel = void (*)(const PlaneTilesView&, const PlaneGroup&, int, int64_t, float*, int64_t);
  static constexpr Kernel kKernels[kMaxPlanes + 1] = {
      nullptr,          DecodeSegment<1>, DecodeSegment<2>, DecodeSegment<3>, DecodeSegment<4>,
      DecodeSegment<5>, DecodeSegment<6>, DecodeSegment<7>, DecodeSegment<8>};
  const int tile_rows = view.order.tile_rows;
  for (int64_t tile = first; tile < first + count; ++tile) {
    float* to = out + (tile - first) * tile_rows;
    for (int g = 0; g < view.group_count; ++g) {
      const PlaneGroup& group = view.groups[g];
      for (int s = group.first_segment; s < group.first_segment + group.segments; ++s) {
        const Kernel kernel = group.stored < group.planes
                                  ? DecodeSegment<kFoldedPlanes, kFoldedStored>
                                  : kKernels[group.planes];
        kernel(view, group, s, tile, to, stride);
      }
    }
    if (view.scattered.start == nullptr) continue;
    for (int i = 0; i < tile_rows && tile * tile_rows + i < view.rows; ++i) {
      const int64_t row = tile * tile_rows + i;
      uint32_t entry = view.scattered.start[row];
      for (int s = 0; s < view.segment_count; ++s) {
        const int64_t at = row * view.segment_count + s;
        for (const uint32_t end = entry + view.scattered.count[at]; entry < end; ++entry) {
          const int32_t column =
              view.source[8 * int64_t{view.segments[s].first_octet} + view.scattered.column[entry]];
          const float scale = view.column_scale == nullptr ? 1.0f : view.column_scale[column];
          to[column * stride + i] +=
              scale * (static_cast<float>(view.scattered.code[entry]) * view.scattered.step[row] +
                       view.scattered.shift[at]);
        }
      }
    }
  }
}

#endif

TileOrder Order() { return kOrder; }

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace billm::kernels {

HWY_EXPORT(Order);
HWY_EXPORT(FillSegment);
HWY_EXPORT(Gemv);
HWY_EXPORT(DecodeTiles);

TileOrder cpu_tile_order() { return HWY_DYNAMIC_DISPATCH(Order)(); }

void GemvInput::reserve(const PlaneTilesView& view) {
  if (octets_ < view.octets) {
    const auto octets = static_cast<size_t>(view.octets);
    tables_ = hwy::AllocateAligned<uint8_t>(32 * octets);
    x_ = hwy::AllocateAligned<float>(8 * octets + kSegmentColumns);
    if (tables_ == nullptr || x_ == nullptr) throw std::bad_alloc();
    // What stands between groups, and behind the end, is read and not used.
    std::fill_n(tables_.get(), 32 * octets, uint8_t{0});
    std::fill_n(x_.get(), 8 * octets + kSegmentColumns, 0.0f);
    octets_ = view.octets;
  }
  if (segments_ < view.segment_count) {
    scale_ = hwy::AllocateAligned<float>(static_cast<size_t>(view.segment_count));
    sum_ = hwy::AllocateAligned<float>(static_cast<size_t>(view.segment_count));
    if (scale_ == nullptr || sum_ == nullptr) throw std::bad_alloc();
    segments_ = view.segment_count;
  }
}

void GemvInput::fill(const PlaneTilesView& view, const float* x, int first, int count) {
  for (int s = first; s < first + count; ++s) {
    HWY_DYNAMIC_DISPATCH(FillSegment)
    (view, x, s, x_.get(), tables_.get(), scale_.get(), sum_.get());
  }
}

void gemv(const PlaneTilesView& view, const GemvInput* inputs, int tokens, int64_t first,
          int64_t count, float* y, int64_t stride) {
  HWY_DYNAMIC_DISPATCH(Gemv)(view, inputs, tokens, first, count, y, stride);
}

void decode_tiles(const PlaneTilesView& view, int64_t first, int64_t count, float* out,
                  int64_t stride) {
  HWY_DYNAMIC_DISPATCH(DecodeTiles)(view, first, count, out, stride);
}

}  // namespace billm::kernels
#endif
