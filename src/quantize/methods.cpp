// The method table, and the checks of its settings.
#include "billm/quantize/methods.h"

#include <algorithm>
#include <charconv>

#include "billm/base/error.h"
#include "method_rows.h"

namespace billm {
namespace {

constexpr Method kMethods[] = {
    {"billm",
     "BiLLM (arXiv 2402.04291): salient columns in residual signs, the rest in two regions", true,
     false, quantize_billm, nominal_bits_billm, 2, 2, true, true},
    {"stbllm", "STBLLM (arXiv 2408.01803): N:M mask (--nm), then signs in three regions", true,
     true, quantize_stbllm, nominal_bits_stbllm, 3, 3, true, true},
    {"arb", "ARB-LLM RC (arXiv 2410.03129): signs in regions as billm, row times column scales",
     true, false, quantize_arb, nominal_bits_arb, 2, 2, false, true, 0, 0, false, false, true},
    {"pbllm", "PB-LLM (arXiv 2310.00034): a share of single weights (--salient) in 8 bits, signs",
     true, false, quantize_pbllm, nominal_bits_pbllm, 0, 0, false, true, 0, 0, false, true},
    {"rtn", "round to nearest: signs (--bits 1) or integers of 2, 3, 4 bits", false, false,
     quantize_rtn, nominal_bits_rtn, 0, 0, false, false, 1, 4},
    {"gptq", "GPTQ (arXiv 2210.17323): integers of --bits 2, 3, 4 with error feedback", true, false,
     quantize_gptq, nominal_bits_gptq, 0, 0, false, false, 2, 4, true},
};

Error usage(const std::string& message, const std::string& hint = "") {
  return Error(ErrorCode::kUsage, message, hint);
}

// --classes and --salient-classes.
void check_classes(const MethodConfig& config, const Method& method) {
  const bool given = config.classes.has_value() || config.salient_classes.has_value();
  if (!given) return;
  const std::string flag = config.classes.has_value() ? "--classes" : "--salient-classes";
  if (method.classes == 0) {
    throw usage(flag + ": --method " + config.method + " has no magnitude classes");
  }
  if (config.reference) {
    throw usage(flag + ": --compat reference has the classes of the published code");
  }
  const MagnitudeClasses classes = classes_of(config);
  if (classes.ordinary < 1 || classes.ordinary > kMaxClasses) {
    throw usage("--classes " + std::to_string(classes.ordinary) + ": expected 1..3");
  }
  // As check_region_format: more classes for salient columns than for the others are packed for one
  // ordinary class and no mask only.
  const int most = classes.ordinary == 1 && !config.nm.active() ? kMaxClasses : classes.ordinary;
  if (classes.salient < 0 || classes.salient > most) {
    throw usage("--salient-classes " + std::to_string(classes.salient) + ": expected 0.." +
                std::to_string(most) + " with --classes " + std::to_string(classes.ordinary) +
                (config.nm.active() ? " and --nm" : ""));
  }
}

}  // namespace

MagnitudeClasses classes_of(const MethodConfig& config) {
  const Method& method = find_method(config.method);
  MagnitudeClasses classes;
  classes.ordinary = config.classes.value_or(method.classes);
  const int own = config.classes == 1 ? 0 : std::min(method.salient_classes, classes.ordinary);
  // The published STBLLM has residual signs of order 2 in salient columns.
  classes.salient = config.salient_classes.value_or(config.reference ? std::min(own, 2) : own);
  return classes;
}

int default_block_size(const MethodConfig& config) {
  if (config.method != "arb") return 128;
  return classes_of(config).ordinary == 1 ? 4096 : 256;
}

RegionFormat binary_shape(const WeightView& weight, const MethodConfig& config) {
  const MagnitudeClasses classes = classes_of(config);
  RegionFormat shape;
  shape.rows = weight.rows;
  shape.cols = weight.cols;
  shape.block_size = config.block_size;
  shape.nm = config.nm;
  shape.classes = classes.ordinary;
  shape.salient_classes = classes.salient;
  shape.scale_format = config.scale_format;
  shape.offset_kind = config.offset_kind;
  return shape;
}

std::span<const Method> methods() { return kMethods; }

const Method& find_method(const std::string& name) {
  std::string known;
  for (const Method& method : kMethods) {
    if (name == method.name) return method;
    known += (known.empty() ? "" : ", ") + std::string(method.name);
  }
  throw usage("--method " + name + ": unknown method: expected one of " + known);
}

int bits_of(const MethodConfig& config) {
  return config.bits.value_or(find_method(config.method).min_bits);
}

double salient_share_of(const MethodConfig& config) { return config.salient_share.value_or(0.1); }

NmPattern parse_nm(const std::string& text) {
  NmPattern nm;
  const char* end = text.data() + text.size();
  const auto n = std::from_chars(text.data(), end, nm.n);
  if (n.ec == std::errc{} && n.ptr != end && *n.ptr == ':') {
    const auto m = std::from_chars(n.ptr + 1, end, nm.m);
    if (m.ec == std::errc{} && m.ptr == end) {
      if (nm.m < 2 || nm.m > 16) {
        throw usage("--nm " + text + ": expected M in 2..16, got " + std::to_string(nm.m));
      }
      if (nm.n < 1 || nm.n > nm.m) {
        throw usage("--nm " + text + ": expected N in 1.." + std::to_string(nm.m) + ", got " +
                    std::to_string(nm.n));
      }
      return nm;
    }
  }
  throw usage("--nm " + text + ": expected N:M such as 4:8 (keep N of every M weights)");
}

namespace {

// A setting that the method would ignore is refused rather than recorded.
void check_unused(const MethodConfig& config, const Method& method) {
  const MethodConfig initial;
  const bool refines = method.refines && !config.reference;
  const bool scales = method.refines || bits_of(config) == 1;
  const bool columns = method.classes > 0 && !config.reference;  // whether a search is set
  const struct {
    const char* flag;
    bool given, used;
  } settings[] = {
      {"--feedback", config.feedback != initial.feedback, refines},
      {"--refine", config.refine_rounds != initial.refine_rounds, refines},
      {"--no-descend", config.descend != initial.descend, refines},
      {"--offsets", config.offset_kind != initial.offset_kind, refines},
      {"--scales", config.scale_format != initial.scale_format, scales},
      {"--objective", config.objective != initial.objective, columns},
      {"--max-salient", config.max_salient != initial.max_salient, columns},
      {"--nm-alloc adaptive", config.nm_alloc == "adaptive", method.needs_nm},
      {"--column-rounds", config.column_rounds != initial.column_rounds, method.has_columns},
      {"--bits", config.bits.has_value(), method.max_bits > 0},
      {"--no-act-order", !config.act_order, method.has_order},
      {"--salient", config.salient_share.has_value(), method.has_share},
      {"--salient-metric", config.salient_metric.has_value(), method.has_share},
      {"--damping", config.damping != initial.damping, method.needs_factor},
      {"--compat reference", config.reference, method.has_reference},
  };
  for (const auto& setting : settings) {
    if (setting.given && !setting.used) {
      throw usage(std::string(setting.flag) + ": --method " + config.method +
                  (config.reference && method.refines ? " --compat reference" : "") +
                  " does not use it");
    }
  }
}

}  // namespace

void check_config(const MethodConfig& config) {
  const Method& method = find_method(config.method);
  if (config.block_size < 8 || config.block_size > 4096) {
    throw usage("--block-size " + std::to_string(config.block_size) + ": expected 8..4096");
  }
  if (method.needs_nm != config.nm.active()) {
    throw usage(method.needs_nm ? "--method " + config.method + ": expected --nm N:M"
                                : "--nm: --method " + config.method + " has no N:M mask");
  }
  if (config.bits && method.max_bits > 0 &&
      (*config.bits < method.min_bits || *config.bits > method.max_bits)) {
    throw usage("--bits " + std::to_string(*config.bits) + ": --method " + config.method +
                ": expected " + std::to_string(method.min_bits) + ".." +
                std::to_string(method.max_bits));
  }
  if (!(salient_share_of(config) > 0 && salient_share_of(config) <= 0.5)) {
    throw usage("--salient " + std::to_string(salient_share_of(config)) +
                ": expected a share above 0 and up to 0.5");
  }
  if (config.nm.active() && config.block_size % config.nm.m != 0) {
    throw usage("--block-size " + std::to_string(config.block_size) +
                ": expected a multiple of M of --nm " + config.nm.text());
  }
  if (config.nm_alloc != "uniform" && config.nm_alloc != "adaptive") {
    throw usage("--nm-alloc " + config.nm_alloc + ": expected adaptive or uniform");
  }
  if (config.refine_rounds < 0 || config.refine_rounds > 100) {
    throw usage("--refine " + std::to_string(config.refine_rounds) + ": expected 0..100");
  }
  if (config.column_rounds < 0 || config.column_rounds > 100) {
    throw usage("--column-rounds " + std::to_string(config.column_rounds) + ": expected 0..100");
  }
  check_unused(config, method);
  check_classes(config, method);
}

}  // namespace billm
