// See estimate_text.h.
#include "estimate_text.h"

#include <cstdio>
#include <string>

namespace billm {
namespace {

std::string duration_text(double seconds) {
  char text[64];
  if (seconds < 120) {
    std::snprintf(text, sizeof(text), "%.0f s", seconds);
  } else if (seconds < 7200) {
    std::snprintf(text, sizeof(text), "%.0f min", seconds / 60);
  } else {
    std::snprintf(text, sizeof(text), "%.1f h", seconds / 3600);
  }
  return text;
}

const char* place_text(HiddenPlace place) {
  switch (place) {
    case HiddenPlace::kDevice:
      return "on the GPU";
    case HiddenPlace::kMemory:
      return "in memory";
    case HiddenPlace::kDisk:
      break;
  }
  return "on disk";
}

void print_parts(const std::vector<CalibrationPart>& parts) {
  for (const CalibrationPart& part : parts) {
    std::printf("calibration   %ld windows of %s, weight %.13g\n", static_cast<long>(part.windows),
                part.name.c_str(), part.weight);
  }
}

}  // namespace

void print_estimate(const Estimate& estimate, const EstimateRequest& request,
                    const std::vector<CalibrationPart>& parts) {
  const auto gigabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  const auto billions = [](int64_t weights) { return static_cast<double>(weights) / 1e9; };
  std::printf("model         %s, %ld blocks, %.3f billion weights to quantize, %.3f others\n",
              request.model.architecture.c_str(), static_cast<long>(estimate.blocks),
              billions(estimate.weights), billions(estimate.other_weights));
  std::printf("method        %s, calibrated on %ld x %ld tokens\n", request.method.method.c_str(),
              static_cast<long>(request.sequences), static_cast<long>(request.length));
  print_parts(parts);
  std::printf("stored bits   %.4f per quantized weight\n", estimate.stored_bits);
  std::printf("file bits     %.4f per parameter, everything that is in the file\n",
              estimate.file_bits);
  std::printf("output        %.2f GB\n", gigabytes(estimate.output_bytes));
  std::printf("disk          %.2f GB at most while it runs\n", gigabytes(estimate.disk_bytes));
  std::printf(
      "hidden states %.2f GB, kept %s (in memory if they take at most a quarter of what is "
      "free)\n",
      gigabytes(estimate.hidden_bytes), place_text(estimate.hidden_place));
  std::printf("peak memory   %.2f GB; of a GPU (--device cuda) %.2f GB\n",
              gigabytes(estimate.cpu_bytes), gigabytes(estimate.gpu_bytes));
  std::printf("time          %s: forward %s, hessian %s, quantize %s, tune %s; %d threads\n",
              duration_text(estimate.total_seconds).c_str(),
              duration_text(estimate.forward_seconds).c_str(),
              duration_text(estimate.hessian_seconds).c_str(),
              duration_text(estimate.quantize_seconds).c_str(),
              duration_text(estimate.tune_seconds).c_str(), request.threads);
  if (request.target_bits) {
    std::printf("plan          %s of it: a uniform result, and where its error comes from\n",
                duration_text(estimate.plan_seconds).c_str());
  }
  std::printf("(from config.json and a probe of %.1f s on this machine)\n", estimate.probe_seconds);
}

nlohmann::ordered_json estimate_json(const Estimate& estimate) {
  return {{"blocks", estimate.blocks},
          {"weights", estimate.weights},
          {"other_weights", estimate.other_weights},
          {"stored_bits", estimate.stored_bits},
          {"file_bits", estimate.file_bits},
          {"output_bytes", estimate.output_bytes},
          {"disk_bytes", estimate.disk_bytes},
          {"hidden_bytes", estimate.hidden_bytes},
          {"hidden_place", hidden_place_name(estimate.hidden_place)},
          {"cpu_bytes", estimate.cpu_bytes},
          {"gpu_bytes", estimate.gpu_bytes},
          {"seconds",
           {{"forward", estimate.forward_seconds},
            {"hessian", estimate.hessian_seconds},
            {"quantize", estimate.quantize_seconds},
            {"tune", estimate.tune_seconds},
            {"plan", estimate.plan_seconds},
            {"total", estimate.total_seconds},
            {"probe", estimate.probe_seconds}}}};
}

void print_estimate(const DistillEstimate& estimate, const DistillConfig& config, int threads,
                    const std::vector<CalibrationPart>& parts) {
  const auto gigabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  std::printf("model         %.3f billion quantized weights, %d steps of %d x %ld tokens\n",
              static_cast<double>(estimate.weights) / 1e9, config.steps, config.batch,
              static_cast<long>(config.window));
  print_parts(parts);
  std::printf("output        %.2f GB\n", gigabytes(estimate.output_bytes));
  std::printf("disk          %.2f GB at most while it runs\n", gigabytes(estimate.disk_bytes));
  std::printf("peak memory   %.2f GB; of a GPU (--device cuda) %.2f GB\n",
              gigabytes(estimate.cpu_bytes), gigabytes(estimate.gpu_bytes));
  std::printf("time          %s: original %s, training %s, held-out text %s; %d threads\n",
              duration_text(estimate.total_seconds).c_str(),
              duration_text(estimate.teacher_seconds).c_str(),
              duration_text(estimate.training_seconds).c_str(),
              duration_text(estimate.held_out_seconds).c_str(), threads);
  std::printf("(from the packed model's headers and a probe of %.1f s on this machine)\n",
              estimate.probe_seconds);
}

nlohmann::ordered_json estimate_json(const DistillEstimate& estimate) {
  return {{"weights", estimate.weights},
          {"output_bytes", estimate.output_bytes},
          {"disk_bytes", estimate.disk_bytes},
          {"cpu_bytes", estimate.cpu_bytes},
          {"gpu_bytes", estimate.gpu_bytes},
          {"seconds",
           {{"teacher", estimate.teacher_seconds},
            {"training", estimate.training_seconds},
            {"held_out", estimate.held_out_seconds},
            {"total", estimate.total_seconds},
            {"probe", estimate.probe_seconds}}}};
}

}  // namespace billm
