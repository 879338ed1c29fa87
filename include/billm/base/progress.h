// Progress of long work: lines on stderr with done/total and ETA; silent under --quiet.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace billm {

class Progress {
 public:
  // `what` is the label ("quantize"), `total` the number of steps. Prints nothing if quiet.
  Progress(std::string what, int64_t total, bool quiet);
  // One step is done; `detail` is appended to the line. `skipped` steps count as done before start
  // (resume), so that the ETA comes from steps really made.
  void step(const std::string& detail = "");
  void skip(int64_t steps);

 private:
  std::string what_;
  int64_t total_, done_ = 0, skipped_ = 0;
  bool quiet_, terminal_;
  std::chrono::steady_clock::time_point start_;
};

// Progress of bytes that several threads load: share, rate and time left, on one line rewritten in
// place, or in a log a line every ten seconds and one at the end.
class ByteProgress {
 public:
  // `done` bytes were there before; they do not count for the rate. Prints nothing if quiet.
  ByteProgress(std::string what, int64_t total, int64_t done, bool quiet);
  void add(int64_t bytes);  // any thread; negative: bytes that were thrown away
  void finish();            // the last line

 private:
  void print(double seconds, bool last);
  std::mutex mutex_;
  std::string what_;
  int64_t total_, done_, before_;
  bool quiet_, terminal_;
  std::chrono::steady_clock::time_point start_, printed_;
};

// "12.3 GB", "4.5 MB", "678 bytes": powers of 1000.
std::string bytes_text(int64_t bytes);

// Peak resident memory of this process in bytes (VmHWM; 0 where /proc is absent).
int64_t peak_rss_bytes();

}  // namespace billm
