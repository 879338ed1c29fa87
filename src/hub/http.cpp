// See http.h.
#include "http.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <ctime>
#include <exception>
#include <thread>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/log.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

constexpr size_t kMostHeaderBytes = 64 << 10;
constexpr int kMostRedirects = 10;

Error cancelled() { return Error(ErrorCode::kFailure, "download stopped"); }

// "https://host:443" of a URL; empty if it is not an http or https URL. No user names in it.
std::string origin_of(const std::string& url) {
  CURLU* parsed = curl_url();
  std::string origin;
  const auto part = [&](CURLUPart which, unsigned flags) {
    char* text = nullptr;
    std::string result;
    if (curl_url_get(parsed, which, &text, flags) == CURLUE_OK && text != nullptr) result = text;
    curl_free(text);
    return result;
  };
  if (parsed != nullptr && curl_url_set(parsed, CURLUPART_URL, url.c_str(), 0) == CURLUE_OK) {
    const std::string scheme = part(CURLUPART_SCHEME, 0);
    std::string host = part(CURLUPART_HOST, 0);
    for (char& c : host) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if ((scheme == "http" || scheme == "https") && part(CURLUPART_USER, 0).empty()) {
      origin = scheme + "://" + host + ":" + part(CURLUPART_PORT, CURLU_DEFAULT_PORT);
    }
  }
  curl_url_cleanup(parsed);
  return origin;
}

Trouble trouble_of(CURLcode code) {
  switch (code) {
    case CURLE_OK:
      return Trouble::kNone;
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return Trouble::kCut;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PROXY:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
      return Trouble::kNoConnection;
    default:
      return Trouble::kBadAnswer;
  }
}

void set_up_curl() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) throw Error(ErrorCode::kFailure, "libcurl does not start");
}

}  // namespace

bool HttpReply::is_redirect() const {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

std::string HttpReply::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

// What libcurl's callbacks of one request see.
struct HttpClient::Exchange {
  const HttpClient& client;
  const HttpRequest& request;
  CURL* handle;
  HttpReply reply;
  size_t header_bytes = 0;
  bool begun = false, headers_ended = false;
  std::string problem;
  std::exception_ptr thrown;

  void begin() {
    if (begun) return;
    begun = true;
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &reply.status);
    if (reply.ok() && request.begin) request.begin(reply);
  }

  static size_t on_header(char* data, size_t, size_t size, void* self) {
    auto& exchange = *static_cast<Exchange*>(self);
    exchange.header_bytes += size;
    if (exchange.header_bytes > kMostHeaderBytes) {
      exchange.problem = "headers of more than 64 KiB";
      return 0;
    }
    const std::string_view line(data, size);
    if (line.starts_with("HTTP/")) exchange.reply.headers.clear();
    exchange.headers_ended = line == "\r\n" || line == "\n";
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return size;
    std::string name(line.substr(0, colon));
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    std::string_view value = line.substr(colon + 1);
    while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) {
      value.remove_prefix(1);
    }
    while (!value.empty() && static_cast<unsigned char>(value.back()) <= ' ') {
      value.remove_suffix(1);
    }
    exchange.reply.headers[std::move(name)] = value;
    return size;
  }

  static size_t on_body(char* data, size_t, size_t size, void* self) {
    auto& exchange = *static_cast<Exchange*>(self);
    try {
      exchange.begin();
      if (exchange.reply.ok() && exchange.request.body) {
        exchange.request.body(std::as_bytes(std::span(data, size)));
      }
      return size;
    } catch (...) {  // libcurl is C: carried around it
      exchange.thrown = std::current_exception();
      return size == 0 ? 1 : 0;
    }
  }

  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return static_cast<Exchange*>(self)->client.cancelled_ ? 1 : 0;
  }
};

HttpClient::HttpClient(HubEnvironment environment, bool quiet)
    : environment_(std::move(environment)), quiet_(quiet) {
  set_up_curl();
  origin_ = origin_of(environment_.endpoint);
  if (origin_.empty()) {
    throw bad_input("HF_ENDPOINT: expected http://HOST or https://HOST, got " +
                    shown_url(environment_.endpoint));
  }
}

HttpClient::~HttpClient() {
  for (void* handle : handles_) curl_easy_cleanup(handle);
}

