// The user's billm directory: see include/billm/base/home.h.
#include "billm/base/home.h"

#include <cstdlib>

#include "billm/base/error.h"

namespace billm {

std::filesystem::path billm_home() {
  const auto get = [](const char* name) -> const char* {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0' ? value : nullptr;
  };
  if (const char* home = get("BILLM_HOME")) return home;
  if (const char* data = get("XDG_DATA_HOME")) return std::filesystem::path(data) / "billm";
  if (const char* user = get("HOME")) {
    return std::filesystem::path(user) / ".local" / "share" / "billm";
  }
  throw Error(ErrorCode::kFailure, "no home directory: neither BILLM_HOME nor HOME is set",
              "set BILLM_HOME to a directory billm may write to");
}

}  // namespace billm
