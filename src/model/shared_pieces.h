// Tensor work shared among the threads of a WorkerTeam.
#pragma once

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <atomic>
#include <cstdint>

#include "billm/base/worker_team.h"

namespace billm {

// Calls body(piece, worker) once for each piece < count, each by one worker, on which ATen has one
// thread. Gradients are not recorded if the caller is in inference mode.
template <typename Body>
void share_pieces(WorkerTeam& team, int64_t count, Body body) {
  struct Restore {  // the caller is a worker, too
    const int threads = at::get_num_threads();
    ~Restore() { at::set_num_threads(threads); }
  } const restore;
  const bool inference = c10::InferenceMode::is_enabled();
  std::atomic<int64_t> next{0};
  team.run([&](int worker) {
    const c10::InferenceMode mode(inference);  // these two are a thread's own
    at::set_num_threads(1);
    for (int64_t piece = next++; piece < count; piece = next++) body(piece, worker);
  });
}

}  // namespace billm
