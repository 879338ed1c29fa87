// See include/billm/base/shared_library.h.
#include "billm/base/shared_library.h"

#include <dlfcn.h>

#include <filesystem>
#include <system_error>

namespace billm {

void* load_beside_program(const std::string& name, std::string* why) {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path path = program.parent_path() / name;
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    *why = reason != nullptr ? reason : path.string() + ": cannot be loaded";
  }
  return library;
}

}  // namespace billm
