// The product of a group with AVX-512 VBMI and VNNI, in lines of 16 rows and 4 octets.
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_GEMV_VBMI_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_GEMV_VBMI_INL_H_
#undef BILLM_GEMV_VBMI_INL_H_
#else
#define BILLM_GEMV_VBMI_INL_H_
#endif

// clang-format off
#include "hwy/cache_control.h"
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/gemv_segment-inl.h"

#if HWY_TARGET <= HWY_AVX3_DL
HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

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

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();
#endif

#endif
