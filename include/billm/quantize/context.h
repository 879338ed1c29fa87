// Where and with whom a layer is quantized. Nothing of it is recorded: threads and processes never
// change the codes, and a device changes them by rounding only.
#pragma once

namespace billm {

class RowShare;
class Accelerator;

struct QuantizeContext {
  int threads = 1;
  const RowShare* share = nullptr;  // several processes (row_share.h); null: this one alone
  const Accelerator* accelerator = nullptr;  // a GPU (accelerator.h); null: all on the CPU
};

}  // namespace billm
