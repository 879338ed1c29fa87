// See quantize_job.h.
#include "quantize_job.h"

#include <set>
#include <utility>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/base/log.h"
#include "billm/model/model_bits.h"
#include "billm/model/runtime.h"
#include "checked_plan.h"
#include "kernels/cuda/load.h"
#include "model_digest.h"
#include "settings.h"

namespace billm {
namespace {

Error different_arguments() {
  return Error(ErrorCode::kUsage, "the processes were given different models or settings",
               "start all of them with the same arguments");
}

}  // namespace

QuantizeJob::QuantizeJob(const QuantizeRequest& request_, ProcessGroup& processes_)
    : request(request_),
      processes(processes_),
      device(resolve_device(request.device, DeviceUse::kTensors,
                            processes.alone() ? 0 : local_rank())),
      forward_threads(device.is_cpu() ? request.threads : 1),
      own(own_sequences(request.calibration.rows, processes)),
      model(request.model, request.threads),
      rows_(processes) {
  if (!device.is_cpu()) start_accelerator();
  check_inputs();
  plan = checked_plan(spec(), request.method, request.plan, request.plan_source,
                      request.target_bits, request.tune.has_value());
  check_leftovers();
  journal.settings = settings_json(request, common_digest());
  open_output();
}

QuantizeContext QuantizeJob::context() const {
  return {.threads = request.threads,
          .share = processes.alone() ? nullptr : &rows_,
          .accelerator = accelerator_ ? &*accelerator_ : nullptr};
}

void QuantizeJob::start_accelerator() {
  std::string why;
  const kernels::cuda::CudaApi* const kernels = kernels::cuda::load_cuda_kernels(&why);
  if (kernels == nullptr && processes.first()) {
    log_warning("the CPU chooses the codes, which takes longer: " + why);
  }
  accelerator_.emplace(device, kernels);
}

void QuantizeJob::check_inputs() const {
  if (model.packed() != nullptr) {
    throw bad_input(request.model.string() + ": is quantized already",
                    "give --model the original checkpoint");
  }
  if (request.calibration.rows < 1 || request.calibration.cols < 2) {
    throw bad_input(
        request.calibration_source +
        ": expected at least one sequence of at least two tokens, got " +
        shape_text(std::vector<int64_t>{request.calibration.rows, request.calibration.cols}));
  }
  check_embedding_bits(request.embedding_bits, head_is_embedding(model), request.model.string());
  check_length(spec(), request.calibration.cols);
}

// A tensor beside a quantized weight would share a name's prefix with the planes.
void QuantizeJob::check_leftovers() const {
  std::set<std::string> modules;
  for (int64_t b = 0; b < spec().blocks(); ++b) {
    for (const LinearSpec& linear : spec().family->linears) {
      modules.insert(spec().module(b, linear));
    }
  }
  for (const std::string& name : model.checkpoint().names()) {
    const size_t dot = name.rfind('.');
    if (dot == std::string::npos || modules.count(name.substr(0, dot)) == 0) continue;
    if (name.substr(dot) != ".weight" && name.substr(dot) != ".bias") {
      throw bad_input(request.model.string() + ": " + name +
                      ": expected only a weight and a bias in this module");
    }
  }
}

// The model's identity, which the first process computes for all. The others may read the model
// from another place: they compare as much of it as takes a moment.
std::string QuantizeJob::common_digest() const {
  std::string digest;
  if (processes.first()) digest = model_digest(model.checkpoint(), request.threads);
  if (processes.alone()) return digest;
  digest = processes.broadcast_text(0, digest);
  const std::string outline = model_outline(model.checkpoint());
  if (processes.broadcast_text(0, outline) != outline) throw different_arguments();
  return digest;
}

// The first process makes the output directory and reads the journal; the others take both over.
void QuantizeJob::open_output() {
  using Existing = OutputDirectory::Existing;
  if (processes.first()) {
    directory.emplace(request.out,
                      request.resume && request.overwrite ? Existing::kResumeOverwrite
                      : request.resume                    ? Existing::kResume
                      : request.overwrite                 ? Existing::kOverwrite
                                                          : Existing::kRefuse,
                      std::vector<std::filesystem::path>{request.model});
    partial = directory->partial();
    if (request.resume && !read_journal(partial, journal.settings, request.threads, &journal)) {
      log_warning("--resume: no block was finished before: starting from the first");
    }
  }
  partial = processes.broadcast_text(0, partial.string());
  const std::string text = processes.broadcast_text(0, dump_json(journal_json(journal)));
  if (processes.first()) return;
  Journal theirs = journal_from(parse_ordered_json(text));
  if (theirs.settings != journal.settings) {
    throw different_arguments();
  }
  journal = std::move(theirs);
  if (!std::filesystem::is_directory(partial)) {
    throw Error(ErrorCode::kFailure,
                partial.string() + ": expected the first process's directory, got nothing there",
                "choose an --out on a file system that all processes share");
  }
}

}  // namespace billm
