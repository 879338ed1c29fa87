// Graphs on a device that has none: replaying calls the recorded work again.
#pragma once

#include <functional>
#include <memory>
#include <stdexcept>

#include "billm/model/graph_capture.h"

namespace billm::test {

struct CaptureCounts {
  int captures = 0, replays = 0, live = 0;
  bool fails = false;  // captures do, after they have run the work
};

class FakeGraph : public CapturedGraph {
 public:
  FakeGraph(std::function<void()> work, CaptureCounts& counts)
      : work_(std::move(work)), counts_(counts) {
    ++counts_.live;
  }
  ~FakeGraph() override { --counts_.live; }
  void replay() override {
    ++counts_.replays;
    work_();
  }

 private:
  const std::function<void()> work_;
  CaptureCounts& counts_;
};

class FakeCapture : public GraphCapture {
 public:
  explicit FakeCapture(CaptureCounts& counts) : counts_(counts) {}
  std::unique_ptr<CapturedGraph> capture(const std::function<void()>& work) override {
    work();
    if (counts_.fails) throw std::runtime_error("the stream was broken off");
    ++counts_.captures;
    return std::make_unique<FakeGraph>(work, counts_);
  }

 private:
  CaptureCounts& counts_;
};

inline std::function<std::unique_ptr<GraphCapture>(c10::Device)> fake_capture(
    CaptureCounts& counts) {
  return [&counts](c10::Device) { return std::make_unique<FakeCapture>(counts); };
}

}  // namespace billm::test
