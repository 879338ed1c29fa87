// Several billm processes that quantize one model together, started by torchrun or by hand with its
// variables. Messages go through LibTorch's c10d::TCPStore, which the first process (or torchrun's
// agent) serves (docs/decisions/0011-processes.md says why not Gloo).
//
// All processes must make the same calls in the same order, except send and receive, which pair up.
// Every method but those of one process alone throws Error{kFailure} if another process fails, is
// not heard of for a minute, or the connection breaks.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace billm {

class ProcessGroup {
 public:
  // WORLD_SIZE, RANK, MASTER_ADDR, MASTER_PORT; with WORLD_SIZE absent or 1 this process is alone.
  // Waits until all have come (five minutes at most). Throws Error{kUsage} if they contradict each
  // other, Error{kFailure} if the others cannot be reached.
  static std::unique_ptr<ProcessGroup> from_environment(bool quiet);
  // Waits for the others if they still need this process, unless fail() was called.
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool alone() const { return size_ == 1; }
  bool first() const { return rank_ == 0; }

  // `bytes` has the same size on both sides.
  void send(int to, std::span<const std::byte> bytes);
  void receive(int from, std::span<std::byte> bytes);
  // The bytes of process `from`, in all.
  void broadcast(int from, std::span<std::byte> bytes);
  // The text of process `from`, of any length.
  std::string broadcast_text(int from, const std::string& text);
  void barrier();

  // Tells the others to stop, with a line for their error message.
  void fail(const std::string& message) noexcept;

 private:
  class Store;
  ProcessGroup(int rank, int size, std::unique_ptr<Store> store);

  const int rank_, size_;
  std::unique_ptr<Store> store_;  // null: alone
};

// The processes on this machine, which share its processors and devices: LOCAL_WORLD_SIZE, else 1,
// and the number of this one among them: LOCAL_RANK, else 0.
int local_processes();
int local_rank();

}  // namespace billm
