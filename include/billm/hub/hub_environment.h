// What the user's environment says about the HuggingFace hub: where its cache is, which server,
// which token, whether to go online at all. The variables and their order are huggingface_hub's, so
// that both see the same files.
#pragma once

#include <filesystem>
#include <string>

namespace billm {

struct HubEnvironment {
  // $HF_HUB_CACHE, else $HUGGINGFACE_HUB_CACHE, else hub/ below the home of HuggingFace's tools:
  // $HF_HOME, else $XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface. For models and data
  // sets.
  std::filesystem::path cache;
  // $HF_ENDPOINT without a slash at its end, else https://huggingface.co.
  std::string endpoint;
  // $HF_TOKEN, else $HUGGING_FACE_HUB_TOKEN, else the content of $HF_TOKEN_PATH or of `token` in
  // the home. Empty: none, or $HF_HUB_DISABLE_IMPLICIT_TOKEN is set. Visible ASCII only.
  std::string token;
  std::string token_source;  // the variable or the file's path, for messages
  // $HF_HUB_OFFLINE or else $TRANSFORMERS_OFFLINE is 1, ON, YES or TRUE (in any case).
  bool offline = false;
  // $HF_HUB_DOWNLOAD_TIMEOUT, else 10: seconds without a byte after which a transfer counts as cut.
  int timeout_seconds = 10;
};

// Reads the variables; an empty one counts as unset. In paths "~/" at the start is the user's home,
// and $NAME and ${NAME} are other variables. Throws Error{kFailure} without HOME where it is
// needed, Error{kBadInput} for a value that cannot be used.
HubEnvironment hub_environment();

}  // namespace billm
