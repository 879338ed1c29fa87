// See layer_trainable.h.
#include "layer_trainable.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/matmul.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

namespace billm {
namespace {

// What the least squares below add to the diagonal, relative to its mean: columns that are alike
// must not blow up the solution.
constexpr double kRidge = 1e-3;

// X of the smallest |A X - B|^2 + ridge |X|^2; A [n, r], B [n, m] fp64.
at::Tensor solve(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor gram = at::matmul(a.t(), a);
  gram.diagonal().add_(gram.diagonal().mean().mul(kRidge).clamp_min(1e-30));
  return at::linalg_solve(gram, at::matmul(a.t(), b));
}

at::Tensor matrix_of(const Factor& factor) {
  LayerCodes alone;
  alone.factors.push_back(factor);
  std::vector<float> weight = dequantize(alone);
  return at::from_blob(weight.data(), {alone.rows(), alone.cols()}, at::kFloat).to(at::kDouble);
}

// What factor `index` of the layer would be, were it not quantized: the others are taken off
// `original` from the outside.
at::Tensor factor_target(const LayerCodes& codes, size_t index, const at::Tensor& original) {
  at::Tensor target = original.to(at::kDouble);
  const auto take_off = [&](const Factor& factor, bool left) {
    if (const auto* rotation = std::get_if<Rotation>(&factor)) {
      // R^-1 T has the columns R' t, T R^-1 the rows R t.
      Rotation inverse = *rotation;
      if (left) inverse.transposed = !inverse.transposed;
      at::Tensor vectors = (left ? target.t() : target).contiguous();
      rotate(inverse, vectors.mutable_data_ptr<double>(), vectors.size(0), vectors.size(1));
      target = left ? vectors.t() : vectors;
    } else {
      const at::Tensor matrix = matrix_of(factor);
      target = left ? solve(matrix, target) : solve(matrix.t(), target.t()).t();
    }
  };
  for (size_t i = 0; i < index; ++i) take_off(codes.factors[i], true);
  for (size_t i = codes.factors.size() - 1; i > index; --i) take_off(codes.factors[i], false);
  return target.to(at::kFloat).contiguous();
}

std::string part_prefix(size_t parts, size_t index) {
  return parts == 1 ? "" : std::to_string(index) + ".";
}

}  // namespace

LayerTrainable::LayerTrainable(const LayerCodes& codes, const at::Tensor& original,
                               const LearnRates& rates, double margin, c10::Device device,
                               int threads)
    : start_(codes) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < codes.factors.size(); ++i) {
    Part part;
    if (const auto* rotation = std::get_if<Rotation>(&codes.factors[i])) {
      part.rotation.emplace(*rotation, device);
    } else if (const auto* trellis = std::get_if<TrellisCodes>(&codes.factors[i])) {
      part.trellis = std::make_unique<TrellisTrainable>(*trellis, rates, device, threads);
    } else {
      const bool alone = codes.factors.size() == 1 || rates.code <= 0;
      part.planes = std::make_unique<RegionTrainable>(
          std::get<RegionCodes>(codes.factors[i]),
          alone ? original : factor_target(codes, i, original), rates, margin, device, threads);
    }
    parts_.push_back(std::move(part));
  }
  for (size_t i = 0; i < parts_.size(); ++i) {  // the parts have them
    if (parts_[i].planes) start_.factors[i] = RegionCodes();
    if (parts_[i].trellis) start_.factors[i] = TrellisCodes();
  }
}

Trainable* LayerTrainable::Part::matrix() const {
  return planes ? static_cast<Trainable*>(planes.get()) : trellis.get();
}

std::vector<Parameter> LayerTrainable::parameters() {
  std::vector<Parameter> result;
  for (size_t i = 0; i < parts_.size(); ++i) {
    Trainable* const matrix = parts_[i].matrix();
    if (matrix == nullptr) continue;
    for (Parameter parameter : matrix->parameters()) {
      parameter.name = part_prefix(parts_.size(), i) + parameter.name;
      result.push_back(std::move(parameter));
    }
  }
  return result;
}

at::Tensor LayerTrainable::product(std::span<const at::Tensor> matrices) const {
  at::Tensor result;
  std::vector<const DeviceRotation*> outer;  // before the first matrix
  size_t next = 0;
  for (const Part& part : parts_) {
    if (!part.rotation) {
      const at::Tensor& matrix = matrices[next++];
      result = result.defined() ? at::matmul(result, matrix) : matrix;
    } else if (result.defined()) {
      result = part.rotation->right_of(result);
    } else {
      outer.push_back(&*part.rotation);
    }
  }
  for (size_t i = outer.size(); i-- > 0;) result = outer[i]->left_of(result);
  return result.contiguous();
}

at::Tensor LayerTrainable::weight(int threads) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> matrices;
  for (const Part& part : parts_) {
    if (!part.rotation) matrices.push_back(part.matrix()->weight(threads));
  }
  return parts_.size() == 1 ? matrices.front() : product(matrices);
}

std::vector<at::Tensor> LayerTrainable::gradients(const at::Tensor& weight,
                                                  const at::Tensor& gradient, int threads) const {
  if (parts_.size() == 1) return parts_.front().matrix()->gradients(weight, gradient, threads);
  std::vector<at::Tensor> matrices, of_matrices, result;
  for (const Part& part : parts_) {
    if (!part.rotation) {
      matrices.push_back(part.matrix()->weight(threads).set_requires_grad(true));
    }
  }
  {
    const at::AutoGradMode mode(true);
    of_matrices = torch::autograd::grad({product(matrices)}, matrices, {gradient});
  }
  size_t next = 0;
  for (const Part& part : parts_) {
    if (part.rotation) continue;
    const at::Tensor matrix = matrices[next].detach();
    const at::Tensor of_matrix = of_matrices[next++].contiguous();
    for (at::Tensor& found : part.matrix()->gradients(matrix, of_matrix, threads)) {
      result.push_back(std::move(found));
    }
  }
  return result;
}

void LayerTrainable::refresh(int threads) {
  for (Part& part : parts_) {
    if (!part.rotation) part.matrix()->refresh(threads);
  }
}

NamedTensors LayerTrainable::state() const {
  NamedTensors result;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].rotation) continue;
    for (const auto& [name, tensor] : parts_[i].matrix()->state()) {
      result.emplace_back(part_prefix(parts_.size(), i) + name, tensor);
    }
  }
  return result;
}

void LayerTrainable::restore(const NamedTensors& state) {
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].rotation) continue;
    const std::string prefix = part_prefix(parts_.size(), i);
    NamedTensors own;
    for (const auto& [name, tensor] : state) {
      if (name.starts_with(prefix)) own.emplace_back(name.substr(prefix.size()), tensor);
    }
    parts_[i].matrix()->restore(own);
  }
}

LayerCodes LayerTrainable::codes(int threads) const {
  LayerCodes codes = start_;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].planes) codes.factors[i] = parts_[i].planes->codes(threads);
    if (parts_[i].trellis) codes.factors[i] = parts_[i].trellis->codes();
  }
  return codes;
}

}  // namespace billm
