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

ByteProgress::ByteProgress(std::string what, int64_t total, int64_t done, bool quiet)
    : what_(std::move(what)),
      total_(total),
      done_(done),
      before_(done),
      quiet_(quiet),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      printed_(start_) {}

void ByteProgress::add(int64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  done_ += bytes;
  const auto now = std::chrono::steady_clock::now();
  if (quiet_ || now - printed_ < (terminal_ ? std::chrono::milliseconds(200)
                                            : std::chrono::milliseconds(10'000))) {
    return;
  }
  printed_ = now;
  print(std::chrono::duration<double>(now - start_).count(), false);
}

void ByteProgress::finish() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start_;
  if (!quiet_) print(passed.count(), true);
}

void ByteProgress::print(double seconds, bool last) {
  const auto loaded = static_cast<double>(done_ - before_);
  const double rate = seconds > 0 && loaded > 0 ? loaded / seconds : 0;
  const double share =
      total_ > 0 ? 100.0 * static_cast<double>(done_) / static_cast<double>(total_) : 100.0;
  std::string time = clock_text(seconds) + " elapsed";
  if (!last && rate > 0) time = clock_text(static_cast<double>(total_ - done_) / rate) + " left";
  std::fprintf(stderr, "%s%s %s of %s (%.0f %%)  %s/s  %s%s", terminal_ ? "\r\x1b[K" : "",
               what_.c_str(), bytes_text(done_).c_str(), bytes_text(total_).c_str(), share,
               bytes_text(static_cast<int64_t>(rate)).c_str(), time.c_str(),
               terminal_ && !last ? "" : "\n");
  std::fflush(stderr);
}

std::string bytes_text(int64_t bytes) {
  char text[32];
  const auto value = static_cast<double>(bytes);
  if (bytes >= 1'000'000'000) {
    std::snprintf(text, sizeof(text), "%.1f GB", value / 1e9);
  } else if (bytes >= 1'000'000) {
    std::snprintf(text, sizeof(text), "%.1f MB", value / 1e6);
  } else if (bytes >= 10'000) {
    std::snprintf(text, sizeof(text), "%.0f kB", value / 1e3);
  } else {
    std::snprintf(text, sizeof(text), "%ld bytes", static_cast<long>(bytes));
  }
  return text;
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
