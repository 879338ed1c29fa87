// The functions behind the rows of the method table, one file each.
#pragma once

#include "billm/quantize/methods.h"

namespace billm {

// methods.cpp: the shape that the settings ask for, of methods with magnitude classes.
RegionFormat binary_shape(const WeightView& weight, const MethodConfig& config);

// billm.cpp
LayerCodes quantize_billm(const WeightView& weight, const Hessian& hessian,
                          const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_billm(const LayerCodes& layer);  // 2 r + (1 - r)
// stbllm.cpp
LayerCodes quantize_stbllm(const WeightView& weight, const Hessian& hessian,
                           const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_stbllm(const LayerCodes& layer);  // N/M * (1 + r)
// arb.cpp
LayerCodes quantize_arb(const WeightView& weight, const Hessian& hessian,
                        const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_arb(const LayerCodes& layer);  // 1 + r
// rtn.cpp
LayerCodes quantize_rtn(const WeightView& weight, const Hessian& hessian,
                        const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_rtn(const LayerCodes& layer);  // the bits of a weight
// gptq.cpp
LayerCodes quantize_gptq(const WeightView& weight, const Hessian& hessian,
                         const MethodConfig& config, const QuantizeContext& context);
RegionCodes quantize_rtn_integers(const WeightView& weight, const MethodConfig& config,
                                  const QuantizeContext& context);
double rate_bits_integers(const LayerSize& layer, const MethodConfig& config);  // of rtn, too
double nominal_bits_gptq(const LayerCodes& layer);  // the bits of a weight
// pbllm.cpp
LayerCodes quantize_pbllm(const WeightView& weight, const Hessian& hessian,
                          const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_pbllm(const LayerCodes& layer);  // 8 r + (1 - r)
// dbf.cpp
LayerCodes quantize_dbf(const WeightView& weight, const Hessian& hessian,
                        const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_dbf(const LayerCodes& layer);  // (r (n + m) + 16 (n + r + m)) / (n m)
int64_t rank_dbf(const LayerSize& layer, double bits);
double rate_bits_dbf(const LayerSize& layer, const MethodConfig& config);
std::vector<double> plan_dbf(std::span<const LayerSize> layers, const MethodConfig& config);

// trellis.cpp
LayerCodes quantize_trellis(const WeightView& weight, const Hessian& hessian,
                            const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_trellis(const LayerCodes& layer);  // the rates of its planes
double rate_bits_trellis(const LayerSize& layer, const MethodConfig& config);

// reference.cpp: the published search and feedback of BiLLM (and, with a mask, of STBLLM).
RegionCodes quantize_reference(const WeightView& weight, const Hessian& hessian,
                               const std::vector<uint8_t>& keep, const RegionFormat& shape,
                               int threads);

}  // namespace billm
