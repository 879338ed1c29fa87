// See layer_memory.h.
#include "kernels/cuda/layer_memory.h"

namespace billm::kernels::cuda {
namespace {

// Calls visit(pointer, count) for each pointer of the layer.
template <typename Visit>
void for_pointers(DeviceLayer& layer, const PlaneTilesView& view, const LayerPlan& plan,
                  Visit visit) {
  const int64_t tile_rows = layer.tiles() * kTileRows,
                columns = int64_t{layer.strips} * kStripColumns;
  visit(&layer.planes, layer.tiles() * layer.tile_bytes);
  visit(&layer.codes, tile_rows * layer.level_rows);
  visit(&layer.levels, tile_rows * layer.level_rows);
  visit(&layer.constants, tile_rows * layer.segments);
  visit(&layer.log8, 256);
  visit(&layer.source, columns);
  visit(&layer.column_scale, columns);
  for (int i = 0; i < kScheduleCount; ++i) {
    Schedule& schedule = layer.schedules[i];
    visit(&schedule.place_of_octet, int64_t{layer.strips} * kStripOctets);
    visit(&schedule.of_strip, layer.strips);
    visit(&schedule.places, static_cast<int64_t>(plan.schedules[i].places.size()));
  }
  if (view.scattered.start == nullptr) return;
  ScatteredLayer& scattered = layer.scattered;
  const auto entries = static_cast<int64_t>(view.scattered.start[layer.rows]);
  visit(&scattered.start, layer.rows + 1);
  visit(&scattered.count, layer.rows * layer.segments);
  visit(&scattered.column, entries);
  visit(&scattered.code, entries);
  visit(&scattered.step, layer.rows);
  visit(&scattered.shift, layer.rows * layer.segments);
  visit(&scattered.first_octet, layer.segments);
}

template <typename T>
int64_t bytes_of(const T*, int64_t count) {
  return count * static_cast<int64_t>(sizeof(T));
}

int64_t padded(int64_t bytes) {
  return (bytes + kPartAlignment - 1) / kPartAlignment * kPartAlignment;
}

}  // namespace

int64_t layer_memory_bytes(const PlaneTilesView& view, const LayerPlan& plan) {
  DeviceLayer layer = layer_in_host_memory(view, plan);
  int64_t size = 0;
  for_pointers(layer, view, plan, [&](auto pointer, int64_t count) {
    if (*pointer != nullptr) size += padded(bytes_of(*pointer, count));
  });
  return size;
}

DeviceLayer layer_in_memory(const PlaneTilesView& view, const LayerPlan& plan, void* memory,
                            CopyIn copy, void* context, const char** problem) {
  DeviceLayer layer = layer_in_host_memory(view, plan);
  auto* next = static_cast<uint8_t*>(memory);
  *problem = nullptr;
  for_pointers(layer, view, plan, [&](auto pointer, int64_t count) {
    if (*pointer == nullptr || *problem != nullptr) return;
    const int64_t bytes = bytes_of(*pointer, count);
    *problem = copy(next, *pointer, bytes, context);
    *pointer = reinterpret_cast<std::remove_reference_t<decltype(*pointer)>>(next);
    next += padded(bytes);
  });
  return layer;
}

int64_t weight_bytes(const PlaneTilesView& view) {
  const int64_t rows = view.tiles() * kTileRows;
  int64_t bytes = view.tiles() * view.tile_bytes;
  bytes += rows * view.level_rows * (view.level_kind == LevelKind::kLog8 ? 1 : 4);
  if (view.constants != nullptr) bytes += rows * view.segment_count * 4;
  if (view.scattered.start != nullptr) {
    bytes += int64_t{2} * view.scattered.start[view.rows] + 6 * view.rows * view.segment_count +
             8 * view.rows;
  }
  return bytes;
}

}  // namespace billm::kernels::cuda