void* HttpClient::take_handle() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!handles_.empty()) {
    void* handle = handles_.back();
    handles_.pop_back();
    return handle;
  }
  CURL* handle = curl_easy_init();
  if (handle == nullptr) throw Error(ErrorCode::kFailure, "libcurl does not start");
  return handle;
}

void HttpClient::give_handle(void* handle) {
  curl_easy_reset(handle);
  const std::lock_guard<std::mutex> lock(mutex_);
  handles_.push_back(handle);
}

HttpReply HttpClient::send_once(const HttpRequest& request, const std::string& url) {
  const auto give = [this](void* handle) { give_handle(handle); };
  const std::unique_ptr<void, decltype(give)> owned(take_handle(), give);
  CURL* handle = owned.get();
  Exchange exchange{*this, request, handle, {}, 0, false, false, "", nullptr};
  char reason[CURL_ERROR_SIZE] = "";
  // No compression: sizes and offsets are those of the file.
  curl_slist* list = curl_slist_append(nullptr, "Accept-Encoding: identity");
  const std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(list, curl_slist_free_all);
  if (!environment_.token.empty() && origin_of(url) == origin_) {
    curl_slist_append(list, ("Authorization: Bearer " + environment_.token).c_str());
  }
  if (request.offset > 0) {
    curl_slist_append(list, ("Range: bytes=" + std::to_string(request.offset) + "-").c_str());
  }
  const long timeout = environment_.timeout_seconds;
  curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(handle, CURLOPT_NOBODY, request.head ? 1L : 0L);
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, list);
  curl_easy_setopt(handle, CURLOPT_USERAGENT, "billm/" BILLM_VERSION);
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT, timeout);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, timeout);
  curl_easy_setopt(handle, CURLOPT_BUFFERSIZE, 256L << 10);
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, reason);
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, &Exchange::on_header);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, &exchange);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &Exchange::on_body);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &exchange);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &Exchange::on_progress);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, &exchange);
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
  const CURLcode code = curl_easy_perform(handle);
  if (exchange.thrown) std::rethrow_exception(exchange.thrown);
  check_cancelled();
  if (code == CURLE_OK) exchange.begin();  // a body without bytes
  HttpReply& reply = exchange.reply;
  reply.url = url;
  reply.trouble = exchange.problem.empty() ? trouble_of(code) : Trouble::kBadAnswer;
  curl_off_t connected = 0;  // microseconds until the connection stood
  curl_easy_getinfo(handle, CURLINFO_CONNECT_TIME_T, &connected);
  if (code == CURLE_OPERATION_TIMEDOUT && connected == 0) reply.trouble = Trouble::kNoConnection;
  if (code == CURLE_OK && !exchange.headers_ended) {  // libcurl takes what came for all
    reply.trouble = Trouble::kCut;
    exchange.problem = "the end amidst the headers";
  }
  if (reply.trouble != Trouble::kNone) {
    reply.status = 0;
    reply.trouble_text = !exchange.problem.empty() ? exchange.problem
                         : *reason != '\0'         ? printable(reason)
                                                   : curl_easy_strerror(code);
    return std::move(reply);
  }
  reached_ = true;
  if (reply.is_redirect()) {
    const char* next = nullptr;
    curl_easy_getinfo(handle, CURLINFO_REDIRECT_URL, &next);
    reply.headers["location"] = next != nullptr ? next : "";  // absolute now
  }
  return std::move(reply);
}

HttpReply HttpClient::send(const HttpRequest& request) {
  check_cancelled();
  std::string url = request.url;
  for (int hop = 0; hop <= kMostRedirects; ++hop) {
    HttpReply reply = send_once(request, url);
    if (!reply.is_redirect()) return reply;
    const std::string next = reply.header("location");
    const std::string origin = origin_of(next);
    const auto refuse = [&](const std::string& why) {
      reply.trouble = Trouble::kBadAnswer;
      reply.trouble_text = "a redirect " + why + " (" + shown_url(next) + ")";
      return reply;
    };
    if (origin.empty()) return refuse("to something that is no http or https address");
    if (url.starts_with("https://") && next.starts_with("http://")) {
      return refuse("from https to http");
    }
    if (origin != origin_ && !request.other_origins) {
      return request.head ? reply : refuse("to another host");
    }
    url = next;
  }
  HttpReply reply;
  reply.url = url;
  reply.trouble = Trouble::kBadAnswer;
  reply.trouble_text = "more than " + std::to_string(kMostRedirects) + " redirects";
  return reply;
}

