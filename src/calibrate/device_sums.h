// X^T X summed where the forward pass runs: on a GPU the inputs stay there, and the finished
// matrices are copied once. The same code runs on a CPU, where the tests compare it with the sums
// that the threads share (collect.cpp). fp32 products and sums (resolve_device turns TF32 off), in
// a fixed order: the same bytes again on the same device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <map>
#include <string>

#include "billm/calibrate/collect.h"

namespace billm {

class DeviceSums {
 public:
  // sum += X^T X for X [tokens, width], upper triangle only. Where X lies, the sum will.
  void add_input(const std::string& group, const at::Tensor& input);
  // += another part's sums.
  void add(DeviceSums part);
  // Waits for the device: for the clock, since work is only queued there.
  void wait() const;
  // On the host, upper triangles only; leaves nothing here.
  StatsByGroup take();

 private:
  struct Sum {
    at::Tensor matrix;  // [width, width]
    int64_t tokens = 0;
  };
  std::map<std::string, Sum> sums_;
};

}  // namespace billm
