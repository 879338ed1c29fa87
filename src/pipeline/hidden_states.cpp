// See hidden_states.h.
#include "hidden_states.h"

#include <ATen/ops/from_blob.h>

#include <cstdio>
#include <span>

#include "billm/base/error.h"
#include "billm/checkpoint/safetensors.h"
#include "result_files.h"

namespace billm {
namespace {

constexpr const char* kQuantized = "sequence";
constexpr const char* kOriginal = "original";

std::string tensor_name(const char* stream, int64_t i) {
  char text[32];
  std::snprintf(text, sizeof(text), "%s.%06ld", stream, static_cast<long>(i));
  return text;
}

at::Tensor read_sequence(const TensorFile& file, const std::string& name, c10::Device device) {
  const TensorView* view = file.find(name);
  if (view == nullptr || view->dtype != DType::F32 || view->shape.size() != 2) {
    throw bad_input(file.path().string() + ": expected " + name);
  }
  return at::from_blob(const_cast<std::byte*>(view->data.data()), view->shape, at::kFloat)
      .clone()
      .to(device);
}

}  // namespace

WrittenFile write_hidden(const HiddenStates& hidden, const std::filesystem::path& directory,
                         const std::string& name) {
  std::vector<at::Tensor> copies;
  std::vector<TensorToWrite> tensors;
  const auto add = [&](const char* stream, const std::vector<at::Tensor>& sequences) {
    for (size_t i = 0; i < sequences.size(); ++i) {
      copies.push_back(sequences[i].cpu().contiguous());
      const at::Tensor& copy = copies.back();
      tensors.push_back({tensor_name(stream, static_cast<int64_t>(i)),
                         DType::F32,
                         {copy.size(0), copy.size(1)},
                         std::as_bytes(std::span(copy.const_data_ptr<float>(),
                                                 static_cast<size_t>(copy.numel())))});
    }
  };
  add(kQuantized, hidden.quantized);
  add(kOriginal, hidden.original);
  return write_tensors(directory, name, std::move(tensors));
}

HiddenStates read_hidden(const std::filesystem::path& path, int64_t sequences, bool with_original,
                         c10::Device device) {
  const SafetensorsFile file(path);
  HiddenStates hidden;
  for (int64_t i = 0; i < sequences; ++i) {
    hidden.quantized.push_back(read_sequence(file, tensor_name(kQuantized, i), device));
    if (!with_original) continue;
    hidden.original.push_back(read_sequence(file, tensor_name(kOriginal, i), device));
  }
  return hidden;
}

}  // namespace billm
