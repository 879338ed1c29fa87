// Strips and places of a layer: see layer_plan.h and strips.h.
#include "kernels/cuda/layer_plan.h"

#include <algorithm>
#include <cmath>

#include "billm/base/log8.h"

namespace billm::kernels::cuda {
namespace {

// A power of two that is at least every weight's size.
float weight_unit(const PlaneTilesView& view) {
  const int64_t rows = view.tiles() * kTileRows;
  const auto largest = [](const float* values, int64_t count) {
    float result = 0;
    for (int64_t i = 0; values != nullptr && i < count; ++i) {
      result = std::max(result, std::fabs(values[i]));
    }
    return result;
  };
  float size = view.level_kind == LevelKind::kLog8 ? std::fabs(view.base)
                                                   : largest(view.levels, rows * view.level_rows);
  if (view.level_kind == LevelKind::kInteger) size *= 128;
  size += largest(view.constants, view.constants == nullptr ? 0 : rows * view.segment_count);
  if (view.scattered.start != nullptr) {
    size += 255 * largest(view.scattered.step, view.rows) +
            largest(view.scattered.shift, view.rows * view.segment_count);
  }
  size = std::min(std::max(size, 1e-30f), 1e30f);  // not finite: y is not finite either
  return std::exp2(std::ceil(std::log2(size)));
}

bool levels_fit(const PlaneTilesView& view, const PlaneGroup& group) {
  if (view.level_kind == LevelKind::kInteger) return true;
  for (int s = group.first_segment; s < group.first_segment + group.segments; ++s) {
    if (PlaneTilesView::planes_of(view.segments[s].levels, view.pruned) != group.planes) {
      return false;
    }
  }
  return true;
}

class Scheduler {
 public:
  Scheduler(const PlaneTilesView& view, const DeviceLayer& layer, int slots)
      : view_(view), layer_(layer), slots_(slots) {}

  LayerPlan::HostSchedule make() {
    out_.place_of_octet.assign(static_cast<size_t>(layer_.strips) * kStripOctets, 0);
    out_.of_strip.resize(static_cast<size_t>(layer_.strips));
    for (int g = 0; g < layer_.group_count; ++g) {
      new_round();  // the places of a round have the same planes
      for (int s = 0; s < layer_.groups[g].strips; ++s) add_strip(view_.groups[g], g, s);
    }
    new_round();
    return std::move(out_);
  }

 private:
  void new_round() {
    while (out_.places.size() % static_cast<size_t>(slots_) != 0) out_.places.emplace_back();
  }

  void add_strip(const PlaneGroup& group, int g, int local) {
    const int strip = layer_.groups[g].first_strip + local;
    const int first = group.first_octet + local * kStripOctets;
    const int last = std::min(first + kStripOctets, group.first_octet + group.octets);
    std::vector<int> inside;
    for (int s = group.first_segment; s < group.first_segment + group.segments; ++s) {
      const PlaneSegment& segment = view_.segments[s];
      if (segment.first_octet < last && segment.first_octet + segment.octets > first) {
        inside.push_back(s);
      }
    }
    if (out_.places.size() % static_cast<size_t>(slots_) + inside.size() >
        static_cast<size_t>(slots_)) {
      new_round();
    }
    const auto begin = static_cast<int32_t>(out_.places.size());
    out_.of_strip[static_cast<size_t>(strip)] = {begin,
                                                 begin + static_cast<int32_t>(inside.size()) - 1};
    uint8_t* of_octet = &out_.place_of_octet[static_cast<size_t>(strip) * kStripOctets];
    std::fill_n(of_octet, kStripOctets, static_cast<uint8_t>(begin));  // where there are no columns
    for (const int s : inside) {
      const PlaneSegment& segment = view_.segments[s];
      const auto place = static_cast<uint8_t>(out_.places.size());
      for (int o = std::max(first, segment.first_octet);
           o < std::min(last, segment.first_octet + segment.octets); ++o) {
        of_octet[o - first] = place;
      }
      out_.places.push_back({strip, segment.level_row, s, 0});
    }
  }

