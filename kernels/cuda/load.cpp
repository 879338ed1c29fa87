// See load.h.
#include "kernels/cuda/load.h"

#include <dlfcn.h>

#include "billm/base/shared_library.h"

namespace billm::kernels::cuda {

const CudaApi* load_cuda_kernels(std::string* why) {
  void* const library = load_beside_program(kCudaLibrary, why);
  if (library == nullptr) return nullptr;
  const auto get = reinterpret_cast<CudaApi::Get*>(dlsym(library, kCudaApiSymbol));
  const CudaApi* const api = get != nullptr ? get(kCudaApiVersion) : nullptr;
  if (api == nullptr) *why = std::string(kCudaLibrary) + ": is not of this version of billm";
  return api;
}

}  // namespace billm::kernels::cuda
