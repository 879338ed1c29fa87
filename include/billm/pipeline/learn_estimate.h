// What learning would need: block tuning as a part of `quantize --dry-run`, and `distill
// --dry-run`. Counted, with the rate of matrix products that a probe of a second measures on this
// machine.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

#include "billm/learn/config.h"
#include "billm/model/family.h"
#include "billm/pipeline/distill_model.h"
#include "billm/quantize/config.h"

namespace billm {

// What tuning one block needs.
struct TuneNeeds {
  double seconds = 0;
  // What tuning holds at its largest, besides the block in fp32: on the model's device, and on the
  // host. Inputs and targets of the block, of all sequences, are among the first.
  int64_t device_bytes = 0, host_bytes = 0;
};
// `rate`: fp32 operations per second of matrix products on all threads.
TuneNeeds tune_needs(const ModelSpec& spec, const TuneConfig& config, const MethodConfig& method,
                     int64_t sequences, int64_t length, double rate, int threads);

struct DistillEstimate {
  int64_t weights = 0;       // quantized ones
  int64_t output_bytes = 0;  // of the result's safetensors files: those of the packed model
  int64_t disk_bytes = 0;    // at most, while it runs: the result, or two states of the training
  int64_t cpu_bytes = 0;     // peak memory of the process, mapped pages left out
  int64_t gpu_bytes = 0;     // peak memory of the device, were it a GPU
  // Wall-clock seconds.
  double teacher_seconds = 0, training_seconds = 0, held_out_seconds = 0, total_seconds = 0;
  double probe_seconds = 0;
};
// Reads the headers of request.model only; of request.calibration nothing but the size, which is
// `sequences` of `length` tokens. Throws as distill_model() does.
DistillEstimate estimate_distill(const DistillRequest& request, int64_t sequences, int64_t length);

// fp32 operations per second of matrix products, on all threads or on the device.
double product_rate(c10::Device device, int threads);

}  // namespace billm
