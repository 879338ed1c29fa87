// Index arithmetic and decoding of the CUDA kernels, for every input, on the CPU.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "kernels/cuda/gemm_body.h"
#include "kernels/cuda/launch.h"
#include "support/compare.h"
#include "support/cuda_emulator.h"
#include "support/cuda_testing.h"

namespace billm::test {
namespace {

namespace cuda = kernels::cuda;

int signed_byte(uint32_t word, int i) {
  return static_cast<int8_t>(static_cast<uint8_t>(word >> (8 * i)));
}

// Each bit of a word alone decides its byte: every value of every byte, and words of mixed bytes.
TEST(CudaDecode, SignsToBytes) {
  for (uint32_t value = 0; value < 256; ++value) {
    for (const uint32_t other : {0u, 0xffu, 0xa5u, value}) {
      const uint32_t word = value | other << 8 | (value ^ 0xff) << 16 | value << 24;
      for (int k = 0; k < 8; ++k) {
        const uint32_t bytes = cuda::signs_to_bytes(word, k);
        for (int i = 0; i < 4; ++i) {
          ASSERT_EQ(signed_byte(bytes, i), (word >> (8 * i + 7 - k)) & 1 ? 64 : -64);
        }
      }
    }
  }
}

TEST(CudaDecode, SignsToHalves) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint32_t word = bits | (bits * 40503u) << 16;
    const uint32_t c = uint32_t{float_to_half(-3.0f)} | uint32_t{float_to_half(-0.25f)} << 16;
    for (int k = 0; k < 16; ++k) {
      const uint32_t halves = cuda::signs_to_halves(word, k, c);
      ASSERT_EQ(half_to_float(static_cast<uint16_t>(halves)), (word >> (15 - k)) & 1 ? 3 : -3);
      ASSERT_EQ(half_to_float(static_cast<uint16_t>(halves >> 16)),
                (word >> (31 - k)) & 1 ? 0.25f : -0.25f);
      ASSERT_EQ(cuda::half_bit(2 * k), 15 - k);
      ASSERT_EQ(cuda::half_bit(2 * k + 1), 31 - k);
    }
  }
}

TEST(CudaDecode, BytesEqual) {
  for (uint32_t a = 0; a < 256; ++a) {
    for (uint32_t b = 0; b < 256; ++b) {
      const uint32_t mask = cuda::bytes_equal(a | b << 8 | a << 16 | (a ^ 1) << 24, b);
      ASSERT_EQ(mask, (a == b ? 0x00ff00ffu : 0) | 0xff00u | ((a ^ 1) == b ? 0xff000000u : 0));
    }
  }
}

TEST(CudaDecode, FixedPoint) {
  for (int q = -cuda::kLargestFixed; q <= cuda::kLargestFixed; ++q) {
    const int high = cuda::high_byte(q), low = cuda::low_byte(q);
    ASSERT_EQ(256 * high + low, q);
    ASSERT_TRUE(-127 <= high && high <= 127 && -128 <= low && low <= 127);
    ASSERT_EQ(cuda::join_bytes(high, low), static_cast<float>(q));
    const uint32_t word = cuda::pack_bytes(high, low, -high, low);
    ASSERT_EQ(signed_byte(word, 0), high);
    ASSERT_EQ(signed_byte(word, 1), low);
    ASSERT_EQ(signed_byte(word, 2), -high);
    ASSERT_EQ(signed_byte(word, 3), low);
  }
  for (const float largest : {1e-29f, 3e-5f, 1.0f, 65504.0f, 3e38f}) {
    const cuda::FixedScale scale = cuda::fixed_scale(cuda::float_bits(largest));
    for (int i = -1000; i <= 1000; ++i) {
      const float x = largest * (static_cast<float>(i) / 1000.0f);
      const int q = cuda::to_fixed(x, scale.inverse);
      ASSERT_LE(std::abs(q), cuda::kLargestFixed);
      ASSERT_LE(std::fabs(double{x} - double{scale.scale} * q), 0.502 * double{scale.scale});
    }
  }
  EXPECT_TRUE(std::isnan(cuda::fixed_scale(cuda::float_bits(INFINITY)).scale));
  EXPECT_TRUE(std::isnan(cuda::fixed_scale(cuda::float_bits(NAN) & 0x7fffffff).scale));
  EXPECT_EQ(cuda::fixed_scale(0).scale, 0);
  EXPECT_EQ(cuda::to_fixed(NAN, 0), 0);
}

