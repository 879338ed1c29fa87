// An unfinished training: all that its remaining steps depend on, so that they give the same bytes
// as if it had not been interrupted.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "billm/learn/config.h"

namespace billm {

struct TrainingState {
  int step = 0;  // how many were made
  TuneReport report;
  std::vector<double> losses;                 // of the steps
  std::map<std::string, at::Tensor> tensors;  // parameters, moments, the best state; on any device
};

// Writes it as a safetensors file, whole or not at all, and returns its SHA-256. Throws
// Error{kFailure} on a failing disk.
std::string write_training_state(const std::filesystem::path& path, const TrainingState& state);

// Throws Error{kBadInput} if the file is not one that write_training_state() wrote.
TrainingState read_training_state(const std::filesystem::path& path);

}  // namespace billm
