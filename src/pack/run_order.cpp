// See run_order.h.
#include "run_order.h"

#include <algorithm>
#include <utility>

namespace billm {

using kernels::kSegmentColumns;
using kernels::PlaneGroup;
using kernels::PlaneSegment;

namespace {

int planes_of_set(const RegionFormat& shape, int set) {
  if (shape.all_integers()) return shape.integer_bits;
  return (set == 0 ? shape.classes : shape.salient_classes) + (shape.nm.active() ? 1 : 0);
}

class RunOrderMaker {
 public:
  RunOrderMaker(const PlanesView& view, const kernels::TileOrder& order)
      : view_(view), shape_(view.shape), order_(order) {}

  RunOrder make() {
    for (const int set : {0, 1}) {
      const int planes = planes_of_set(shape_, set);
      if (out_.groups.empty() || out_.groups.back().planes != planes) begin_planes(planes);
      for (int64_t group = 0; group < shape_.groups(); ++group) add_group(group, set);
    }
    end_planes();
    out_.place.assign(static_cast<size_t>(shape_.cols), -1);
    for (size_t i = 0; i < out_.source.size(); ++i) {
      if (out_.source[i] >= 0) out_.place[out_.source[i]] = static_cast<int32_t>(i);
    }
    return std::move(out_);
  }

 private:
  int32_t octets() const { return static_cast<int32_t>(out_.source.size() / 8); }
  bool is_salient(int64_t col) const {
    return !view_.is_salient_column.empty() && view_.is_salient_column[col] != 0;
  }

  void begin_planes(int planes) {
    end_planes();
    PlaneGroup group;
    group.planes = planes;
    group.stored = order_.folded && shape_.nm.active() && planes == kernels::kFoldedPlanes
                       ? kernels::kFoldedStored
                       : planes;
    group.first_segment = static_cast<int32_t>(out_.segments.size());
    group.first_octet = octets();
    group.offset = out_.tile_bytes;
    out_.groups.push_back(group);
  }

  // Fills the plane group up to whole lines; drops it if it has no columns.
  void end_planes() {
    if (out_.groups.empty()) return;
    PlaneGroup& group = out_.groups.back();
    group.segments = static_cast<int32_t>(out_.segments.size()) - group.first_segment;
    if (group.segments == 0) {
      out_.groups.pop_back();
      return;
    }
    while ((octets() - group.first_octet) % order_.interleave != 0) {
      out_.source.insert(out_.source.end(), 8, -1);
    }
    group.octets = octets() - group.first_octet;
    out_.tile_bytes =
        group.offset + group.octets / order_.interleave * group.stored * order_.line_bytes();
  }

  void add_group(int64_t group, int set) {
    std::vector<int32_t> columns;
    const int64_t end = std::min<int64_t>(shape_.cols, (group + 1) * shape_.block_size);
    for (int64_t col = group * shape_.block_size; col < end; ++col) {
      if (is_salient(col) == (set == 1)) columns.push_back(static_cast<int32_t>(col));
    }
    for (size_t first = 0; first < columns.size(); first += kSegmentColumns) {
      const size_t last = std::min(columns.size(), first + kSegmentColumns);
      PlaneSegment segment;
      segment.first_octet = octets();
      segment.octets = static_cast<int32_t>((last - first + 7) / 8);
      if (shape_.all_integers()) {
        segment.level_row = static_cast<int32_t>(group);
        segment.levels = 1;
      } else {
        segment.level_row =
            static_cast<int32_t>(group * shape_.regions() + (set == 1 ? shape_.classes : 0));
        segment.levels = set == 0 ? shape_.classes : shape_.salient_classes;
      }
      out_.segments.push_back(segment);
      out_.source.insert(out_.source.end(), columns.begin() + static_cast<int64_t>(first),
                         columns.begin() + static_cast<int64_t>(last));
      out_.source.resize(static_cast<size_t>(segment.first_octet + segment.octets) * 8, -1);
    }
  }

  const PlanesView& view_;
  const RegionFormat& shape_;
  const kernels::TileOrder order_;
  RunOrder out_;
};

}  // namespace

RunOrder make_run_order(const PlanesView& view, const kernels::TileOrder& order) {
  return RunOrderMaker(view, order).make();
}

}  // namespace billm