TEST(CudaDecode, CoefficientsAreThoseOfPlaneTiles) {
  Random random(1);
  const auto compare_planes = [&](auto planes) {
    constexpr int kPlanes = decltype(planes)::value;
    for (const bool pruned : {false, true}) {
      if (pruned && kPlanes == 1) continue;
      float stored[kPlanes], level[kPlanes], actual[kPlanes], expected[kernels::kMaxPlanes];
      for (float& value : stored) value = random.normal();
      for (int i = 0; i < kPlanes; ++i) level[i] = !pruned ? stored[i] : i == 0 ? 0 : stored[i - 1];
      cuda::coefficients_of_levels(level, actual);
      kernels::plane_coefficients(kernels::LevelKind::kFloat, pruned, kPlanes, stored, expected);
      EXPECT_TRUE(close(actual, std::span<const float>(expected, kPlanes)));
    }
  };
  for (int i = 0; i < 100; ++i) {
    compare_planes(cuda::Number<1>{});
    compare_planes(cuda::Number<2>{});
    compare_planes(cuda::Number<3>{});
    compare_planes(cuda::Number<4>{});
  }
}

// Sums of two halves, rounded once: all pairs of a sample that has every exponent.
TEST(CudaDecode, AddHalves) {
  std::vector<uint16_t> sample;
  for (uint32_t bits = 0; bits < 0x7c00; bits += 97) {
    sample.push_back(static_cast<uint16_t>(bits));
    sample.push_back(static_cast<uint16_t>(bits | 0x8000));
  }
  for (const uint16_t a : sample) {
    for (const uint16_t b : sample) {
      // double holds the sum of two halves exactly; from there to the nearest half.
      const double exact = double{half_to_float(a)} + half_to_float(b);
      const uint32_t sum = cuda::add_halves(a | uint32_t{b} << 16, b | uint32_t{a} << 16);
      const float actual = half_to_float(static_cast<uint16_t>(sum));
      ASSERT_EQ(sum >> 16, sum & 0xffff);
      if (std::isinf(actual)) {
        ASSERT_GE(std::fabs(exact), 65520);
        continue;
      }
      for (const int step : {-1, 1}) {
        const float other = half_to_float(static_cast<uint16_t>((sum & 0xffff) + step));
        if (!std::isfinite(other)) continue;
        ASSERT_LE(std::fabs(actual - exact), std::fabs(other - exact));
      }
    }
  }
}

TEST(CudaStrips, ColumnsOfAStripStandOnce) {
  std::set<int> places;
  for (int octet = 0; octet < 16; ++octet) {
    for (int bit = 0; bit < 8; ++bit) {
      places.insert(cuda::column_at(octet, bit));
      EXPECT_EQ(cuda::place_in_strips(48 + octet, bit), 3 * 128 + cuda::column_at(octet, bit));
    }
  }
  EXPECT_EQ(places.size(), 128u);
  EXPECT_EQ(*places.begin(), 0);
  EXPECT_EQ(*places.rbegin(), 127);
}

// Every byte of a tile is loaded by one lane, which takes it for the row and octet that it is.
TEST(CudaStrips, LanesLoadEveryByteOnce) {
  for (const RegionFormat& shape : cuda_shapes(5)) {
    SCOPED_TRACE(text_of(shape));
    const CudaLayer layer(shape, 1);
    const kernels::PlaneTilesView& view = layer.tiles.view();
    std::vector<int> loaded(static_cast<size_t>(view.tile_bytes), 0);
    for (int g = 0; g < layer.layer.group_count; ++g) {
      const cuda::StripGroup& group = layer.layer.groups[g];
      for (int strip = group.first_strip; strip < group.first_strip + group.strips; ++strip) {
        ASSERT_EQ(cuda::group_of_strip(layer.layer, strip), g);
        for (int plane = 0; plane < group.stored; ++plane) {
          for (int lane = 0; lane < 32; ++lane) {
            const int64_t offset = cuda::lane_offset(group, strip, plane, lane);
            if (offset < 0) continue;
            ASSERT_EQ(offset % 16, 0);
            for (int byte = 0; byte < 16; ++byte) {
              const int row = lane / 4 * 4 + byte / 4;
              const int octet = view.groups[g].first_octet + (strip - group.first_strip) * 16 +
                                lane % 4 * 4 + byte % 4;
              ASSERT_EQ(offset + byte, plane_byte(view.order, view.groups[g], plane, octet, row));
              ++loaded[static_cast<size_t>(offset + byte)];
            }
          }
        }
      }
    }
    ASSERT_EQ(std::count(loaded.begin(), loaded.end(), 1), view.tile_bytes);
  }
}

