// billm export.
#include <cstdio>
#include <memory>

#include "billm/base/error.h"
#include "billm/model/runtime.h"
#include "billm/pipeline/quantize_model.h"
#include "command.h"
#include "common.h"

namespace billm {
namespace {

struct Options {
  CommonOptions common;
  std::string model, out;
  bool dense = false, overwrite = false;
};

void run(const Options& options) {
  options.common.check_json();
  if (!options.dense) {
    throw Error(ErrorCode::kUsage, "--dense: expected; it is the only form of export so far");
  }
  init_torch();
  const std::filesystem::path model = model_or_newest(options.model, options.common.quiet);
  export_dense(model, options.out, options.overwrite, options.common.resolved_threads(),
               options.common.quiet);
  if (options.common.print()) std::printf("output        %s\n", options.out.c_str());
  options.common.write_json(
      {{"model", model.string()}, {"output", std::filesystem::absolute(options.out).string()}});
}

}  // namespace

std::function<void()> setup_export(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("-m,--model", options->model, "Packed model (default: the newest result)")
      ->type_name("DIR");
  app.add_flag("--dense", options->dense, "An ordinary checkpoint with dequantized fp16 weights");
  app.add_option("-o,--out", options->out, "Directory to write")->required()->type_name("DIR");
  app.add_flag("--overwrite", options->overwrite, "Replace an existing --out");
  options->common.add_to(app);
  app.footer("Example:\n  billm export --dense --model ./result --out ./dense");
  return [options] { run(*options); };
}

}  // namespace billm
