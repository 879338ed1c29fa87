// See load.h.
#include "kernels/cuda/load.h"

#include <dlfcn.h>

#include <filesystem>
#include <system_error>

namespace billm::kernels::cuda {

const CudaApi* load_cuda_kernels(std::string* why) {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path path = program.parent_path() / kCudaLibrary;
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    *why = reason != nullptr ? reason : path.string() + ": cannot be loaded";
    return nullptr;
  }
  const auto get = reinterpret_cast<CudaApi::Get*>(dlsym(library, kCudaApiSymbol));
  const CudaApi* const api = get != nullptr ? get(kCudaApiVersion) : nullptr;
  if (api == nullptr) *why = path.string() + ": is not of this version of billm";
  return api;
}

}  // namespace billm::kernels::cuda
