// See hidden_states.h.
#include "hidden_states.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <cstdio>
#include <span>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/memory.h"
#include "billm/base/parallel.h"
#include "result_files.h"

namespace billm {
namespace {

constexpr int64_t kShare = 4;  // states take at most 1 / kShare of what is free

std::string tensor_name(const char* stream, int64_t id) {
  char text[32];
  std::snprintf(text, sizeof(text), "%s.%06ld", stream, static_cast<long>(id));
  return text;
}

std::vector<std::byte> bytes_of(const at::Tensor& state) {
  std::vector<std::byte> bytes(static_cast<size_t>(state.numel()) * sizeof(float));
  at::from_blob(bytes.data(), state.sizes(), at::kFloat).copy_(state);
  return bytes;
}

// A file with the sequences [first, end) of `shape`; `make(i)` gives their bytes in this order.
WrittenFile write_part(const std::filesystem::path& directory, const std::string& name,
                       const char* stream, const HiddenShape& shape, int64_t first, int64_t end,
                       const std::function<std::vector<std::byte>(int64_t)>& make) {
  std::vector<TensorToWrite> tensors;
  for (int64_t i = first; i < end; ++i) {
    // Called in this order: the names of a stream sort by number.
    tensors.push_back({tensor_name(stream, shape.ids[static_cast<size_t>(i)]),
                       DType::F32,
                       {shape.tokens, shape.width},
                       {},
                       [&make, i] { return make(i); }});
  }
  return write_tensors(directory, name, std::move(tensors), {}, FileSync::kNo);
}

std::string part_name(const std::string& name, int64_t part) {
  return name + "-" + std::to_string(part) + ".safetensors";
}

}  // namespace

const char* hidden_place_name(HiddenPlace place) {
  switch (place) {
    case HiddenPlace::kDevice:
      return "gpu";
    case HiddenPlace::kMemory:
      return "memory";
    case HiddenPlace::kDisk:
      break;
  }
  return "disk";
}

int64_t beside_hidden_states(const ModelSpec& spec) {
  constexpr int64_t kProgram = int64_t{512} << 20, kBlocks = 5;
  int64_t weights = 0;
  for (const LinearSpec& linear : spec.family->linears) {
    weights += linear.out_width(spec.config) * linear.in_width(spec.config);
  }
  return kProgram + kBlocks * 4 * weights;
}

HiddenPlace choose_hidden_place(int64_t bytes, int64_t rest, c10::Device device, int processes) {
  if (!device.is_cpu()) {
    const size_t free = at::getDeviceAllocator(device.type())->getMemoryInfo(device.index()).first;
    if (bytes <= static_cast<int64_t>(free) / kShare / processes) return HiddenPlace::kDevice;
  }
  const int64_t available = available_memory() / processes;
  return bytes <= available / kShare && bytes + rest <= available ? HiddenPlace::kMemory
                                                                  : HiddenPlace::kDisk;
}

HiddenStates::HiddenStates(std::filesystem::path directory, HiddenShape shape, HiddenPlace place,
                           c10::Device device, const char* stream)
    : directory_(std::move(directory)),
      shape_(std::move(shape)),
      place_(place),
      device_(device),
      stream_(stream) {
  if (place_ == HiddenPlace::kDisk) return;
  kept_ = at::empty({count(), shape_.tokens, shape_.width},
                    at::TensorOptions(at::kFloat)
                        .device(place_ == HiddenPlace::kDevice ? device_ : c10::Device(c10::kCPU)));
}

at::Tensor HiddenStates::load(int64_t i) const {
  if (place_ != HiddenPlace::kDisk) return kept_.select(0, i).to(device_);
  const Place& place = places_[static_cast<size_t>(i)];
  const at::Tensor copy =
      at::from_blob(const_cast<std::byte*>(place.view->data.data()), place.view->shape, at::kFloat)
          .clone();
  files_[place.file].release(place.name);
  return copy.to(device_);
}

std::vector<at::Tensor> HiddenStates::load_all() const {
  std::vector<at::Tensor> states;
  for (int64_t i = 0; i < count(); ++i) states.push_back(load(i));
  return states;
}

void HiddenStates::replace(const std::string& name, const ComputeStates& compute, int64_t batch) {
  if (place_ != HiddenPlace::kDisk) {
    compute(0, count(),
            [&](int64_t i, const at::Tensor& state) { kept_.select(0, i).copy_(state); });
    return;
  }
  std::vector<at::Tensor> ready(shape_.ids.size());
  const auto make = [&](int64_t i) {
    at::Tensor& state = ready[static_cast<size_t>(i)];
    if (!state.defined()) {
      compute(i, std::min(batch, count() - i), [&](int64_t made, at::Tensor value) {
        ready[static_cast<size_t>(made)] = std::move(value);
      });
    }
    return bytes_of(std::exchange(state, {}));
  };
  open({write_part(directory_, part_name(name, 0), stream_, shape_, 0, count(), make)});
}

void HiddenStates::open(const std::vector<WrittenFile>& files) {
  std::vector<SafetensorsFile> opened;
  std::vector<Place> places;
  for (const WrittenFile& file : files) opened.emplace_back(directory_ / file.name);
  for (const int64_t id : shape_.ids) {
    const std::string name = tensor_name(stream_, id);
    const auto holds = [&](const SafetensorsFile& file) { return file.find(name) != nullptr; };
    const auto found = std::find_if(opened.begin(), opened.end(), holds);
    const TensorView* view = found == opened.end() ? nullptr : found->find(name);
    if (view == nullptr || view->dtype != DType::F32 ||
        view->shape != std::vector<int64_t>{shape_.tokens, shape_.width}) {
      throw bad_input(directory_.string() + ": expected the hidden states " + name + " in F32 " +
                          shape_text(std::vector<int64_t>{shape_.tokens, shape_.width}) +
                          ", got none",
                      "start again with --overwrite");
    }
    places.push_back({static_cast<size_t>(found - opened.begin()), name, view});
  }
  places_ = std::move(places);
  files_ = std::move(opened);
  written_ = files;
  if (place_ == HiddenPlace::kDisk) return;
  for (int64_t i = 0; i < count(); ++i) {
    const TensorView& view = *places_[static_cast<size_t>(i)].view;
    const at::Tensor mapped =
        at::from_blob(const_cast<std::byte*>(view.data.data()), view.shape, at::kFloat);
    kept_.select(0, i).copy_(mapped);
  }
  places_.clear();
  files_.clear();
  written_.clear();
}

std::vector<WrittenFile> HiddenStates::save(const std::string& name, int threads) const {
  if (place_ == HiddenPlace::kDisk) return written_;
  const std::vector<at::Tensor> states = count() > 0 ? kept_.unbind(0) : std::vector<at::Tensor>();
  return save_states(directory_, name, stream_, shape_, states, threads);
}

std::vector<WrittenFile> save_states(const std::filesystem::path& directory,
                                     const std::string& name, const char* stream,
                                     const HiddenShape& shape,
                                     const std::vector<at::Tensor>& states, int threads) {
  const auto count = static_cast<int64_t>(states.size());
  if (count == 0) return {};
  const int64_t size = (count + kSumParts - 1) / kSumParts;
  std::vector<WrittenFile> files(static_cast<size_t>((count + size - 1) / size));
  parallel_parts(count, size, threads, [&](int64_t first, int64_t end) {
    const auto make = [&](int64_t i) { return bytes_of(states[static_cast<size_t>(i)]); };
    files[static_cast<size_t>(first / size)] =
        write_part(directory, part_name(name, first / size), stream, shape, first, end, make);
  });
  return files;
}

}  // namespace billm
