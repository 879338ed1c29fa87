// The functions behind the rows of the method table, one file each.
#pragma once

#include "billm/quantize/methods.h"

namespace billm {

// methods.cpp: the shape that the settings ask for, of methods with magnitude classes.
LinearShape binary_shape(const WeightView& weight, const MethodConfig& config);

// billm.cpp
QuantizedLinear quantize_billm(const WeightView& weight, const Hessian& hessian,
                               const MethodConfig& config);
double nominal_bits_billm(const QuantizedLinear& linear);  // 2 r + (1 - r)
// stbllm.cpp
QuantizedLinear quantize_stbllm(const WeightView& weight, const Hessian& hessian,
                                const MethodConfig& config);
double nominal_bits_stbllm(const QuantizedLinear& linear);  // N/M * (1 + r)
// arb.cpp
QuantizedLinear quantize_arb(const WeightView& weight, const Hessian& hessian,
                             const MethodConfig& config);
double nominal_bits_arb(const QuantizedLinear& linear);  // 1 + r
// rtn.cpp
QuantizedLinear quantize_rtn(const WeightView& weight, const Hessian& hessian,
                             const MethodConfig& config);
double nominal_bits_rtn(const QuantizedLinear& linear);  // the bits of a weight
// gptq.cpp
QuantizedLinear quantize_gptq(const WeightView& weight, const Hessian& hessian,
                              const MethodConfig& config);
QuantizedLinear quantize_rtn_integers(const WeightView& weight, const MethodConfig& config);
double nominal_bits_gptq(const QuantizedLinear& linear);  // the bits of a weight
// pbllm.cpp
QuantizedLinear quantize_pbllm(const WeightView& weight, const Hessian& hessian,
                               const MethodConfig& config);
double nominal_bits_pbllm(const QuantizedLinear& linear);  // 8 r + (1 - r)

// reference.cpp: the published search and feedback of BiLLM (and, with a mask, of STBLLM).
QuantizedLinear quantize_reference(const WeightView& weight, const Hessian& hessian,
                                   const std::vector<uint8_t>& keep, const LinearShape& shape,
                                   int threads);

}  // namespace billm
