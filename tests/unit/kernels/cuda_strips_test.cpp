// How the CUDA kernels see a layer: strips, what each lane loads, places.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "kernels/cuda/strips.h"
#include "support/cuda_testing.h"

namespace billm::test {
namespace {

namespace cuda = kernels::cuda;

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

}  // namespace
}  // namespace billm::test
