// See hidden_states.h.
#include "hidden_states.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstdio>
#include <span>

#include "billm/base/error.h"
#include "result_files.h"

namespace billm {
namespace {

std::string tensor_name(const char* stream, int64_t id) {
  char text[32];
  std::snprintf(text, sizeof(text), "%s.%06ld", stream, static_cast<long>(id));
  return text;
}

std::vector<std::byte> bytes_of(const at::Tensor& state) {
  const at::Tensor tensor = state.cpu().contiguous();
  const auto bytes =
      std::as_bytes(std::span(tensor.const_data_ptr<float>(), static_cast<size_t>(tensor.numel())));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

HiddenStates::HiddenStates(const std::filesystem::path& directory,
                           const std::vector<WrittenFile>& files, const char* stream,
                           const std::vector<int64_t>& ids, c10::Device device)
    : device_(device) {
  for (const WrittenFile& file : files) files_.emplace_back(directory / file.name);
  for (const int64_t id : ids) {
    const std::string name = tensor_name(stream, id);
    const auto holds = [&](const SafetensorsFile& file) { return file.find(name) != nullptr; };
    const auto found = std::find_if(files_.begin(), files_.end(), holds);
    const TensorView* view = found == files_.end() ? nullptr : found->find(name);
    if (view == nullptr || view->dtype != DType::F32 || view->shape.size() != 2) {
      throw bad_input(directory.string() + ": expected the hidden states " + name +
                          " in F32 [tokens, hidden], got none",
                      "start again with --overwrite");
    }
    places_.push_back({static_cast<size_t>(found - files_.begin()), name, view});
  }
}

int64_t HiddenStates::tokens(int64_t i) const {
  return places_[static_cast<size_t>(i)].view->shape[0];
}

at::Tensor HiddenStates::load(int64_t i) const {
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

WrittenFile write_hidden(const std::filesystem::path& directory, const std::string& name,
                         const HiddenShape& shape, const ComputeStates& compute, int64_t batch,
                         const std::vector<at::Tensor>& originals) {
  const auto count = static_cast<int64_t>(shape.ids.size());
  std::vector<at::Tensor> ready(shape.ids.size());
  std::vector<TensorToWrite> tensors;
  const auto add = [&](const char* stream, int64_t i,
                       std::function<std::vector<std::byte>()> make) {
    tensors.push_back({tensor_name(stream, shape.ids[static_cast<size_t>(i)]),
                       DType::F32,
                       {shape.tokens, shape.width},
                       {},
                       std::move(make)});
  };
  for (int64_t i = 0; i < count; ++i) {
    // Called in this order: the names of a stream sort by number.
    add(kQuantizedStream, i, [&, i] {
      at::Tensor& state = ready[static_cast<size_t>(i)];
      if (!state.defined()) {
        compute(i, std::min(batch, count - i), [&](int64_t made, at::Tensor value) {
          ready[static_cast<size_t>(made)] = std::move(value);
        });
      }
      std::vector<std::byte> bytes = bytes_of(state);
      state.reset();
      return bytes;
    });
    if (!originals.empty()) {
      add(kOriginalStream, i, [&, i] { return bytes_of(originals[static_cast<size_t>(i)]); });
    }
  }
  return write_tensors(directory, name, std::move(tensors));
}

}  // namespace billm
