// What an unfinished distillation has stored: the state of its training, beside the journal. Both
// go when the result is there (packed_model_writer.h).
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "billm/base/stopwatch.h"
#include "billm/learn/training_state.h"
#include "journal.h"

namespace billm {

class TrainingJournal {
 public:
  // `settings`: everything that decides the result's bytes.
  TrainingJournal(std::filesystem::path directory, nlohmann::ordered_json settings);

  // Nothing if there is no journal, or not the file that it names. Throws Error{kUsage} if its
  // settings differ, Error{kBadInput} if it is no journal, or if the file is damaged.
  std::optional<TrainingState> read();
  // The path of the state that read() returned.
  std::string where() const { return (directory_ / file_.name).string(); }

  // Whether it is time to store a state: at the first step, then so often that storing takes at
  // most a tenth of the time.
  bool due() const;
  // The state's file, then the journal that names it, then the file before goes.
  void write(const TrainingState& state);

 private:
  const std::filesystem::path directory_;
  const nlohmann::ordered_json settings_;
  WrittenFile file_;  // the last state; without a name: none
  std::optional<Stopwatch> since_;
  double seconds_ = 0;  // of the last write
};

}  // namespace billm
