// See include/billm/base/log.h.
#include "billm/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace billm {

namespace {

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> made = [] {
    auto logger = spdlog::stderr_logger_mt("billm");  // stdout is for results
    logger->set_pattern("billm: %l: %v");
    return logger;
  }();
  return *made;
}

}  // namespace

void log_warning(const std::string& text) { logger().warn("{}", text); }

void log_info(const std::string& text) { logger().info("{}", text); }

}  // namespace billm
