// See layer_costs.h.
#include "layer_costs.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <random>
#include <set>
#include <utility>

#include "allocation.h"
#include "billm/base/stopwatch.h"
#include "billm/model/weights.h"
#include "billm/pack/packed_layer.h"
#include "billm/pipeline/learn_estimate.h"
#include "billm/quantize/methods.h"
#include "billm/quantize/rotated.h"
#include "billm/quantize/targets.h"
#include "collect_needs.h"
#include "gpu_accelerator.h"
#include "kernels/cuda/load.h"
#include "layer_error.h"

namespace billm {
namespace {

// A random layer with inputs of unequal size, as real ones have.
struct ProbeLayer {
  ProbeLayer(int64_t rows, int64_t cols)
      : weight(at::empty({rows, cols}, at::kFloat)), stats{.width = cols, .tokens = 2 * cols} {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    float* w = weight.mutable_data_ptr<float>();
    for (int64_t i = 0; i < rows * cols; ++i) w[i] = 0.02f * normal(random);
    at::Tensor x = at::empty({2 * cols, cols}, at::kFloat);
    float* data = x.mutable_data_ptr<float>();
    for (int64_t i = 0; i < 2 * cols * cols; ++i) {
      data[i] = normal(random) * (i % cols % 37 == 0 ? 4.0f : 1.0f);
    }
    const at::Tensor xtx = at::mm(x.t(), x);
    const float* values = xtx.const_data_ptr<float>();
    stats.xtx.assign(values, values + cols * cols);
  }
  at::Tensor weight;
  CalibrationStats stats;
};

struct LayerSeconds {
  double factor = 0, coding = 0;  // coding: method, packing, decoding, error
};

// Two sizes of a layer with which the seconds of its coding grow.
struct Work {
  double first = 0, second = 0;
};

}  // namespace

// Rates of this machine, and a packed layer of the method.
class Probe {
 public:
  // `widths`: of the layers whose size is asked for; those up to wide_ are tried as they are, since
  // a narrow layer has more salient columns in each of its blocks.
  Probe(const MethodConfig& config, const std::set<int64_t>& widths, c10::Device device,
        int request_threads)
      : config_(config),
        method_(find_method(config.method)),
        threads_(request_threads),
        device_(device) {
    const Stopwatch clock;
    const at::NoGradGuard no_grad;
    const auto threads = static_cast<unsigned>(threads_);
    if (!device.is_cpu()) {
      std::string why;  // quantize_model() says it
      accelerator_.emplace(device, kernels::cuda::load_cuda_kernels(&why));
      quantize(kTileRows, kTileRows);  // starts the device's libraries
    }
    // A power of two, so that output rotations are fast ones. Of products, whose rank grows with
    // the rows, as small as threads are still worth starting.
    const int64_t rows = product() ? kNarrow : static_cast<int64_t>(std::bit_ceil(128u * threads));
    const LayerSeconds narrow = quantize(rows, kNarrow), wide = quantize(rows, wide_);
    packed_.emplace(wide_, std::move(last_));
    for (const int64_t width : widths) {
      if (width >= wide_ || packed_.count(width) > 0) continue;
      quantize(rows, width);
      packed_.emplace(width, std::move(last_));
    }
    factor_ = wide.factor / std::pow(wide_, 3);
    const Work n = work(rows, kNarrow, config_.bits), w = work(rows, wide_, config_.bits);
    second_ = std::max(0.0, (wide.coding * n.first - narrow.coding * w.first) /
                                (w.second * n.first - n.second * w.first));
    first_ = std::max(0.0, (narrow.coding - second_ * n.second) / n.first);
    seconds = clock.seconds();
  }

  // What does not depend on the settings of a layer: products(), targets(), rate().
  void measure_rates() {
    const Stopwatch clock;
    flops_ = product_rate(device_, threads_);
    if (config_.targets == Targets::kCorrected) measure_targets(kNarrow);
    seconds += clock.seconds();
  }