  const PlaneTilesView& view_;
  const DeviceLayer& layer_;
  const int slots_;
  LayerPlan::HostSchedule out_;
};

}  // namespace

const char* plan_layer(const PlaneTilesView& view, LayerPlan* plan) {
  if (!(view.order == kCudaTileOrder)) return "layer: not in the order of the CUDA kernels";
  if (view.rows < 1 || view.cols < 1 || view.octets < 1) return "layer: empty";
  if (view.group_count < 1 || view.group_count > kMaxGroups) return "layer: too many plane groups";
  LayerPlan result;
  DeviceLayer& layer = result.layer;
  layer.rows = view.rows;
  layer.cols = view.cols;
  layer.tile_bytes = view.tile_bytes;
  layer.level_kind = view.level_kind;
  layer.pruned = view.pruned;
  layer.level_rows = view.level_rows;
  layer.segments = view.segment_count;
  layer.group_count = view.group_count;
  layer.unit = weight_unit(view);
  for (int g = 0; g < view.group_count; ++g) {
    const PlaneGroup& group = view.groups[g];
    if (group.planes < 1 || group.planes > kMaxPlanes || group.octets < 1 ||
        group.octets % kLineOctets != 0) {
      return "layer: a plane group is not whole lines of 1 to 8 planes";
    }
    // With levels there are at most four planes: three classes and the pruned one.
    if (view.level_kind != LevelKind::kInteger && group.planes > kFoldedPlanes) {
      return "layer: too many planes";
    }
    const bool folded = view.level_kind != LevelKind::kInteger && group.planes == kFoldedPlanes;
    if (group.stored != (folded ? kFoldedStored : group.planes)) {
      return "layer: other planes are stored than the kernels unfold";
    }
    if (!levels_fit(view, group)) return "layer: a segment has other levels than planes";
    StripGroup& out = layer.groups[g];
    out.planes = group.planes;
    out.stored = group.stored;
    out.lines = group.octets / kLineOctets;
    out.first_strip = layer.strips;
    out.strips = (group.octets + kStripOctets - 1) / kStripOctets;
    out.offset = group.offset;
    layer.strips += out.strips;
  }
  result.source.assign(static_cast<size_t>(layer.strips) * kStripColumns, -1);
  if (view.column_scale != nullptr) result.column_scale.assign(result.source.size(), 0.0f);
  for (int g = 0; g < view.group_count; ++g) {
    const PlaneGroup& group = view.groups[g];
    for (int o = 0; o < group.octets; ++o) {
      const int strip = layer.groups[g].first_strip + o / kStripOctets;
      for (int bit = 0; bit < 8; ++bit) {
        const int32_t column = view.source[int64_t{8} * (group.first_octet + o) + bit];
        const size_t at = static_cast<size_t>(strip) * kStripColumns +
                          static_cast<size_t>(column_at(o % kStripOctets, bit));
        result.source[at] = column;
        if (column >= 0 && view.column_scale != nullptr) {
          result.column_scale[at] = view.column_scale[column];
        }
      }
    }
    for (int s = group.first_segment; s < group.first_segment + group.segments; ++s) {
      result.first_octet.push_back(layer.groups[g].first_strip * kStripOctets +
                                   view.segments[s].first_octet - group.first_octet);
    }
  }
  for (const float factor : kLog8Factors) result.log8.push_back(view.base * factor);
  for (const int slots : {4, 2, 1}) {
    result.schedules[schedule_index(slots)] = Scheduler(view, layer, slots).make();
  }
  *plan = std::move(result);
  return nullptr;
}

DeviceLayer layer_in_host_memory(const PlaneTilesView& view, const LayerPlan& plan) {
  DeviceLayer layer = plan.layer;
  layer.planes = view.planes;
  layer.codes = view.codes;
  layer.levels = view.levels;
  layer.constants = view.constants;
  layer.log8 = plan.log8.data();
  layer.source = plan.source.data();
  layer.column_scale = plan.column_scale.empty() ? nullptr : plan.column_scale.data();
  for (int i = 0; i < kScheduleCount; ++i) {
    const LayerPlan::HostSchedule& schedule = plan.schedules[i];
    layer.schedules[i] = {schedule.place_of_octet.data(), schedule.of_strip.data(),
                          schedule.places.data()};
  }
  if (view.scattered.start != nullptr) {
    layer.scattered = {view.scattered.start,   view.scattered.count, view.scattered.column,
                       view.scattered.code,    view.scattered.step,  view.scattered.shift,
                       plan.first_octet.data()};
  }
  return layer;
}

}  // namespace billm::kernels::cuda