TEST(CudaStrips, PlacesOfEveryOctet) {
  for (const RegionFormat& shape : cuda_shapes(3)) {
    SCOPED_TRACE(text_of(shape));
    const CudaLayer layer(shape, 1);
    const kernels::PlaneTilesView& view = layer.tiles.view();
    for (const int slots : {4, 2, 1}) {
      const cuda::Schedule& schedule = layer.layer.schedules[cuda::schedule_index(slots)];
      const auto& places = layer.plan.schedules[cuda::schedule_index(slots)].places;
      ASSERT_EQ(places.size() % static_cast<size_t>(slots), 0u);
      std::vector<int> round_planes(places.size() / static_cast<size_t>(slots), 0);
      int before = -1;
      for (int strip = 0; strip < layer.layer.strips; ++strip) {
        const int g = cuda::group_of_strip(layer.layer, strip);
        const cuda::StripGroup& group = layer.layer.groups[g];
        const cuda::PlaceRange range = schedule.of_strip[strip];
        ASSERT_GT(range.first, before);
        before = range.last;
        const int count = range.last - range.first + 1;
        ASSERT_TRUE(count >= 1 && count <= 16);
        if (count <= slots) {
          ASSERT_EQ(range.first / slots, range.last / slots);
        }
        for (int p = range.first; p <= range.last; ++p) {
          ASSERT_EQ(places[static_cast<size_t>(p)].strip, strip);
          int& planes = round_planes[static_cast<size_t>(p / slots)];
          ASSERT_TRUE(planes == 0 || planes == group.planes);
          planes = group.planes;
        }
        for (int o = 0; o < 16; ++o) {
          const int octet = view.groups[g].first_octet + (strip - group.first_strip) * 16 + o;
          if (octet >= view.groups[g].first_octet + view.groups[g].octets) break;
          const int index = schedule.place_of_octet[strip * 16 + o];
          const int place = range.first + ((index - range.first) & 255);
          ASSERT_LE(place, range.last);
          const cuda::Place& found = places[static_cast<size_t>(place)];
          const kernels::PlaneSegment& segment = view.segments[found.segment];
          const bool inside =
              octet >= segment.first_octet && octet < segment.first_octet + segment.octets;
          bool empty = true;  // filled up: has no columns
          for (int bit = 0; bit < 8; ++bit) empty &= view.source[8 * octet + bit] < 0;
          ASSERT_TRUE(inside || empty);
          if (inside) {
            ASSERT_EQ(found.level_row, segment.level_row);
          }
          for (int bit = 0; bit < 8; ++bit) {
            ASSERT_EQ(layer.layer.source[strip * 128 + cuda::column_at(o, bit)],
                      view.source[8 * octet + bit]);
          }
        }
      }
    }
  }
}

cuda::DeviceLayer layer_of(int64_t rows, std::vector<std::pair<int, int>> groups) {
  cuda::DeviceLayer layer;
  layer.rows = rows;
  for (const auto& [planes, octets] : groups) {
    cuda::StripGroup& group = layer.groups[layer.group_count++];
    group.planes = group.stored = planes;
    group.lines = (octets + 3) / 4;
    group.first_strip = layer.strips;
    group.strips = (octets + 15) / 16;
    layer.strips += group.strips;
  }
  layer.cols = int64_t{128} * layer.strips;
  return layer;
}

