// The settings table.
#include "billm/quantize/settings.h"

#include <algorithm>
#include <type_traits>

#include "billm/base/error.h"
#include "billm/base/printable.h"

namespace billm {
namespace {

template <auto kMember>
constexpr ChoiceMember named(std::span<const Choice> choices) {
  using Value = std::remove_cvref_t<decltype(std::declval<MethodConfig>().*kMember)>;
  return {choices, [](const MethodConfig& config) { return static_cast<int>(config.*kMember); },
          [](MethodConfig* config, int value) { config->*kMember = static_cast<Value>(value); }};
}

template <typename T>
constexpr Choice choice(const char* name, T value) {
  return {name, static_cast<int>(value)};
}

constexpr Choice kCompats[] = {choice("none", false), choice("reference", true)};
constexpr Choice kAllocations[] = {choice("uniform", NmAllocation::kUniform),
                                   choice("adaptive", NmAllocation::kAdaptive)};
constexpr Choice kScaleFormats[] = {choice("log8", ScaleFormat::kLog8),
                                    choice("f16", ScaleFormat::kF16),
                                    choice("f32", ScaleFormat::kF32)};
constexpr Choice kOffsetKinds[] = {choice("none", OffsetKind::kNone),
                                   choice("block", OffsetKind::kBlock)};
constexpr Choice kFeedbacks[] = {choice("columns", Feedback::kColumns),
                                 choice("blocks", Feedback::kBlocks),
                                 choice("none", Feedback::kNone)};
constexpr Choice kObjectives[] = {choice("weights", SearchObjective::kWeights),
                                  choice("saliency", SearchObjective::kSaliency)};
constexpr Choice kSides[] = {choice("none", RotatedSides::kNone), choice("in", RotatedSides::kIn),
                             choice("both", RotatedSides::kBoth)};
constexpr Choice kTargets[] = {choice("own", Targets::kOwn),
                               choice("corrected", Targets::kCorrected)};
constexpr Choice kMetrics[] = {choice("hessian", SalientMetric::kHessian),
                               choice("magnitude", SalientMetric::kMagnitude)};

constexpr SettingCondition kNotPublished = {
    [](const MethodConfig& config) { return !config.reference; }, "with --compat reference"};
constexpr SettingCondition kSearchesColumns = {
    [](const MethodConfig& config) { return !config.reference && config.salient_classes > 0; },
    "with --compat reference or without salient columns"};
constexpr SettingCondition kRefines = {[](const MethodConfig& config) {
                                         return !config.reference && config.refine_rounds > 0 &&
                                                config.feedback != Feedback::kNone;
                                       },
                                       "with --compat reference, --refine 0 or --feedback none"};

constexpr SettingCondition kRotates = {
    [](const MethodConfig& config) { return config.rotate != RotatedSides::kNone; },
    "without --rotate"};

constexpr SettingCondition kCorrects = {
    [](const MethodConfig& config) { return config.targets == Targets::kCorrected; },
    "with --targets own"};

// At most as many as --classes; none besides signs alone. The published STBLLM has residual signs
// of order 2 in salient columns.
constexpr DerivedDefault kSalientClasses = {
    [](const MethodConfig& config, SettingValue own) -> SettingValue {
      if (config.classes == 1) return 0;
      const int most = config.reference ? 2 : config.classes;
      return std::min(std::get<int>(own), most);
    },
    "at most --classes, 0 with --classes 1"};

Error usage(const std::string& message) { return Error(ErrorCode::kUsage, message); }

void check_block_size(const MethodConfig& config) {
  if (config.nm.active() && config.block_size % config.nm.m != 0) {
    throw usage("--block-size " + std::to_string(config.block_size) +
                ": expected a multiple of M of --nm " + config.nm.text());
  }
}

// As check_region_format: more classes for salient columns than for the others are packed for one
// ordinary class and no mask only.
void check_salient_classes(const MethodConfig& config) {
  const int most = config.classes == 1 && !config.nm.active() ? kMaxClasses : config.classes;
  if (config.salient_classes > most) {
    throw usage("--salient-classes " + std::to_string(config.salient_classes) + ": expected 0.." +
                std::to_string(most) + " with --classes " + std::to_string(config.classes) +
                (config.nm.active() ? " and --nm" : ""));
  }
}

// In the order in which the manifest and --help have them.
constexpr Setting kSettings[] = {
    {.name = "compat",
     .flag = "--compat",
     .help = "reference: the published code's search and feedback, defects included",
     .member = named<&MethodConfig::reference>(kCompats),
     .value = "none",
     .unused = Setting::Unused::kDefault},
    {.name = "nm",
     .flag = "--nm",
     .help = "Keep N of every M weights, M up to 16",
     .member = &MethodConfig::nm,
     .value = {},
     .expert = false,
     .unused = Setting::Unused::kNull},
    {.name = "nm_alloc",
     .flag = "--nm-alloc",
     .help = "N the same in all layers (uniform) or by outlier share (adaptive)",
     .member = named<&MethodConfig::nm_alloc>(kAllocations),
     .value = "uniform",
     .expert = false,
     .whole_run = true,
     .unused = Setting::Unused::kDefault},
    {.name = "block_size",
     .flag = "--block-size",
     .help = "Columns that share scales",
     .member = &MethodConfig::block_size,
     .value = 128,
     .range = integers(8, 4096),
     .check = check_block_size,
     .expert = false,
     .unused = Setting::Unused::kDefault},
    {.name = "scale_format",
     .flag = "--scales",
     .help = "How scales are stored",
     .member = named<&MethodConfig::scale_format>(kScaleFormats),
     .value = "log8",
     .unused = Setting::Unused::kDefault},
    {.name = "offsets",
     .flag = "--offsets",
     .help = "Which means are stored",
     .member = named<&MethodConfig::offset_kind>(kOffsetKinds),
     .value = "none",
     .condition = kNotPublished,
     .unused = Setting::Unused::kDefault},
    {.name = "feedback",
     .flag = "--feedback",
     .help = "Error feedback: by columns (exact, inside groups too), by groups (blocks), none",
     .member = named<&MethodConfig::feedback>(kFeedbacks),
     .value = "columns",
     .condition = kNotPublished,
     .unused = Setting::Unused::kDefault},
    {.name = "objective",
     .flag = "--objective",
     .help = "What the salient search minimizes: error of the weights, or saliency",
     .member = named<&MethodConfig::objective>(kObjectives),
     .value = "weights",
     .condition = kSearchesColumns,
     .unused = Setting::Unused::kDefault},
    {.name = "refine_rounds",
     .flag = "--refine",
     .help = "Rounds of alternating updates of scales and codes",
     .member = &MethodConfig::refine_rounds,
     .value = 4,
     .range = integers(0, 100),
     .condition = kNotPublished,
     .unused = Setting::Unused::kDefault},
    {.name = "descend",
     .flag = "--no-descend",
     .help = "Refine with feedback passes in place of coordinate descent",
     .member = &MethodConfig::descend,
     .value = true,
     .condition = kRefines,
     .unused = Setting::Unused::kDefault},
    {.name = "classes",
     .flag = "--classes",
     .help = "Magnitude classes of ordinary columns; 1: signs alone, no salient columns",
     .member = &MethodConfig::classes,
     .value = 0,
     .range = integers(1, kMaxClasses),
     .condition = kNotPublished,
     .unused = Setting::Unused::kDefault},
    {.name = "salient_classes",
     .flag = "--salient-classes",
     .help = "Magnitude classes of salient columns; the paper of stbllm has 2",
     .member = &MethodConfig::salient_classes,
     .value = 0,
     .derived = kSalientClasses,
     .range = integers(0, kMaxClasses),
     .condition = kNotPublished,
     .check = check_salient_classes,
     .unused = Setting::Unused::kDefault},
    {.name = "column_rounds",
     .flag = "--column-rounds",
     .help = "Times that codes are found anew for refitted column scales",
     .member = &MethodConfig::column_rounds,
     .value = 1,
     .range = integers(0, 100),
     .unused = Setting::Unused::kDefault},
    {.name = "max_salient",
     .flag = "--max-salient",
     .help = "Most salient columns of a quantization group; 0: none",
     .member = &MethodConfig::max_salient,
     .value = 49,
     .range = integers(0, 4095),
     .condition = kSearchesColumns,
     .unused = Setting::Unused::kDefault},
    {.name = "bits",
     .flag = "--bits",
     .help = "Bits of a weight",
     .member = &MethodConfig::bits,
     .value = 0,
     .expert = false,
     .unused = Setting::Unused::kNull},
    {.name = "sweeps",
     .flag = "--sweeps",
     .help = "Times that each group of columns is coded again given all the others",
     .member = &MethodConfig::sweeps,
     .value = 2,
     .range = integers(0, 100)},
    {.name = "act_order",
     .flag = "--no-act-order",
     .help = "Columns from left to right, not by descending diag H",
     .member = &MethodConfig::act_order,
     .value = true,
     .unused = Setting::Unused::kNull},
    {.name = "salient",
     .flag = "--salient",
     .help = "Share of weights kept in 8 bits",
     .member = &MethodConfig::salient_share,
     .value = 0.1,
     .range = reals_above(0, 0.5),
     .expert = false,
     .unused = Setting::Unused::kNull},
    {.name = "salient_metric",
     .flag = "--salient-metric",
     .help = "Salient weights by w^2 R_jj^2 (hessian) or by |w| (magnitude)",
     .member = named<&MethodConfig::salient_metric>(kMetrics),
     .value = "hessian",
     .unused = Setting::Unused::kNull},
    {.name = "rotate",
     .flag = "--rotate",
     .help = "Quantize in a rotated basis: of the inputs (in), of inputs and outputs (both)",
     .member = named<&MethodConfig::rotate>(kSides),
     .value = "none",
     .condition = kNotPublished,
     .expert = false},
    {.name = "rotate_seed",
     .flag = "--rotate-seed",
     .help = "Seed of the rotations",
     .member = &MethodConfig::rotate_seed,
     .value = 0,
     .range = integers(0, 2147483647),
     .condition = kRotates},
    {.name = "damping",
     .flag = "--damping",
     .help = "lambda / mean(diag H)",
     .member = &MethodConfig::damping,
     .value = 0.01,
     .range = reals(1e-8, 10),
     .unused = Setting::Unused::kDefault},
    {.name = "targets",
     .flag = "--targets",
     .help = "What a layer is fitted to: its own outputs on the inputs that it will get, or, "
             "corrected, the original's outputs on the original's inputs (with --sequential)",
     .member = named<&MethodConfig::targets>(kTargets),
     .value = "own",
     .condition = kNotPublished,
     .expert = false,
     .whole_run = true},
    {.name = "target_share",
     .flag = "--target-share",
     .help = "How much of the correction for the inputs is made",
     .member = &MethodConfig::target_share,
     .value = 0.5,
     .range = reals(0, 1),
     .condition = kCorrects,
     .whole_run = true},
    {.name = "stream_share",
     .flag = "--stream-share",
     .help = "How much of what the residual stream has lost is made up for",
     .member = &MethodConfig::stream_share,
     .value = 0.5,
     .range = reals(0, 1),
     .condition = kCorrects,
     .whole_run = true},
    {.name = "target_ridge",
     .flag = "--target-ridge",
     .help = "Ridge of the correction / mean(diag H)",
     .member = &MethodConfig::target_ridge,
     .value = 0.01,
     .range = reals(1e-8, 10),
     .condition = kCorrects,
     .whole_run = true},
    {.name = "sink_weight",
     .flag = "--sink-weight",
     .help =
         "Times that a token with massive activations counts in H and for --tune; 1: as any other",
     .member = &MethodConfig::sink_weight,
     .value = 1,
     .range = integers(1, 1024),
     .condition = kNotPublished,
     .whole_run = true},
};

}  // namespace

std::span<const Setting> settings() { return kSettings; }

const Setting& find_setting(std::string_view name) {
  std::string known;
  for (const Setting& setting : kSettings) {
    if (name == setting.name) return setting;
    known += (known.empty() ? "" : ", ") + std::string(setting.name);
  }
  throw usage(printable(name) + ": unknown setting: expected one of " + known);
}

}  // namespace billm
