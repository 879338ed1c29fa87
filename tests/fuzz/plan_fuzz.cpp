// Any text as --plan is a plan whose every layer has a configuration that its method takes, or an
// error.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "billm/base/json_text.h"
#include "billm/checkpoint/json.h"
#include "billm/quantize/layer_plan.h"
#include "billm/quantize/methods.h"
#include "billm/quantize/settings.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  static const std::vector<std::string> modules = {"m.0.q", "m.0.down", "m.1.q", "m.1.down"};
  static const std::vector<MethodConfig> runs = {configure("trellis", {}),
                                                 configure("arb", {{"rotate", "in"}})};
  for (const MethodConfig& run : runs) {
    fuzz::answer([&] {
      const std::string text(fuzz::text_of(data, size));
      parse_json_object(text, "plan");
      const LayerPlan plan = read_plan(parse_ordered_json(text), "plan", modules, run);
      for (const std::string& module : modules) {
        if (stays(plan, module)) continue;
        const MethodConfig config = planned_config(run, plan, module);
        // What is planned may go beyond what all layers may have.
        if (find_method(config.method).plan_bits == nullptr) check_config(config);
      }
    });
  }
  return 0;
}