TEST(CudaLaunch, PartsHaveEveryStripOnceAndAboutTheSameWork) {
  for (int strips = 1; strips < 300; strips = strips * 5 / 4 + 1) {
    for (const auto& layer :
         {layer_of(32, {{1, strips * 16}}), layer_of(32, {{1, strips * 16}, {3, 40}}),
          layer_of(32, {{4, 100}, {2, strips * 16 - 7}})}) {
      for (int parts = 1; parts <= 16; ++parts) {
        for (const int chunk : {layer.strips, 7, 1}) {
          for (int c0 = 0; c0 < layer.strips; c0 += chunk) {
            const int c1 = std::min(layer.strips, c0 + chunk);
            const double fair =
                static_cast<double>(cuda::work_before(layer, c1) - cuda::work_before(layer, c0)) /
                parts;
            int next = c0;
            for (int part = 0; part < parts; ++part) {
              const cuda::StripRange range = cuda::strips_of_part(layer, c0, c1, part, parts);
              ASSERT_EQ(range.first, next);
              ASSERT_LE(range.first, range.last);
              next = range.last;
              const auto work = static_cast<double>(cuda::work_before(layer, range.last) -
                                                    cuda::work_before(layer, range.first));
              ASSERT_LE(work, fair + 2 * 5);  // a strip of four planes more at either end
            }
            ASSERT_EQ(next, c1);
          }
        }
      }
    }
  }
}

constexpr int kSharedLimits[] = {99 * 1024, 163 * 1024, 227 * 1024};  // sm_86, 80, 90

TEST(CudaLaunch, GemvWithinTheLimitsOfDevices) {
  for (int64_t rows = 1; rows < 300000; rows = rows * 3 / 2 + 1) {
    for (int octets = 1; octets < 20000; octets = octets * 2 + 1) {
      const auto layer = layer_of(rows, {{2, octets}, {1, 24}});
      for (int tokens = 1; tokens <= cuda::kMaxTokens; ++tokens) {
        for (const int shared : kSharedLimits) {
          const cuda::DeviceLimits limits = {.sm_count = 132, .shared_bytes = shared};
          cuda::GemvPlan plan;
          ASSERT_EQ(cuda::plan_gemv(layer, tokens, limits, &plan), nullptr);
          ASSERT_LE(plan.shared_bytes, shared);
          ASSERT_EQ(plan.threads, 32 * plan.parts * plan.tiles_per_block);
          ASSERT_LE(plan.threads, plan.token_blocks == 1 ? 512 : 256);
          ASSERT_GE(int64_t{plan.blocks} * plan.tiles_per_block, layer.tiles());
          ASSERT_LT(int64_t{plan.blocks - 1} * plan.tiles_per_block, layer.tiles());
          ASSERT_GE(plan.block_tokens * plan.token_blocks, tokens);
          ASSERT_EQ(plan.slots * plan.block_tokens, 4);
          ASSERT_GE(plan.chunk_strips, 1);
          // Parts of shared memory do not overlap, and what is read in 16 bytes is aligned to 16.
          const int padded = plan.block_tokens * plan.token_blocks;
          ASSERT_GE(plan.ring_offset, 1024);
          ASSERT_GE(plan.x_offset, plan.ring_offset + plan.threads / 32 * 8 * 512);
          ASSERT_GE(plan.scale_offset, plan.x_offset + plan.chunk_strips * padded * 256);
          ASSERT_GE(plan.scattered_offset, plan.scale_offset + plan.chunk_strips * padded * 4);
          ASSERT_EQ(plan.ring_offset % 16, 0);
          ASSERT_EQ(plan.x_offset % 16, 0);
        }
      }
    }
  }
}

// The shapes of large models fill an H100: one wave, nearly all multiprocessors.
TEST(CudaLaunch, GemvFillsTheDevice) {
  const std::pair<int64_t, int> shapes[] = {{4096, 4096},  {11008, 4096}, {4096, 11008},
                                            {14336, 4096}, {8192, 28672}, {28672, 8192}};
  for (const auto& [rows, cols] : shapes) {
    for (const int planes : {1, 2}) {
      cuda::GemvPlan plan;
      ASSERT_EQ(cuda::plan_gemv(layer_of(rows, {{planes, cols / 8}}), 1,
                                {.sm_count = 132, .shared_bytes = 227 * 1024}, &plan),
                nullptr);
      EXPECT_TRUE(plan.blocks >= 112 && plan.blocks <= 132) << rows << " " << plan.blocks;
      EXPECT_GE(plan.threads, 12 * 32) << rows;
      EXPECT_EQ(plan.chunk_strips, cols / 128) << rows;
    }
  }
}