  // Seconds of one layer with so many bits, where they decide its rank, and of the factor of one
  // input.
  double coding(int64_t rows, int64_t cols, double bits) const {
    const Work size = work(rows, cols, bits);
    return first_ * size.first + second_ * size.second;
  }
  double factor(int64_t width) const {
    return method_.needs_factor ? factor_ * std::pow(width, 3) : 0;
  }
  double products(double operations) const { return operations / flops_; }
  // Of corrected targets, computed in double on the CPU.
  double targets(double operations) const { return operations / target_flops_; }
  double rate() const { return flops_; }
  int64_t packed_bytes(int64_t rows, int64_t cols) const {
    const auto found = packed_.find(cols);
    return scaled_bytes(found != packed_.end() ? found->second : packed_.at(wide_), rows, cols);
  }

  double seconds = 0;

 private:
  static constexpr int64_t kTileRows = 64, kNarrow = 512;

  bool product() const { return method_.rank != nullptr; }

  // Planes alone: weights; weights times columns (feedback, error). Products: the eigenvectors of
  // H; a step's products of matrices.
  Work work(int64_t rows, int64_t cols, double bits) const {
    const auto n = static_cast<double>(rows), m = static_cast<double>(cols);
    if (!product()) return {n * m, n * m * m};
    return {m * m * m, n * m * static_cast<double>(method_.rank({rows, cols}, bits))};
  }

  void measure_targets(int64_t rows) {
    ProbeLayer layer(rows, kNarrow);
    layer.stats.cross = layer.stats.xtx;
    const WeightView weight = {layer.weight.const_data_ptr<float>(), rows, kNarrow};
    const Stopwatch clock;
    corrected_targets({&weight, 1}, layer.stats, config_, threads_);
    target_flops_ = target_operations(rows, kNarrow) / clock.seconds();
  }

  // Leaves the packed layer in last_.
  LayerSeconds quantize(int64_t rows, int64_t cols) {
    ProbeLayer layer(rows, cols);
    LayerSeconds result;
    LayerRotation rotation;
    if (config_.rotate != RotatedSides::kNone) rotation.in = Rotation{cols};
    if (config_.rotate == RotatedSides::kBoth) rotation.out = Rotation{rows};
    const Stopwatch factor;
    const std::vector<uint8_t> dead = dead_columns(layer.stats);
    if (rotation.in) rotate_stats(*rotation.in, threads_, &layer.stats);
    const Accelerator* const accelerator = accelerator_ ? &*accelerator_ : nullptr;
    const Hessian hessian = make_hessian(std::move(layer.stats), method_.needs_factor,
                                         config_.damping, threads_, accelerator);
    result.factor = factor.seconds();
    const QuantizeContext context = {.threads = threads_, .accelerator = accelerator};
    const Stopwatch coding;
    WeightView weight = {layer.weight.const_data_ptr<float>(), rows, cols};
    std::vector<float> rotated;
    if (rotation.in) {
      rotated = rotate_weight(weight, dead, rotation, threads_);
      weight.data = rotated.data();
    }
    last_ = pack(method_.quantize(weight, hessian, config_, context), threads_);
    const at::Tensor decoded = decode_weight(last_, "probe", threads_);
    layer_error(layer.weight, decoded, hessian_matrix(hessian, device_), threads_);
    result.coding = coding.seconds();
    return result;
  }

