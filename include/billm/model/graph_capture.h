// Work of a device that is recorded once and launched again as a whole: a CUDA graph. The time to
// launch the hundreds of kernels of one decoded token, each of which takes microseconds, is what a
// graph saves.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace billm {

class CapturedGraph {
 public:
  virtual ~CapturedGraph() = default;
  // Queues the recorded work in ATen's current stream.
  virtual void replay() = 0;
};

class GraphCapture {
 public:
  virtual ~GraphCapture() = default;
  // Calls `work` twice: once to have it done (libraries load, buffers come to be), once to record
  // it, in a stream of its own. It must touch nothing but tensors of the device, do the same every
  // time, and not wait for the device; tensors that it reads and writes from outside must stay
  // where they are. Throws std::exception if it cannot be recorded.
  virtual std::unique_ptr<CapturedGraph> capture(const std::function<void()>& work) = 0;
};

// For a CUDA device: libbillm_torch_cuda.so beside the program, which is loaded now. Null where the
// device has no graphs (a CPU), and where the library is missing, which a warning says.
std::unique_ptr<GraphCapture> make_graph_capture(c10::Device device);

// What the program calls of that library: null for another version.
inline constexpr int kGraphCaptureVersion = 1;
inline constexpr char kGraphCaptureSymbol[] = "billm_graph_capture";
inline constexpr char kGraphCaptureLibrary[] = "libbillm_torch_cuda.so";
using NewGraphCapture = GraphCapture*(int version, int device);

}  // namespace billm
