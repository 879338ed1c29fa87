// Finds the library of src/torch_cuda/: see include/billm/model/graph_capture.h.
#include "billm/model/graph_capture.h"

#include <dlfcn.h>

#include <exception>
#include <filesystem>
#include <string>
#include <system_error>

#include "billm/base/log.h"

namespace billm {

std::unique_ptr<GraphCapture> make_graph_capture(c10::Device device) {
  if (!device.is_cuda()) return nullptr;
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path path = program.parent_path() / kGraphCaptureLibrary;
  std::string why;
  if (void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); library == nullptr) {
    const char* reason = dlerror();
    why = reason != nullptr ? reason : path.string() + ": cannot be loaded";
  } else {
    const auto make = reinterpret_cast<NewGraphCapture*>(dlsym(library, kGraphCaptureSymbol));
    try {
      GraphCapture* const capture =
          make != nullptr ? make(kGraphCaptureVersion, device.index()) : nullptr;
      if (capture != nullptr) return std::unique_ptr<GraphCapture>(capture);
      why = path.string() + ": is not of this version of billm";
    } catch (const std::exception& error) {
      why = error.what();
    }
  }
  log_warning("no CUDA graphs, tokens are decoded more slowly: " + why);
  return nullptr;
}

}  // namespace billm
