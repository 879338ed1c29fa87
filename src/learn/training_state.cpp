// See include/billm/learn/training_state.h. Numbers stand in tensors ("step", "losses", ...),
// beside the state's own under "state.".
#include "billm/learn/training_state.h"

#include <ATen/ops/empty.h>

#include <cstring>

#include "billm/base/error.h"
#include "billm/checkpoint/safetensors.h"

namespace billm {
namespace {

constexpr const char* kPrefix = "state.";

struct StoredType {
  at::ScalarType type;
  DType stored;
};
constexpr StoredType kTypes[] = {
    {at::kFloat, DType::F32}, {at::kDouble, DType::F64}, {at::kChar, DType::I8}};

DType stored_type(at::ScalarType type) {
  for (const StoredType& row : kTypes) {
    if (row.type == type) return row.stored;
  }
  throw Error(ErrorCode::kFailure, "a training state holds a tensor of an unexpected type",
              "report this");
}

at::Tensor read(const TensorView& view, const std::string& where) {
  for (const StoredType& row : kTypes) {
    if (row.stored != view.dtype) continue;
    at::Tensor tensor = at::empty(view.shape, row.type);
    if (!view.data.empty())
      std::memcpy(tensor.mutable_data_ptr(), view.data.data(), view.data.size());
    return tensor;
  }
  throw bad_input(where + ": expected F32, F64 or I8", "start again with --overwrite");
}

// Numbers as F64 tensors; a step fits.
std::vector<double> numbers(const SafetensorsFile& file, const std::string& name) {
  const TensorView* view = file.find(name);
  const std::string where = file.path().string() + ": " + name;
  if (view == nullptr || view->dtype != DType::F64) {
    throw bad_input(where + ": expected F64 numbers of an unfinished training",
                    "start again with --overwrite");
  }
  std::vector<double> values(static_cast<size_t>(view->elements()));
  if (!values.empty()) std::memcpy(values.data(), view->data.data(), view->data.size());
  return values;
}

}  // namespace

std::string write_training_state(const std::filesystem::path& path, const TrainingState& state) {
  std::vector<TensorToWrite> tensors;
  const auto add = [&](const std::string& name, const std::vector<double>& values) {
    tensors.push_back({name,
                       DType::F64,
                       {static_cast<int64_t>(values.size())},
                       std::as_bytes(std::span(values))});
  };
  const std::vector<double> progress = {
      static_cast<double>(state.step), state.report.loss_before, state.report.loss_after,
      static_cast<double>(state.report.best_step), state.report.seconds};
  add("progress", progress);
  add("losses", state.losses);
  for (const auto& [name, tensor] : state.tensors) {
    const auto bytes = [tensor = tensor] {
      const at::Tensor host = tensor.cpu().contiguous();
      const auto* data = static_cast<const std::byte*>(host.const_data_ptr());
      return std::vector<std::byte>(data, data + host.nbytes());
    };
    tensors.push_back(
        {kPrefix + name, stored_type(tensor.scalar_type()), tensor.sizes().vec(), {}, bytes});
  }
  return write_safetensors(path, std::move(tensors), {{"format", "pt"}}, FileSync::kYes);
}

TrainingState read_training_state(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  TrainingState state;
  const std::vector<double> progress = numbers(file, "progress");
  if (progress.size() != 5) {
    throw bad_input(
        path.string() + ": progress: expected 5 numbers, got " + std::to_string(progress.size()),
        "start again with --overwrite");
  }
  state.step = static_cast<int>(progress[0]);
  state.report = {progress[1], progress[2], static_cast<int>(progress[3]), progress[4]};
  state.losses = numbers(file, "losses");
  for (const auto& [name, view] : file.tensors()) {
    if (!name.starts_with(kPrefix)) continue;
    state.tensors[name.substr(std::strlen(kPrefix))] = read(view, path.string() + ": " + name);
  }
  return state;
}

}  // namespace billm