  const MethodConfig config_;
  const Method& method_;
  const int threads_;
  const c10::Device device_;
  const int64_t wide_ = product() ? 1024 : 2048;
  std::optional<GpuAccelerator> accelerator_;  // not on a CPU
  double factor_ = 0, first_ = 0, second_ = 0, flops_ = 1, target_flops_ = 1;
  PackedLayer last_;
  std::map<int64_t, PackedLayer> packed_;  // by width
};

int64_t weight_bytes(const ModelConfig& config) {
  return config.torch_dtype == "float32" ? 4 : config.torch_dtype == "float64" ? 8 : 2;
}

LayerCosts::LayerCosts(const ModelSpec& spec, const MethodConfig& run, const LayerPlan& plan,
                       c10::Device device, int threads)
    : spec_(spec), planned_bits_(plan_bits(spec, run, plan)) {
  std::vector<std::set<int64_t>> widths;  // by config
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    for (const LinearSpec& linear : spec.family->linears) {
      const std::string module = spec.module(b, linear);
      if (stays(plan, module)) continue;
      MethodConfig config = planned_config(run, plan, module);
      bits_of_[module] = config.bits;
      // One probe does for all ranks of a product.
      const Method& method = find_method(config.method);
      if (method.rank != nullptr) config.bits = MethodConfig(config.method).bits;
      auto found = std::find(configs_.begin(), configs_.end(), config);
      if (found == configs_.end()) {
        found = configs_.insert(found, config);
        widths.emplace_back();
      }
      const auto number = static_cast<size_t>(found - configs_.begin());
      config_of_[module] = number;
      // What a plan says is stored needs no packed layer of each width.
      if (method.plan_bits != nullptr) continue;
      widths[number].insert(linear.in_width(spec.config));
    }
  }
  if (configs_.empty()) {  // all stay; their rate of products is wanted
    configs_.push_back(run);
    widths.emplace_back();
  }
  for (size_t i = 0; i < configs_.size(); ++i) {
    probes_.push_back(std::make_unique<Probe>(configs_[i], widths[i], device, threads));
  }
  probes_.front()->measure_rates();
}

double LayerCosts::probe_seconds() const {
  double seconds = 0;
  for (const auto& probe : probes_) seconds += probe->seconds;
  return seconds;
}

double LayerCosts::packed_bytes(int64_t block, const LinearSpec& linear) const {
  const std::string module = spec_.module(block, linear);
  const int64_t rows = linear.out_width(spec_.config), cols = linear.in_width(spec_.config);
  const double weights = static_cast<double>(rows) * static_cast<double>(cols);
  const auto number = config_of_.find(module);
  if (number == config_of_.end()) return weights * static_cast<double>(weight_bytes(spec_.config));
  const auto planned = planned_bits_.find(module);
  if (planned != planned_bits_.end()) return weights * planned->second / 8;
  MethodConfig config = configs_[number->second];
  const Method& method = find_method(config.method);
  if (method.plan_bits != nullptr) {
    const LayerSize size = {rows, cols};
    config.bits = bits_of_.at(module);
    return weights * method.plan_bits({&size, 1}, config).front() / 8;
  }
  return static_cast<double>(probes_[number->second]->packed_bytes(rows, cols));
}

double LayerCosts::seconds(int64_t block, const LinearSpec& linear) const {
  const std::string module = spec_.module(block, linear);
  const auto number = config_of_.find(module);
  if (number == config_of_.end()) return 0;
  return probes_[number->second]->coding(linear.out_width(spec_.config),
                                         linear.in_width(spec_.config), bits_of_.at(module));
}

double LayerCosts::factor_seconds(int64_t block) const {
  double sum = 0;
  for (const std::string& group : spec_.groups()) {
    double most = 0;
    for (const LinearSpec& linear : spec_.family->linears) {
      const auto number = config_of_.find(spec_.module(block, linear));
      if (linear.group != group || number == config_of_.end()) continue;
      most = std::max(most, probes_[number->second]->factor(linear.in_width(spec_.config)));
    }
    sum += most;
  }
  return sum;
}

LayerCosts::~LayerCosts() = default;

double LayerCosts::products(double operations) const {
  return probes_.front()->products(operations);
}
double LayerCosts::targets(double operations) const { return probes_.front()->targets(operations); }
double LayerCosts::rate() const { return probes_.front()->rate(); }

}  // namespace billm
