// See include/billm/base/log.h.
#include "billm/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace billm {

void log_warning(const std::string& text) {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto made = spdlog::stderr_logger_mt("billm");  // stdout is for results
    made->set_pattern("billm: %l: %v");
    return made;
  }();
  logger->warn("{}", text);
}

}  // namespace billm
