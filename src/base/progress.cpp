// Progress lines: a terminal gets one line rewritten in place, a log gets a line every few seconds.
#include "billm/base/progress.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <utility>

namespace billm {
namespace {

std::string clock_text(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  char text[32];
  if (whole >= 3600) {
    std::snprintf(text, sizeof(text), "%ld:%02ld:%02ld", static_cast<long>(whole / 3600),
                  static_cast<long>(whole / 60 % 60), static_cast<long>(whole % 60));
  } else {
    std::snprintf(text, sizeof(text), "%ld:%02ld", static_cast<long>(whole / 60),
                  static_cast<long>(whole % 60));
  }
  return text;
}

}  // namespace

Progress::Progress(std::string what, int64_t total, bool quiet)
    : what_(std::move(what)),
      total_(total),
      quiet_(quiet),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()) {}

void Progress::skip(int64_t steps) {
  done_ += steps;
  skipped_ += steps;
}

void Progress::step(const std::string& detail) {
  ++done_;
  if (quiet_) return;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double left =
      seconds / static_cast<double>(done_ - skipped_) * static_cast<double>(total_ - done_);
  std::fprintf(stderr, "%s%s %ld/%ld  %s elapsed, %s left  %s%s", terminal_ ? "\r\x1b[K" : "",
               what_.c_str(), static_cast<long>(done_), static_cast<long>(total_),
               clock_text(seconds).c_str(), clock_text(left).c_str(), detail.c_str(),
               terminal_ && done_ < total_ ? "" : "\n");
  std::fflush(stderr);
}

int64_t peak_rss_bytes() {
  // Not getrusage: its maximum survives exec and may be that of the program that started us.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

}  // namespace billm
