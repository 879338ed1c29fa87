// See training_journal.h.
#include "training_journal.h"

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/base/sha256.h"

namespace billm {

TrainingJournal::TrainingJournal(std::filesystem::path directory, nlohmann::ordered_json settings)
    : directory_(std::move(directory)), settings_(std::move(settings)) {}

std::optional<TrainingState> TrainingJournal::read() {
  const std::filesystem::path path = directory_ / kJournalName;
  if (!std::filesystem::exists(path)) return {};
  WrittenFile file;
  try {
    const auto json = parse_ordered_json(read_text_file(path));
    check_settings(json.at("settings"), settings_);
    file = file_from(json.at("training"));
  } catch (const nlohmann::json::exception& error) {
    throw bad_input(path.string() + ": not a journal of billm distill: " + error.what(),
                    "start again with --overwrite");
  }
  const std::filesystem::path state = directory_ / file.name;
  if (!std::filesystem::exists(state)) return {};
  if (sha256_file(state) != file.sha256) {
    throw bad_input(state.string() + ": changed since it was written",
                    "start again with --overwrite");
  }
  file_ = file;
  return read_training_state(state);
}

bool TrainingJournal::due() const { return !since_ || since_->seconds() > 10 * seconds_; }

void TrainingJournal::write(const TrainingState& state) {
  const Stopwatch clock;
  WrittenFile file;
  file.name = "training-" + std::to_string(state.step) + ".safetensors";
  file.sha256 = write_training_state(directory_ / file.name, state);
  file.bytes = static_cast<int64_t>(std::filesystem::file_size(directory_ / file.name));
  const nlohmann::ordered_json json = {{"settings", settings_}, {"training", file_json(file)}};
  write_file_atomic(directory_ / kJournalName, dump_json(json, 1) + "\n");
  if (!file_.name.empty() && file_.name != file.name) {
    std::filesystem::remove(directory_ / file_.name);
  }
  file_ = file;
  seconds_ = clock.seconds();
  since_.emplace();
}

}  // namespace billm
