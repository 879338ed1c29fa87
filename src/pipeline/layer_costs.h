// What the layers of a model take, each with its own settings: from a probe of this machine, of a
// few seconds for each setting that a layer has. Part of the estimate.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "billm/model/family.h"
#include "billm/quantize/layer_plan.h"

namespace billm {

// Bytes of a weight as config.json says that the checkpoint has it.
int64_t weight_bytes(const ModelConfig& config);

class Probe;

class LayerCosts {
 public:
  // Keeps the reference. `run`: the settings of the layers that `plan` does not have.
  LayerCosts(const ModelSpec& spec, const MethodConfig& run, const LayerPlan& plan,
             c10::Device device, int threads);
  ~LayerCosts();

  // Those that layers have.
  const std::vector<MethodConfig>& configs() const { return configs_; }
  double probe_seconds() const;

  // Of a layer's packed planes.
  double packed_bytes(int64_t block, const LinearSpec& linear) const;
  // Of its coding: method, packing, decoding, error.
  double seconds(int64_t block, const LinearSpec& linear) const;
  // Of the factors of a block's Hessians.
  double factor_seconds(int64_t block) const;

  double products(double operations) const;  // seconds
  double targets(double operations) const;   // of corrected targets, in double on the CPU
  double rate() const;                       // operations of products in a second

 private:
  const ModelSpec& spec_;
  const std::map<std::string, double> planned_bits_;  // by module
  std::vector<MethodConfig> configs_;
  std::vector<std::unique_ptr<Probe>> probes_;  // by config
  // By module; none of those that stay.
  std::map<std::string, size_t> config_of_;
  std::map<std::string, double> bits_of_;
};

}  // namespace billm
