// Finds the library of src/torch_cuda/: see include/billm/model/graph_capture.h.
#include "billm/model/graph_capture.h"

#include <dlfcn.h>

#include <exception>
#include <string>

#include "billm/base/log.h"
#include "billm/base/shared_library.h"

namespace billm {

std::unique_ptr<GraphCapture> make_graph_capture(c10::Device device) {
  if (!device.is_cuda()) return nullptr;
  std::string why;
  if (void* const library = load_beside_program(kGraphCaptureLibrary, &why)) {
    const auto make = reinterpret_cast<NewGraphCapture*>(dlsym(library, kGraphCaptureSymbol));
    try {
      GraphCapture* const capture =
          make != nullptr ? make(kGraphCaptureVersion, device.index()) : nullptr;
      if (capture != nullptr) return std::unique_ptr<GraphCapture>(capture);
      why = std::string(kGraphCaptureLibrary) + ": is not of this version of billm";
    } catch (const std::exception& error) {
      why = error.what();
    }
  }
  log_warning("no CUDA graphs, tokens are decoded more slowly: " + why);
  return nullptr;
}

}  // namespace billm