HttpReply HttpClient::get(const std::string& url, size_t limit, std::string& body) {
  HttpRequest request;
  request.url = url;
  request.begin = [&](const HttpReply&) { body.clear(); };
  request.body = [&](std::span<const std::byte> bytes) {
    if (bytes.size() > limit - body.size()) {
      throw Error(ErrorCode::kFailure, shown_url(url) + ": expected an answer of at most " +
                                           std::to_string(limit) + " bytes, got more");
    }
    body.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  RetryPolicy retry(*this);
  HttpReply reply = send(request);
  while (retry.again(reply, false)) reply = send(request);
  return reply;
}

HttpReply HttpClient::head(const std::string& url) {
  HttpRequest request;
  request.url = url;
  request.head = true;
  RetryPolicy retry(*this);
  HttpReply reply = send(request);
  while (retry.again(reply, false)) reply = send(request);
  return reply;
}

void HttpClient::check_cancelled() const {
  if (cancelled_) throw cancelled();
}

void HttpClient::wait(std::chrono::milliseconds time) const {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
    check_cancelled();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

std::string host_of(const std::string& url) {
  const size_t begin = url.find("://") + 3;
  return printable(url.substr(begin, url.find_first_of("/?", begin) - begin));
}

std::string shown_url(const std::string& url) {
  const size_t at = url.rfind('@');
  const std::string rest = at == std::string::npos ? url : "..." + url.substr(at);
  return printable(rest.substr(0, rest.find_first_of("?#")));
}

std::optional<int64_t> asked_to_wait(const HttpReply& reply) {
  const auto number = [](std::string_view text) -> std::optional<int64_t> {
    int64_t value = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failure != std::errc() || value < 0) return std::nullopt;
    return value;
  };
  if (const std::string text = reply.header("retry-after"); !text.empty()) {
    if (const auto seconds = number(text)) return seconds;
    const time_t date = curl_getdate(text.c_str(), nullptr);
    if (date != -1) return std::max<int64_t>(0, date - std::time(nullptr));
  }
  // The hub's own: RateLimit: "api";r=0;t=55
  const std::string limit = reply.header("ratelimit");
  const size_t found = limit.find(";t=");
  if (reply.status == 429 && found != std::string::npos) return number(limit.substr(found + 3));
  return std::nullopt;
}

bool RetryPolicy::again(const HttpReply& reply, bool progress) {
  constexpr int kMostAttempts = 5;
  constexpr int64_t kLongestWait = 60, kToldWait = 5;
  const long s = reply.status;
  const bool busy = s == 408 || s == 429 || s == 500 || s == 502 || s == 503 || s == 504;
  const bool lost = reply.trouble == Trouble::kCut ||
                    (reply.trouble == Trouble::kNoConnection && client_.was_reached());
  if (!busy && !lost) return false;
  if (progress) attempts_ = 0;
  if (++attempts_ >= kMostAttempts) return false;
  std::chrono::milliseconds pause(250 << attempts_);
  if (const auto seconds = busy ? asked_to_wait(reply) : std::nullopt) {
    if (*seconds > kLongestWait) return false;
    pause = std::chrono::seconds(*seconds);
    if (*seconds >= kToldWait && !client_.quiet()) {
      log_info(host_of(reply.url) + " answers " + std::to_string(s) + ": waiting " +
               std::to_string(*seconds) + " s");
    }
  }
  client_.wait(pause);
  return true;
}

std::string percent_encoded(const std::string& text, bool keep_slash) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string result;
  for (const unsigned char c : text) {
    const bool plain = (std::isalnum(c) != 0 && c < 0x80) || c == '-' || c == '.' || c == '_' ||
                       c == '~' || (c == '/' && keep_slash);
    if (plain) {
      result += static_cast<char>(c);
    } else {
      result += '%';
      result += kDigits[c >> 4];
      result += kDigits[c & 15];
    }
  }
  return result;
}

}  // namespace billm
