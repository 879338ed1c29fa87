// X^T X and its like summed where the forward pass runs: on a GPU the inputs stay there, and the
// finished matrices are copied once. The same code runs on a CPU, where the tests compare it with
// the sums that the threads share (collect.cpp). fp32 products and sums (resolve_device turns TF32
// off), in a fixed order: the same bytes again on the same device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <map>
#include <string>
#include <vector>

#include "billm/calibrate/collect.h"

namespace billm {

// Of a chunk of sequences, where they are summed.
struct GroupInputs {
  std::vector<at::Tensor> inputs;     // X [tokens, width] of each sequence
  std::vector<at::Tensor> originals;  // Xo of CalibrationStats::cross; or none
  std::vector<at::Tensor> drifts;     // D of CalibrationStats::drift; or none
  int64_t tokens = 0;                 // as they count
};

class DeviceSums {
 public:
  // Sums += those of the sequences; of X^T X the upper triangle only. Where X lies, they will.
  void add_inputs(const std::string& group, const GroupInputs& inputs);
  // += another part's sums.
  void add(DeviceSums part);
  // Waits for the device: for the clock, since work is only queued there.
  void wait() const;
  // On the host, upper triangles only; leaves nothing here.
  StatsByGroup take();

 private:
  struct Sum {
    at::Tensor matrix;        // [width, width]
    at::Tensor cross, drift;  // undefined: not wanted
    int64_t tokens = 0;
  };
  std::map<std::string, Sum> sums_;
};

}  // namespace billm
