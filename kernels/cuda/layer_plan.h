// What a layer brings to the GPU beside its planes: strips, places and the order of x. Made on the
// host from a PlaneTilesView.
#pragma once

#include <vector>

#include "kernels/cuda/strips.h"

namespace billm::kernels::cuda {

struct LayerPlan {
  struct HostSchedule {
    std::vector<uint8_t> place_of_octet;
    std::vector<PlaceRange> of_strip;
    std::vector<Place> places;
  };
  DeviceLayer layer;  // all but the pointers
  std::vector<int32_t> source;
  std::vector<float> column_scale;  // empty without
  std::vector<float> log8;          // [256], times the layer's base
  HostSchedule schedules[kScheduleCount];
  std::vector<int32_t> first_octet;  // [segments]
};

// `view` with host pointers. Returns null, or why the layer cannot be run.
const char* plan_layer(const PlaneTilesView& view, LayerPlan* plan);

// The layer with pointers into `view` and `plan`, as they are: what the upload copies, and what the
// tests run.
DeviceLayer layer_in_host_memory(const PlaneTilesView& view, const LayerPlan& plan);

}  // namespace billm::kernels::cuda
