// Messages through c10d::TCPStore: see include/billm/pipeline/process_group.h.
//
// Keys, below "billm/<restart>/":
//   m/<from>/<to>/<n>   chunk n of what `from` sends to `to`;   r/...  the receiver has it
//   b/<n>               chunk n of a broadcast;  c/<n> how many have it;  d/<n> all have it
//   g/<n>, o/<n>        barrier n: how many have come; it is open
//   alive/<rank>        a counter that rises every second
//   failed              the message of the process that failed first
#include "billm/pipeline/process_group.h"

#include <c10/util/Exception.h>
#include <c10/util/Flags.h>
#include <c10/util/intrusive_ptr.h>
#include <netdb.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/log.h"

C10_DECLARE_int(caffe2_log_level);

namespace billm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kChunkBytes = size_t{4} << 20;  // far below what the store takes in one value
constexpr int64_t kWindow = 8;  // chunks under way; they lie in the server's memory
constexpr seconds kBeat{2};
constexpr seconds kSilence{30};
constexpr seconds kRendezvous{300};

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

int number(const char* name, int least, int most) {
  const char* text = variable(name);
  int value = 0;
  const char* end = text == nullptr ? nullptr : text + std::strlen(text);
  if (text == nullptr || std::from_chars(text, end, value).ptr != end || value < least ||
      value > most) {
    throw Error(ErrorCode::kUsage,
                std::string(name) + ": expected a number from " + std::to_string(least) + " to " +
                    std::to_string(most) + " with WORLD_SIZE above 1, got " +
                    (text == nullptr ? "nothing" : text),
                "start the processes with torchrun --no-python, or unset WORLD_SIZE");
  }
  return value;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// LibTorch would try a name that means nothing for minutes.
void check_host(const char* host) {
  addrinfo* found = nullptr;
  if (const int failure = ::getaddrinfo(host, nullptr, nullptr, &found); failure != 0) {
    throw Error(ErrorCode::kFailure,
                "MASTER_ADDR: " + std::string(host) + ": " + ::gai_strerror(failure),
                "give the first process's host or address");
  }
  ::freeaddrinfo(found);
}

std::vector<uint8_t> bytes_of(std::span<const std::byte> bytes) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  return {data, data + bytes.size()};
}

}  // namespace

int local_processes() {
  return variable("LOCAL_WORLD_SIZE") == nullptr ? 1 : number("LOCAL_WORLD_SIZE", 1, 1 << 16);
}

int local_rank() {
  return variable("LOCAL_RANK") == nullptr ? 0 : number("LOCAL_RANK", 0, 1 << 16);
}

class ProcessGroup::Store {
 public:
  Store(int rank, int size, bool quiet)
      : rank_(rank), size_(size), alive_(static_cast<size_t>(size)) {
    const char* host = variable("MASTER_ADDR");
    if (host == nullptr) {
      throw Error(ErrorCode::kUsage, "MASTER_ADDR: expected the first process's host, got nothing",
                  "start the processes with torchrun --no-python, or unset WORLD_SIZE");
    }
    // LibTorch would log stack traces of what we report in one line: its fatal errors alone.
    constexpr int kFatal = 3;
    FLAGS_caffe2_log_level = kFatal;
    const auto port = static_cast<uint16_t>(number("MASTER_PORT", 1, 65535));
    where_ = std::string(host) + ":" + std::to_string(port);
    check_host(host);
    if (!quiet) {
      log_info("process " + std::to_string(rank) + " of " + std::to_string(size) +
               ", meeting the others at " + where_);
    }
    const char* agent = variable("TORCHELASTIC_USE_AGENT_STORE");
    const bool serves = rank == 0 && (agent == nullptr || std::string(agent) != "True");
    store_ = connect(host, port, serves);
    beat_store_ = connect(host, port, false);
    beat_ = std::thread([this] { beat(); });
  }

