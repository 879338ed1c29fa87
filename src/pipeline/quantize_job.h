// What a quantizing run stands on: the checked request, the model, the device, the part of the work
// that is this process's, and the unfinished result with its journal.
#pragma once

#include <c10/core/Device.h>

#include <filesystem>
#include <optional>
#include <string>

#include "billm/model/model.h"
#include "billm/pipeline/process_group.h"
#include "billm/pipeline/quantize_model.h"
#include "billm/quantize/context.h"
#include "gpu_accelerator.h"
#include "journal.h"
#include "output_directory.h"
#include "shared_work.h"

namespace billm {

class QuantizeJob {
 public:
  // Keeps the references. Opens the model and the output directory; with resume, the journal is
  // that of the unfinished run. Throws as quantize_model().
  QuantizeJob(const QuantizeRequest& request, ProcessGroup& processes);
  QuantizeJob(const QuantizeJob&) = delete;
  QuantizeJob& operator=(const QuantizeJob&) = delete;

  const QuantizeRequest& request;
  ProcessGroup& processes;
  const c10::Device device;
  const int forward_threads;  // a GPU's stream is filled by one thread
  const OwnSequences own;     // of the calibration sequences
  const Model model;
  std::optional<OutputDirectory> directory;  // of the first process
  std::filesystem::path partial;             // of all
  LayerPlan plan;                            // of --plan
  Journal journal;

  const ModelSpec& spec() const { return model.spec(); }
  bool tuned() const { return request.tune.has_value(); }
  QuantizeContext context() const;

 private:
  void start_accelerator();
  void check_inputs() const;
  void check_leftovers() const;
  std::string common_digest() const;
  void open_output();

  const GroupRows rows_;
  std::optional<GpuAccelerator> accelerator_;  // not on a CPU
};

}  // namespace billm
