# shellcheck shell=bash
# What the machine must have, and its Debian packages. tools/setup.sh sources this; it is not run.

: "${billm_root:?is set by tools/setup.sh}"
readonly build_gb=2

# --- the machine -------------------------------------------------------------------------------

# Prints the newest usable python3 (3.11 or newer); fails when there is none.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

check_compiler() {
  local cxx="${CXX:-c++}"
  command -v "$cxx" >/dev/null ||
    die "no C++ compiler ($cxx)" "install one: apt-get install g++, or set CXX"
  printf '#include <span>\nint main() { std::span<int> s; return (int)s.size(); }\n' |
    "$cxx" -std=c++20 -x c++ -fsyntax-only - 2>/dev/null ||
    die "the C++ compiler $cxx does not compile C++20" "install g++ 12 or newer, or set CXX"
}

check_machine() {
  say "machine: Linux, C++20 compiler, Python 3.11 or newer, disk"
  [[ "$(uname -s)" == Linux ]] || die "billm builds on Linux, this is $(uname -s)"
  [[ "$(uname -m)" == x86_64 || "$(uname -m)" == aarch64 ]] ||
    die "there is no LibTorch for $(uname -m)" "use x86_64 or aarch64"
  [[ -e /etc/debian_version ]] ||
    note "this is not Debian: missing packages will be named, but you must install them"
  check_compiler
  find_python >/dev/null ||
    die "no Python 3.11 or newer" "install one: apt-get install python3 (Debian 12 has 3.11)"
  need_space "$billm_root/build" "$build_gb" "the build" "move the checkout"
}

# --- Debian packages ---------------------------------------------------------------------------

is_installed() {
  [[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" == ii* ]]
}

# Prints the packages that are missing. A command from elsewhere serves as well as its package.
missing_packages() {
  local package
  for package in libcli11-dev libspdlog-dev nlohmann-json3-dev libgtest-dev libpcre2-dev \
    libhwy-dev libeigen3-dev libicu-dev libprotozero-dev libssl-dev libxxhash-dev \
    libcurl4-openssl-dev zlib1g-dev ca-certificates; do
    is_installed "$package" || printf '%s\n' "$package"
  done
  if ! command -v cmake >/dev/null ||
    ! printf '3.25\n%s\n' "$(cmake --version | awk 'NR == 1 { print $3 }')" | sort -CV; then
    printf 'cmake\n'
  fi
  command -v ninja >/dev/null || printf 'ninja-build\n'
  command -v ccache >/dev/null || printf 'ccache\n'
  command -v pkg-config >/dev/null || printf 'pkg-config\n'
  "$(find_python)" -c 'import ensurepip, venv' 2>/dev/null || printf 'python3-venv\n'
}

# What the preset asan needs: clang++ with libFuzzer and the sanitizers' runtime.
missing_clang_packages() {
  if ! command -v clang++ >/dev/null; then
    printf 'clang\nlibclang-rt-dev\n'
  elif [[ ! -e "$(clang++ -print-runtime-dir)/libclang_rt.fuzzer-$(uname -m).a" &&
    ! -e "$(clang++ -print-runtime-dir)/libclang_rt.fuzzer.a" ]]; then
    printf 'libclang-rt-dev\n'
  fi
}

# What the checks of the tree's style need: the clang-format that it is formatted by, and shellcheck.
missing_style_packages() {
  command -v clang-format-14 >/dev/null || is_installed clang-format || printf 'clang-format\n'
  command -v shellcheck >/dev/null || printf 'shellcheck\n'
}

# install_packages FUNCTION: installs what FUNCTION prints.
install_packages() {
  local missing=() as_root=()
  if command -v dpkg-query >/dev/null; then
    mapfile -t missing < <("$1")
  elif ! command -v cmake >/dev/null || ! command -v ninja >/dev/null; then
    die "this is not Debian, and cmake or ninja is missing" \
      "install cmake 3.25+, ninja and the -dev packages of tools/setup_packages.sh"
  fi
  if ((${#missing[@]} == 0)); then
    say "packages: all there"
    return
  fi
  say "packages: installing ${missing[*]}"
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      die "packages are missing and you are not root" "as root: apt-get install ${missing[*]}"
    fi
    as_root=(sudo)
    if [[ ! -t 0 ]]; then as_root=(sudo -n); fi
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive)
  apt+=(apt-get -o Acquire::Retries=3 -q -y)
  run_logged apt-update "${apt[@]}" update ||
    note "apt-get update failed; trying with the package lists that are there"
  run_logged apt-install "${apt[@]}" install --no-install-recommends "${missing[@]}" ||
    die "apt-get could not install the packages (no network? no right?)" \
      "as root: apt-get install ${missing[*]}"
}
