// The method table.
#include "billm/quantize/methods.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "billm/base/error.h"
#include "billm/base/printable.h"
#include "method_rows.h"

namespace billm {
namespace {

// What every method uses: how the sums that it is given are made, and its weights.
constexpr SettingUse kCalibrationSettings[] = {
    {.name = "targets"},      {.name = "target_share"}, {.name = "stream_share"},
    {.name = "target_ridge"}, {.name = "sink_weight"},
};

// The same with the defaults that measured best where no paper's recipe is kept
// (docs/decisions/0020-targets.md).
constexpr SettingUse kCorrectedSettings[] = {
    {.name = "targets", .value = "corrected"},
    {.name = "target_share"},
    {.name = "stream_share"},
    {.name = "target_ridge"},
    {.name = "sink_weight", .value = 32},
};

template <size_t kCount, size_t kMore = std::size(kCalibrationSettings)>
constexpr auto with_calibration(const SettingUse (&own)[kCount],
                                const SettingUse (&more)[kMore] = kCalibrationSettings) {
  std::array<SettingUse, kCount + kMore> all;
  std::copy(std::begin(own), std::end(own), all.begin());
  std::copy(std::begin(more), std::end(more), all.begin() + kCount);
  return all;
}

constexpr auto kBillmSettings = with_calibration({
    {.name = "compat"},
    {.name = "block_size"},
    {.name = "scale_format"},
    {.name = "offsets"},
    {.name = "feedback"},
    {.name = "objective"},
    {.name = "refine_rounds"},
    {.name = "descend"},
    {.name = "classes", .value = 2},
    {.name = "salient_classes", .value = 2},
    {.name = "max_salient"},
    {.name = "rotate"},
    {.name = "rotate_seed"},
    {.name = "damping"},
});

// No --rotate: rotated weights differ less in size, so that an N:M mask loses more
// (docs/decisions/0016-rotation.md).
constexpr auto kStbllmSettings = with_calibration({
    {.name = "compat"},
    {.name = "nm", .value = "4:8"},
    {.name = "nm_alloc"},
    {.name = "block_size"},
    {.name = "scale_format"},
    {.name = "offsets"},
    {.name = "feedback"},
    {.name = "objective"},
    {.name = "refine_rounds"},
    {.name = "descend"},
    {.name = "classes", .value = 3},
    {.name = "salient_classes", .value = 3},
    {.name = "max_salient"},
    {.name = "damping"},
});

// 256 columns, and whole rows where all weights of a row are one class
// (docs/decisions/0005-arb.md).
constexpr DerivedDefault kArbBlockSize = {
    [](const MethodConfig& config, SettingValue own) -> SettingValue {
      return config.classes == 1 ? SettingValue(4096) : own;
    },
    "4096 with --classes 1"};

constexpr auto kArbSettings = with_calibration({
    {.name = "block_size", .value = 256, .derived = kArbBlockSize},
    {.name = "scale_format"},
    {.name = "offsets"},
    {.name = "feedback"},
    {.name = "objective"},
    {.name = "refine_rounds"},
    {.name = "descend"},
    {.name = "classes", .value = 2},
    {.name = "salient_classes", .value = 2},
    {.name = "column_rounds"},
    {.name = "max_salient"},
    {.name = "rotate"},
    {.name = "rotate_seed"},
    {.name = "damping"},
});

// No --rotate: there is nothing salient in single rotated weights
// (docs/decisions/0016-rotation.md).
constexpr auto kPbllmSettings = with_calibration({
    {.name = "block_size"},
    {.name = "scale_format"},
    {.name = "offsets"},
    {.name = "feedback"},
    {.name = "refine_rounds"},
    {.name = "descend"},
    {.name = "salient"},
    {.name = "salient_metric"},
    {.name = "damping"},
});

// Its own targets do not depend on H.
constexpr SettingUse kRtnSettings[] = {
    {.name = "block_size"},
    {.name = "scale_format",
     .condition = {[](const MethodConfig& config) { return config.bits == 1; },
                   "with --bits above 1"}},
    {.name = "bits", .value = 1, .range = integers(1, 4)},
    {.name = "rotate"},
    {.name = "rotate_seed"},
    {.name = "targets"},
    {.name = "target_share"},
    {.name = "stream_share"},
    {.name = "target_ridge"},
    {.name = "sink_weight",
     .condition = {[](const MethodConfig& config) { return config.targets == Targets::kCorrected; },
                   "with --targets own"}},
};

constexpr auto kGptqSettings = with_calibration({
    {.name = "block_size"},
    {.name = "bits", .value = 2, .range = integers(2, 4)},
    {.name = "act_order"},
    {.name = "rotate"},
    {.name = "rotate_seed"},
    {.name = "damping"},
});

constexpr auto kDbfSettings = with_calibration({
    {.name = "bits", .value = 1, .range = reals(0.5, 1.5)},
    {.name = "damping"},
});

// Rotated by default: the table is made for Gaussian weights.
constexpr auto kTrellisSettings = with_calibration(
    {
        {.name = "bits", .value = 1, .range = steps(0.25, 0.25, 3)},
        {.name = "sweeps"},
        {.name = "rotate", .value = "both"},
        {.name = "rotate_seed"},
        {.name = "damping"},
    },
    kCorrectedSettings);

constexpr Method kMethods[] = {
    {.name = "billm",
     .summary =
         "BiLLM (arXiv 2402.04291): salient columns in residual signs, the rest in two regions",
     .quantize = quantize_billm,
     .nominal_bits = nominal_bits_billm,
     .settings = kBillmSettings},
    {.name = "stbllm",
     .summary = "STBLLM (arXiv 2408.01803): N:M mask (--nm), then signs in three regions",
     .quantize = quantize_stbllm,
     .nominal_bits = nominal_bits_stbllm,
     .settings = kStbllmSettings},
    {.name = "arb",
     .summary = "ARB-LLM RC (arXiv 2410.03129): signs in regions as billm, row times column scales",
     .quantize = quantize_arb,
     .nominal_bits = nominal_bits_arb,
     .settings = kArbSettings,
     .square_bytes = 8,  // scaled copies, or the equations of the columns
     .weight_bytes = 4},
    {.name = "pbllm",
     .summary = "PB-LLM (arXiv 2310.00034): a share of single weights (--salient) in 8 bits, signs",
     .quantize = quantize_pbllm,
     .nominal_bits = nominal_bits_pbllm,
     .settings = kPbllmSettings},
    {.name = "rtn",
     .summary = "round to nearest: signs (--bits 1) or integers of 2, 3, 4 bits",
     .quantize = quantize_rtn,
     .nominal_bits = nominal_bits_rtn,
     .settings = kRtnSettings,
     .needs_factor = false,
     .rate_bits = rate_bits_integers},
    {.name = "gptq",
     .summary = "GPTQ (arXiv 2210.17323): integers of --bits 2, 3, 4 with error feedback",
     .quantize = quantize_gptq,
     .nominal_bits = nominal_bits_gptq,
     .settings = kGptqSettings,
     .square_bytes = 8,  // the factor in the order of the columns, on the way in doubles
     .rate_bits = rate_bits_integers},
    {.name = "dbf",
     .summary = "DBF (arXiv 2505.11076): two factors of signs with three vectors of scales",
     .quantize = quantize_dbf,
     .nominal_bits = nominal_bits_dbf,
     .settings = kDbfSettings,
     .square_bytes = 8,   // H and its eigenvectors
     .weight_bytes = 40,  // W in the eigenvectors' basis, the factors with their duals
     .plan_bits = plan_dbf,
     .rank = rank_dbf,
     .rate_bits = rate_bits_dbf,
     .same_on_every_cpu = false},
    {.name = "trellis",
     .summary =
         "trellis codes (QTIP, arXiv 2406.11235): --bits 0.25 to 3 by a table of 256 entries",
     .quantize = quantize_trellis,
     .nominal_bits = nominal_bits_trellis,
     .settings = kTrellisSettings,
     .weight_bytes = 15,  // the weights in tiles, their errors, their values; three sets of paths
     .rate_bits = rate_bits_trellis,
     .codes_learn = false},
};

}  // namespace

std::span<const Method> methods() { return kMethods; }

const Method& find_method(const std::string& name) {
  std::string known;
  for (const Method& method : kMethods) {
    if (name == method.name) return method;
    known += (known.empty() ? "" : ", ") + std::string(method.name);
  }
  throw Error(ErrorCode::kUsage,
              "--method " + printable(name) + ": unknown method: expected one of " + known);
}

int integer_bits(const MethodConfig& config) {
  const Method& method = find_method(config.method);
  const bool whole = uses(method, "bits") && range_of(find_setting("bits"), method).whole;
  return whole ? static_cast<int>(config.bits) : 0;
}

RegionFormat binary_shape(const WeightView& weight, const MethodConfig& config) {
  RegionFormat shape;
  shape.rows = weight.rows;
  shape.cols = weight.cols;
  shape.block_size = config.block_size;
  shape.nm = config.nm;
  shape.classes = config.classes;
  shape.salient_classes = config.salient_classes;
  shape.scale_format = config.scale_format;
  shape.offset_kind = config.offset_kind;
  return shape;
}

}  // namespace billm