TEST(CudaLaunch, GemmWithinTheLimitsOfDevices) {
  for (int64_t rows = 1; rows < 300000; rows = rows * 3 / 2 + 1) {
    const auto layer = layer_of(rows, {{3, 520}, {4, 24}});
    for (int64_t tokens = 1; tokens < 100000; tokens = tokens * 3 / 2 + 1) {
      for (const int shared : kSharedLimits) {
        cuda::GemmPlan plan;
        const char* problem = cuda::plan_gemm(layer, tokens, 12, {108, shared}, &plan);
        ASSERT_EQ(problem, nullptr) << problem;
        ASSERT_LE(plan.shared_bytes, shared);
        ASSERT_EQ(plan.stage_bytes % 16, 0);
        ASSERT_GE(int64_t{plan.grid_rows} * 4, layer.tiles());
        ASSERT_GE(plan.padded_tokens, tokens);
        ASSERT_EQ(plan.padded_tokens, int64_t{plan.grid_tokens} * plan.token_blocks * 8);
        ASSERT_LE(plan.grid_tokens, 65535);
        ASSERT_GE(plan.weight_offset, plan.token_blocks * 2048);
        ASSERT_GE(plan.coefficient_offset, plan.weight_offset + 4 * 4 * 512);
        ASSERT_GE(plan.stage_bytes, plan.coefficient_offset + 12 * 128 * 2);
      }
    }
  }
  cuda::GemmPlan plan;
  EXPECT_NE(cuda::plan_gemm(layer_of(64, {{8, 16}}), 64, 16 * 9, {108, 48 * 1024}, &plan), nullptr);
}

// Where halves of x go: every chunk once, in both orders.
TEST(CudaLaunch, TokenChunksStandOnce) {
  for (const bool in_blocks : {false, true}) {
    std::set<int64_t> chunks;
    for (int token = 0; token < 24; ++token) {
      for (int strip = 0; strip < 5; ++strip) {
        for (int i = 0; i < 16; ++i) {
          chunks.insert(cuda::token_chunk(in_blocks, 5, token, strip, i / 4, i % 4));
        }
      }
    }
    EXPECT_EQ(chunks.size(), 24u * 5 * 16);
    EXPECT_EQ(*chunks.rbegin(), 24 * 5 * 16 - 1);
  }
}

// --- The emulator itself -----------------------------------------------------------------------

std::string problem_of(int threads, const std::function<void(EmulatedThread&)>& body) {
  try {
    run_grid(1, 1, threads, 64, WarpOrder::kForward, body);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(CudaEmulator, ReportsWhatHardwareWouldHangAt) {
  EXPECT_EQ(problem_of(64, [](EmulatedThread& thread) { thread.sync(); }), "");
  EXPECT_EQ(problem_of(64,
                       [](EmulatedThread& thread) {
                         if (thread.index() != 40) thread.sync();
                       }),
            "deadlock: not all threads come to a barrier");
  EXPECT_EQ(problem_of(32,
                       [](EmulatedThread& thread) {
                         if (thread.index() < 16) {
                           thread.shuffle(1, 0);
                         } else {
                           thread.shuffle_xor(1, 1);
                         }
                       }),
            "lanes of a warp do different things together");
}

TEST(CudaEmulator, CopiesArriveWhenTheyAreWaitedFor) {
  alignas(16) const uint8_t source[16] = {1, 2, 3};
  EXPECT_EQ(problem_of(32,
                       [&](EmulatedThread& thread) {
                         if (thread.index() != 0) return;
                         EXPECT_EQ(thread.shared()[0], 0xff);
                         thread.copy_16(thread.shared(), source);
                         thread.commit_copies();
                         thread.commit_copies();
                         thread.wait_copies<2>();
                         EXPECT_EQ(thread.shared()[0], 0xff);
                         thread.wait_copies<1>();
                         EXPECT_EQ(thread.shared()[2], 3);
                       }),
            "");
  EXPECT_EQ(
      problem_of(32, [&](EmulatedThread& thread) { thread.copy_16(thread.shared(), source + 1); }),
      "copy_16: not aligned");
}

}  // namespace
}  // namespace billm::test
