// See include/billm/hub/hub_environment.h.
#include "billm/hub/hub_environment.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <system_error>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/checkpoint/json.h"
#include "http.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// $NAME and ${NAME} in `text`, as Python's os.path.expandvars: unknown ones stay, values are not
// expanded again.
std::string with_variables(const std::string& text) {
  const auto is_word = [](char c) {
    return c == '_' || (static_cast<unsigned char>(c) < 0x80 && std::isalnum(c) != 0);
  };
  std::string result;
  size_t at = 0;
  for (size_t dollar = 0; (dollar = text.find('$', at)) != std::string::npos;) {
    const bool braces = dollar + 1 < text.size() && text[dollar + 1] == '{';
    const auto begin = text.begin() + static_cast<ptrdiff_t>(dollar + (braces ? 2 : 1));
    const auto end =
        braces ? std::find(begin, text.end(), '}') : std::find_if_not(begin, text.end(), is_word);
    const std::string name(begin, end);
    const char* value = braces && end == text.end() ? nullptr : std::getenv(name.c_str());
    if (value != nullptr) {
      result += text.substr(at, dollar - at) + value;
      at = static_cast<size_t>(end - text.begin()) + (braces ? 1 : 0);
    } else {
      result += text.substr(at, dollar + 1 - at);
      at = dollar + 1;
    }
  }
  return result + text.substr(at);
}

fs::path expanded(const std::string& path) {
  const std::string home = variable("HOME");
  if (home.empty() || (path != "~" && !path.starts_with("~/"))) return with_variables(path);
  return with_variables(fs::path(home) / path.substr(std::min<size_t>(2, path.size())));
}

// The home of HuggingFace's tools; empty if nothing says where it is.
fs::path tools_home() {
  if (const std::string home = variable("HF_HOME"); !home.empty()) return expanded(home);
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) {
    return expanded(cache) / "huggingface";
  }
  const std::string home = variable("HOME");
  return home.empty() ? fs::path() : fs::path(home) / ".cache" / "huggingface";
}

fs::path read_cache() {
  std::string cache = variable("HF_HUB_CACHE");
  if (cache.empty()) cache = variable("HUGGINGFACE_HUB_CACHE");
  if (!cache.empty()) return expanded(cache);
  const fs::path home = tools_home();
  if (!home.empty()) return home / "hub";
  throw Error(ErrorCode::kFailure, "no place for the HuggingFace cache: HOME is not set",
              "set HF_HOME to a directory");
}

bool is_true(std::string value) {
  for (char& c : value) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

bool is_visible(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

// A token may have a newline at its end, since it mostly comes from a file.
std::string stripped(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

void read_token(HubEnvironment& environment) {
  environment.token_source = variable("HF_TOKEN").empty() ? "HUGGING_FACE_HUB_TOKEN" : "HF_TOKEN";
  environment.token = stripped(variable(environment.token_source.c_str()));
  if (environment.token.empty()) {
    const std::string named = variable("HF_TOKEN_PATH");
    const fs::path path = named.empty() ? tools_home() / "token" : expanded(named);
    environment.token_source = path.string();
    if (is_file(path)) environment.token = stripped(read_text_file(path));
  }
  constexpr size_t kLongestToken = 4096;
  // A line break in it would add headers of its own to a request.
  if (!is_visible(environment.token) || environment.token.size() > kLongestToken) {
    throw bad_input(environment.token_source + ": expected a token of at most " +
                        std::to_string(kLongestToken) +
                        " visible ASCII characters, got other characters or more",
                    "copy it again from the hub's settings");
  }
}

std::string read_endpoint() {
  std::string endpoint = variable("HF_ENDPOINT");
  if (endpoint.empty()) return "https://huggingface.co";
  while (endpoint.ends_with('/')) endpoint.pop_back();
  const bool web = endpoint.starts_with("https://") || endpoint.starts_with("http://");
  if (!web || !is_visible(endpoint)) {
    throw bad_input("HF_ENDPOINT: expected http://HOST or https://HOST, got " +
                    shown_url(endpoint));
  }
  return endpoint;
}

}  // namespace

HubEnvironment hub_environment() {
  HubEnvironment environment;
  environment.cache = read_cache();
  const std::string offline = variable("HF_HUB_OFFLINE");
  environment.offline = is_true(offline.empty() ? variable("TRANSFORMERS_OFFLINE") : offline);
  environment.endpoint = read_endpoint();
  if (!is_true(variable("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) read_token(environment);
  if (const std::string seconds = variable("HF_HUB_DOWNLOAD_TIMEOUT"); !seconds.empty()) {
    const char* end = seconds.data() + seconds.size();
    const auto [stop, failure] = std::from_chars(seconds.data(), end, environment.timeout_seconds);
    constexpr int kLongest = 3600;
    if (failure != std::errc() || stop != end || environment.timeout_seconds < 1 ||
        environment.timeout_seconds > kLongest) {
      throw bad_input("HF_HUB_DOWNLOAD_TIMEOUT: expected 1 to " + std::to_string(kLongest) +
                      " seconds, got " + printable(seconds));
    }
  }
  return environment;
}

}  // namespace billm
