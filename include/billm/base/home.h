// Where billm keeps what it makes for the user (the demo model, caches).
#pragma once

#include <filesystem>

namespace billm {

// $BILLM_HOME, else $XDG_DATA_HOME/billm, else ~/.local/share/billm. An empty variable counts as
// unset. Creates nothing. Throws Error{kFailure} if none of them and no HOME is set.
std::filesystem::path billm_home();

}  // namespace billm
