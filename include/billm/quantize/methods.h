// The table of methods: one file each, one row each. Help texts, checks of the command line and the
// conformance tests read it.
#pragma once

#include <span>
#include <string>

#include "billm/quantize/config.h"
#include "billm/quantize/hessian.h"

namespace billm {

// One weight to quantize, row-major [rows, cols].
struct WeightView {
  const float* data = nullptr;
  int64_t rows = 0, cols = 0;
};

struct Method {
  const char* name;
  const char* summary;  // one line of help, with the paper
  bool needs_factor;    // whether Hessian::factor is used
  bool needs_nm;        // whether --nm applies
  // Pure: no I/O, no global state; the same bytes for the same input on every machine.
  RegionCodes (*quantize)(const WeightView& weight, const Hessian& hessian,
                          const MethodConfig& config);
  // The paper's own figure for a layer with this share of salient columns.
  double (*nominal_bits)(const RegionCodes& linear);
  int classes = 0, salient_classes = 0;  // the method's K and S; K = 0: --classes does not apply
  bool has_reference = false;            // whether --compat reference applies
  bool refines = false;                  // coded by the binary engine: --feedback, --refine
  int min_bits = 0, max_bits = 0;        // what --bits may be; 0: it does not apply
  bool has_order = false;                // whether --no-act-order applies
  bool has_share = false;                // whether --salient and --salient-metric apply
  bool has_columns = false;              // scales of columns: --column-rounds
};

std::span<const Method> methods();
// Throws Error{kUsage} listing the known names.
const Method& find_method(const std::string& name);

// Throws Error{kUsage} if settings contradict each other ("--nm 9:8": N of N:M must be in 1..M).
void check_config(const MethodConfig& config);
// K and S: as set, else the method's own; without --salient-classes, S is at most K, and 0 if
// --classes is 1 (signs alone).
struct MagnitudeClasses {
  int ordinary = 0, salient = 0;
};
MagnitudeClasses classes_of(const MethodConfig& config);
// What --block-size is if not given: 128 as in the papers; ARB: 256, and whole rows (4096) with one
// class (docs/decisions/0005-arb.md).
int default_block_size(const MethodConfig& config);
// Bits of a weight: --bits or the method's smallest; 0 for methods without.
int bits_of(const MethodConfig& config);
// PB-LLM's share of salient weights: --salient or 0.1.
double salient_share_of(const MethodConfig& config);
// Parses "4:8". Throws Error{kUsage}.
NmPattern parse_nm(const std::string& text);

// STBLLM's SI score of each weight, [rows, cols] (docs: `(|w|/col sum + |w|/row sum) * |x_j|^0.5`).
std::vector<float> si_scores(const WeightView& weight, const Hessian& hessian);
// The same from the diagonal of H or of X^T X alone, [cols], up to a common factor of all scores.
std::vector<float> si_scores(const WeightView& weight, const std::vector<float>& diagonal);
// Keeps the N highest scores of every M consecutive columns; ties keep the lower column. [rows,
// cols]
std::vector<uint8_t> nm_mask(const std::vector<float>& scores, int64_t rows, int64_t cols,
                             const NmPattern& nm);

}  // namespace billm
