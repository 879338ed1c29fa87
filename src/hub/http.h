// HTTP through libcurl, one request at a time and thread: what the hub needs and nothing more. Only
// http and https; redirects are followed here and not by libcurl, so that the token provably goes
// to the endpoint's own origin (scheme, host and port) alone.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "billm/hub/hub_environment.h"

namespace billm {

// What went wrong below HTTP.
enum class Trouble {
  kNone,
  kNoConnection,  // name, connection, TLS
  kCut,           // connected, then silence or the end before the end
  kBadAnswer,     // not HTTP, headers beyond any measure, a redirect that is not followed
};

struct HttpReply {
  long status = 0;                             // of the last answer; 0 with trouble
  std::map<std::string, std::string> headers;  // last answer's; names in lower case
  Trouble trouble = Trouble::kNone;
  std::string trouble_text;
  std::string url;  // of the last answer

  bool ok() const { return trouble == Trouble::kNone && (status == 200 || status == 206); }
  bool is_redirect() const;
  std::string header(const std::string& name) const;  // "" if absent
};

struct HttpRequest {
  std::string url;
  bool head = false;
  // Whether redirects lead to other origins, without the token. A HEAD stops there: the metadata is
  // in the redirect itself.
  bool other_origins = false;
  int64_t offset = 0;  // above 0: "Range: bytes=offset-"
  // Called for a 200 or 206 before its first byte, then with its bytes; what they throw is thrown
  // on.
  std::function<void(const HttpReply&)> begin;
  std::function<void(std::span<const std::byte>)> body;
};

class HttpClient {
 public:
  // Unless `quiet`, waits that a server asks for are told on stderr.
  HttpClient(HubEnvironment environment, bool quiet);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // One attempt. Any thread. Throws what the request's functions throw, and Error{kFailure} if
  // libcurl does not work at all or cancel() was called.
  HttpReply send(const HttpRequest& request);
  // The whole body of a small answer, with retries. Error{kFailure} beyond `limit` bytes.
  HttpReply get(const std::string& url, size_t limit, std::string& body);
  HttpReply head(const std::string& url);  // with retries

  // Makes all requests and waits of other threads end soon, by Error.
  void cancel() { cancelled_ = true; }
  void check_cancelled() const;
  void wait(std::chrono::milliseconds time) const;

  const HubEnvironment& environment() const { return environment_; }
  bool was_reached() const { return reached_; }
  bool quiet() const { return quiet_; }

 private:
  struct Exchange;
  HttpReply send_once(const HttpRequest& request, const std::string& url);
  void* take_handle();
  void give_handle(void* handle);

  HubEnvironment environment_;
  bool quiet_;
  std::string origin_;  // of the endpoint
  std::atomic<bool> cancelled_{false}, reached_{false};
  std::mutex mutex_;
  std::vector<void*> handles_;  // idle CURL*, which keep their connections
};

// When to send a request again: after 408, 429, 500, 502, 503, 504 and cut connections, five
// attempts without progress at the most, after half a second, one, two, four, or what the server
// asks for (Retry-After, RateLimit) up to a minute. Without a connection only if there was one
// before.
class RetryPolicy {
 public:
  explicit RetryPolicy(const HttpClient& client) : client_(client) {}
  // After an attempt: waits and says true, or says false. `progress`: it brought something new.
  bool again(const HttpReply& reply, bool progress);

 private:
  const HttpClient& client_;
  int attempts_ = 0;
};

// The host, and the port if there is one, of a URL; for messages.
std::string host_of(const std::string& url);
// A URL for messages without what may be secret: the query, where signatures are, and what is
// before an '@', which may be a password.
std::string shown_url(const std::string& url);

// Seconds that an answer asks to wait; nothing if it does not.
std::optional<int64_t> asked_to_wait(const HttpReply& reply);

// `text` with everything but unreserved characters percent-encoded; '/' stays if `keep_slash`.
std::string percent_encoded(const std::string& text, bool keep_slash);

}  // namespace billm
