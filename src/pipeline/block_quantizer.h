// The block program: one transformer block is quantized, group of linears by group, on the sums of
// their inputs. No files, no journal, no output: what comes from elsewhere is asked for, and what
// is made is returned.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "billm/calibrate/stats.h"
#include "billm/learn/tune_block.h"
#include "billm/model/block.h"
#include "billm/pack/packed_layer.h"
#include "billm/quantize/layer_plan.h"
#include "billm/quantize/methods.h"
#include "billm/report/report.h"

namespace billm {

struct QuantizedLayer {
  std::string module;
  std::optional<PackedLayer> packed;  // none: the plan leaves the layer as it is
  LayerReport report;                 // of such a layer the name and the shape
};

struct QuantizedBlock {
  std::vector<QuantizedLayer> layers;
  std::optional<TuneReport> tune;
  std::vector<std::string> warnings;  // for the user
};

// The sums of a group's inputs. It is asked for each group in turn; the linears of the groups
// before have in `block` the weights that their codes decode to (collected_stats.h).
using GroupStats = std::function<CalibrationStats(const Block& block, const std::string& group)>;

// Learns the codes of all linears and the block's norms (tune_block.h). The linears of `block` have
// the weights that the codes decode to.
using BlockTuner =
    std::function<TuneReport(std::map<std::string, TunedLinear>* linears,  // by suffix
                             Block* block)>;

// Throws Error{kBadInput} if a linear of the model is to be rotated and has a size that cannot be
// (codes/rotation.h).
void check_rotations(const ModelSpec& spec, const MethodConfig& config, const LayerPlan& plan);

// Throws Error{kUsage} if the plan or the run's method makes layers that --tune cannot learn.
void check_tunable(const ModelSpec& spec, const MethodConfig& config, const LayerPlan& plan);

class BlockQuantizer {
 public:
  // Keeps the reference. `device`: of the blocks; adds to `seconds`: quantize, tune and pack.
  BlockQuantizer(const ModelSpec& spec, const MethodConfig& config, const QuantizeContext& context,
                 c10::Device device, QuantizeSeconds* seconds);

  // Quantizes `block`, the block `index` of the model, whose linears are dense. They are left with
  // the weights that the packed bytes decode to, and its norms as tuned. Throws Error as the method
  // and `tune` do, Error{kFailure} for sums that have no Hessian.
  QuantizedBlock quantize(int64_t index, const LayerPlan& plan, const GroupStats& stats,
                          const BlockTuner& tune, Block* block) const;

 private:
  // What linears of a group share that are quantized in the same basis.
  struct GroupInputs {
    std::optional<Rotation> rotation;  // V, of --rotate
    std::vector<uint8_t> dead;         // with a rotation: columns that were 0 before it
    Hessian hessian;                   // of the rotated inputs
  };
  // A linear that is quantized.
  struct PlannedLinear {
    const LinearSpec* spec;
    std::string module;
    MethodConfig config;
    at::Tensor target;                    // the weight that it is quantized from, [out, in]
    std::shared_ptr<GroupInputs> inputs;  // null at first
  };
  struct Coded {
    LayerCodes codes;
    double nominal_bits = 0;
  };
  std::vector<PlannedLinear> planned_linears(int64_t index, const std::string& group,
                                             const LayerPlan& plan) const;
  void set_targets(const Block& block, const CalibrationStats& stats,
                   std::vector<PlannedLinear>* linears) const;
  void set_inputs(int64_t index, CalibrationStats stats, std::vector<PlannedLinear>* linears,
                  std::vector<std::string>* warnings) const;
  GroupInputs group_inputs(int64_t index, const PlannedLinear& linear, bool needs_factor,
                           CalibrationStats stats, std::vector<std::string>* warnings) const;
  Coded quantize_linear(int64_t index, const PlannedLinear& linear) const;
  QuantizedLayer pack_linear(const PlannedLinear& linear, const Coded& coded,
                             at::Tensor* decoded) const;

  const ModelSpec& spec_;
  const MethodConfig config_;
  const QuantizeContext context_;
  const c10::Device device_;
  QuantizeSeconds* const seconds_;
};

}  // namespace billm
