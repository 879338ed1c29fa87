// Libraries of billm's own that lie beside the program and are loaded when they are wanted: what
// most runs do without, or what needs libraries that are not there or take long to load.
#pragma once

#include <string>

namespace billm {

// dlopen() of the file of that name in the directory of the running program: the library, for
// dlsym(); null with the reason in `why`. It stays loaded.
void* load_beside_program(const std::string& name, std::string* why);

}  // namespace billm
