// The functions behind the rows of the method table, one file each.
#pragma once

#include "billm/quantize/methods.h"

namespace billm {

// methods.cpp: the shape that the settings ask for, of methods with magnitude classes.
RegionFormat binary_shape(const WeightView& weight, const MethodConfig& config);

// billm.cpp
RegionCodes quantize_billm(const WeightView& weight, const Hessian& hessian,
                           const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_billm(const RegionCodes& linear);  // 2 r + (1 - r)
// stbllm.cpp
RegionCodes quantize_stbllm(const WeightView& weight, const Hessian& hessian,
                            const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_stbllm(const RegionCodes& linear);  // N/M * (1 + r)
// arb.cpp
RegionCodes quantize_arb(const WeightView& weight, const Hessian& hessian,
                         const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_arb(const RegionCodes& linear);  // 1 + r
// rtn.cpp
RegionCodes quantize_rtn(const WeightView& weight, const Hessian& hessian,
                         const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_rtn(const RegionCodes& linear);  // the bits of a weight
// gptq.cpp
RegionCodes quantize_gptq(const WeightView& weight, const Hessian& hessian,
                          const MethodConfig& config, const QuantizeContext& context);
RegionCodes quantize_rtn_integers(const WeightView& weight, const MethodConfig& config,
                                  const QuantizeContext& context);
double nominal_bits_gptq(const RegionCodes& linear);  // the bits of a weight
// pbllm.cpp
RegionCodes quantize_pbllm(const WeightView& weight, const Hessian& hessian,
                           const MethodConfig& config, const QuantizeContext& context);
double nominal_bits_pbllm(const RegionCodes& linear);  // 8 r + (1 - r)

// reference.cpp: the published search and feedback of BiLLM (and, with a mask, of STBLLM).
RegionCodes quantize_reference(const WeightView& weight, const Hessian& hessian,
                               const std::vector<uint8_t>& keep, const RegionFormat& shape,
                               int threads);

}  // namespace billm