  ~Store() {
    try {
      // Only the process that serves must outlive the others' last call.
      if (!failed_) {
        const int64_t came = store_->add("left", 1);
        if (came == size_) store_->set("all-left", std::vector<uint8_t>{1});
        if (rank_ == 0) wait("all-left");
      }
    } catch (const std::exception&) {
      // The result is complete; what is left of the others will see the broken connection.
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    stopped_.notify_all();
    beat_.join();
  }

  void send(int to, std::span<const std::byte> bytes) {
    const std::string pair = std::to_string(rank_) + "/" + std::to_string(to) + "/";
    int64_t& n = sent_[to];
    for_chunks(bytes.size(), [&](size_t first, size_t count) {
      if (n >= kWindow) take("r/" + pair + std::to_string(n - kWindow));
      set("m/" + pair + std::to_string(n), bytes.subspan(first, count));
      ++n;
    });
  }

  void receive(int from, std::span<std::byte> bytes) {
    const std::string pair = std::to_string(from) + "/" + std::to_string(rank_) + "/";
    int64_t& n = received_[from];
    for_chunks(bytes.size(), [&](size_t first, size_t count) {
      const std::string key = "m/" + pair + std::to_string(n);
      copy(get(key), bytes.subspan(first, count));
      guarded(where_, [&] { store_->deleteKey(key); });
      set("r/" + pair + std::to_string(n), {});
      ++n;
    });
  }

  void broadcast(int from, std::span<std::byte> bytes) {
    for_chunks(bytes.size(), [&](size_t first, size_t count) {
      const std::string n = std::to_string(broadcasts_);
      if (rank_ == from) {
        if (broadcasts_ >= kWindow) wait("d/" + std::to_string(broadcasts_ - kWindow));
        set("b/" + n, bytes.subspan(first, count));
      } else {
        copy(get("b/" + n), bytes.subspan(first, count));
        if (guarded(where_, [&] { return store_->add("c/" + n, 1); }) == size_ - 1) {
          guarded(where_, [&] {
            store_->deleteKey("b/" + n);
            store_->deleteKey("c/" + n);
          });
          set("d/" + n, {});
        }
      }
      ++broadcasts_;
    });
  }

  void barrier(seconds patience = kSilence) {
    const std::string n = std::to_string(barriers_++);
    if (guarded(where_, [&] { return store_->add("g/" + n, 1); }) == size_) set("o/" + n, {});
    wait("o/" + n, patience);
  }

  void fail(const std::string& message) noexcept {
    if (failed_.exchange(true)) return;  // the others know, or cannot be reached
    try {
      store_->compareSet("failed", {}, bytes_of(std::as_bytes(std::span(message))));
      // As the server, live until the others have read it.
      if (rank_ == 0) std::this_thread::sleep_for(2 * kBeat);
    } catch (const std::exception&) {
      // They notice that this process is gone.
    }
  }

 private:
  c10::intrusive_ptr<c10d::Store> connect(const std::string& host, uint16_t port, bool serves) {
    return guarded(where_ + ": cannot reach the first process", [&] {
      c10d::TCPStoreOptions options;
      options.port = port;
      options.isServer = serves;
      options.waitWorkers = false;
      options.timeout = std::chrono::duration_cast<milliseconds>(kRendezvous);
      const char* restart = variable("TORCHELASTIC_RESTART_COUNT");
      c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(host, options);
      return c10::intrusive_ptr<c10d::Store>(c10::make_intrusive<c10d::PrefixStore>(
          std::string("billm/") + (restart == nullptr ? "0" : restart), store));
    });
  }

  // What LibTorch throws, as our one line.
  template <typename Body>
  auto guarded(const std::string& what, Body body) -> decltype(body()) {
    try {
      return body();
    } catch (const c10::Error& error) {
      give_up(what + ": " + first_line(error.what_without_backtrace()),
              "look at the messages of the other processes");
    }
  }

  [[noreturn]] void give_up(const std::string& message, const std::string& hint) {
    failed_ = true;
    throw Error(ErrorCode::kFailure, message, hint);
  }

  void for_chunks(size_t size, const std::function<void(size_t, size_t)>& body) {
    for (size_t first = 0; first < size; first += kChunkBytes) {
      body(first, std::min(kChunkBytes, size - first));
    }
  }

  void copy(const std::vector<uint8_t>& from, std::span<std::byte> to) {
    if (from.size() != to.size()) {
      give_up(where_ + ": expected a message of " + std::to_string(to.size()) + " bytes, got " +
                  std::to_string(from.size()),
              "start all processes with the same arguments and the same billm");
    }
    std::memcpy(to.data(), from.data(), to.size());
  }

  void set(const std::string& key, std::span<const std::byte> bytes) {
    // An empty value cannot be told from none.
    const std::vector<uint8_t> value = bytes.empty() ? std::vector<uint8_t>{1} : bytes_of(bytes);
    guarded(where_, [&] { store_->set(key, value); });
  }

  std::vector<uint8_t> get(const std::string& key) {
    wait(key);
    return guarded(where_, [&] { return store_->get(key); });
  }

  void take(const std::string& key) {
    wait(key);
    guarded(where_, [&] { store_->deleteKey(key); });
  }

  // Waits for the key as long as the others live.
  void wait(const std::string& key, seconds patience = kSilence) {
    auto heard = std::chrono::steady_clock::now();
    while (true) {
      try {
        store_->wait({key}, std::chrono::duration_cast<milliseconds>(kBeat));
        return;
      } catch (const c10::DistStoreError&) {
        // Not there yet; a broken connection shows in the next call.
      } catch (const c10::Error& error) {
        give_up(where_ + ": connection lost: " + first_line(error.what_without_backtrace()),
                "look at the messages of the other processes");
      }
      check_others(patience, &heard);
    }
  }

  // `heard`: when all were last known to live.
  void check_others(seconds patience, std::chrono::steady_clock::time_point* heard) {
    std::string failure;
    const bool risen = guarded(where_ + ": connection lost", [&] {
      if (store_->check({"failed"})) {
        const std::vector<uint8_t> text = store_->get("failed");
        failure.assign(text.begin(), text.end());
      }
      bool all = true;
      for (int rank = 0; rank < size_; ++rank) {
        const int64_t now = store_->add("alive/" + std::to_string(rank), 0);
        all = all && now != alive_[static_cast<size_t>(rank)];
        alive_[static_cast<size_t>(rank)] = now;
      }
      return all;
    });
    if (!failure.empty()) {
      give_up("another process failed: " + first_line(failure), "its own message says more");
    }
    const auto now = std::chrono::steady_clock::now();
    if (risen) *heard = now;
    if (now - *heard > patience) {
      give_up(where_ + ": a process has not been heard of for " + std::to_string(patience.count()) +
                  " s",
              "start all of them; --resume goes on with an interrupted run");
    }
  }

  void beat() {
    const std::string key = "alive/" + std::to_string(rank_);
    std::unique_lock<std::mutex> lock(mutex_);
    while (!stopped_.wait_for(lock, kBeat / 2, [&] { return stop_; })) {
      try {
        beat_store_->add(key, 1);
      } catch (const std::exception&) {
        return;  // the main thread's next call says that the connection is gone
      }
    }
  }

  const int rank_, size_;
  std::string where_;                                   // host:port
  c10::intrusive_ptr<c10d::Store> store_, beat_store_;  // a blocking wait holds its connection
  std::map<int, int64_t> sent_, received_;              // chunks, by the other process
  int64_t broadcasts_ = 0, barriers_ = 0;
  std::vector<int64_t> alive_;  // the counters as last seen
  std::atomic<bool> failed_ = false;
  std::thread beat_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
};

ProcessGroup::ProcessGroup(int rank, int size, std::unique_ptr<Store> store)
    : rank_(rank), size_(size), store_(std::move(store)) {}

ProcessGroup::~ProcessGroup() = default;

std::unique_ptr<ProcessGroup> ProcessGroup::from_environment(bool quiet) {
  constexpr int kMostProcesses = 4096;
  int rank = 0, size = 1;
  std::unique_ptr<Store> store;
  if (variable("WORLD_SIZE") != nullptr) size = number("WORLD_SIZE", 1, kMostProcesses);
  if (size > 1) {
    rank = number("RANK", 0, size - 1);
    store = std::make_unique<Store>(rank, size, quiet);
    store->barrier(kRendezvous);
  }
  return std::unique_ptr<ProcessGroup>(new ProcessGroup(rank, size, std::move(store)));
}

void ProcessGroup::send(int to, std::span<const std::byte> bytes) { store_->send(to, bytes); }

void ProcessGroup::receive(int from, std::span<std::byte> bytes) { store_->receive(from, bytes); }

void ProcessGroup::broadcast(int from, std::span<std::byte> bytes) {
  if (!alone()) store_->broadcast(from, bytes);
}

std::string ProcessGroup::broadcast_text(int from, const std::string& text) {
  if (alone()) return text;
  uint64_t length = text.size();
  store_->broadcast(from, std::as_writable_bytes(std::span(&length, 1)));
  std::string result = rank_ == from ? text : std::string(length, '\0');
  store_->broadcast(from, std::as_writable_bytes(std::span(result)));
  return result;
}

void ProcessGroup::barrier() {
  if (!alone()) store_->barrier();
}

void ProcessGroup::fail(const std::string& message) noexcept {
  if (!alone()) store_->fail(message);
}

}  // namespace billm
