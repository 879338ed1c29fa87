// One pass of the original model over the calibration sequences, for what is decided before the
// first block is quantized.
#pragma once

#include <c10/core/Device.h>

#include <filesystem>
#include <functional>

#include "billm/model/block.h"
#include "billm/model/model.h"
#include "hidden_states.h"

namespace billm {

struct OriginalPass {
  const Model& model;
  const Rope& rope;
  const std::filesystem::path& directory;  // of the files, if `hidden` lies in files
  c10::Device device;
  int threads;
  bool quiet;
  int rank = 0;  // of this process, whose files are its own
};

// Calls visit(b, block) for every block, `hidden` being its inputs, and at the end, if `last`, once
// more with the number of blocks and the last one, `hidden` being what it made. `hidden` are those
// of the first block at the start; their files are gone after. `label`: of the progress.
void pass_original(const OriginalPass& pass, const char* label, bool last, HiddenStates* hidden,
                   const std::function<void(int64_t b, const Block& block)>& visit);

}  // namespace billm
