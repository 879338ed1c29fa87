// See hub_errors.h. The hub says more than the status in X-Error-Code and X-Error-Message: a
// private or misspelt repository is a 401 with "RepoNotFound" for whoever brings no token.
#include "hub_errors.h"

#include "billm/checkpoint/json.h"

namespace billm {
namespace {

Error no_network(const std::string& what, const HttpReply& reply,
                 const HubEnvironment& environment) {
  const std::string host = host_of(reply.url);
  const std::string reason = ": " + reply.trouble_text;
  switch (reply.trouble) {
    case Trouble::kNoConnection:
      return Error(ErrorCode::kFailure, what + ": cannot reach " + host + reason,
                   "check the network, proxy (https_proxy) and certificates (Debian: "
                   "ca-certificates), or HF_ENDPOINT; HF_HUB_OFFLINE=1 uses the cache alone");
    case Trouble::kCut:
      return Error(ErrorCode::kFailure, what + ": " + host + " stopped answering" + reason,
                   "run the same command again: what is loaded is kept");
    default:
      return Error(ErrorCode::kFailure, what + ": bad answer of " + host + reason,
                   "is HF_ENDPOINT=" + environment.endpoint + " a HuggingFace hub?");
  }
}

std::string token_hint(const HubEnvironment& environment) {
  return environment.token.empty() ? "set HF_TOKEN to a token of an account that has access"
                                   : "the token of " + environment.token_source + " has no access";
}

}  // namespace

std::string question_text(const HubQuestion& question) {
  std::string text = question.repository.id;
  if (question.revision != "main") text += "@" + question.revision;
  if (!question.file.empty()) text += ": " + printable(question.file);
  return text;
}

Error refused(const HubQuestion& question, const HttpReply& reply,
              const HubEnvironment& environment) {
  const std::string what = question_text(question);
  if (reply.trouble != Trouble::kNone) return no_network(what, reply, environment);
  const std::string code = reply.header("x-error-code");
  const std::string said = printable(reply.header("x-error-message"));
  const std::string host = host_of(reply.url);
  const bool data = question.repository.kind == RepositoryKind::kDataSet;
  const std::string page =
      environment.endpoint + (data ? "/datasets/" : "/") + question.repository.id;
  const std::string status = "HTTP " + std::to_string(reply.status);
  const bool forbidden = reply.status == 401 || reply.status == 403;
  if (forbidden && code == "GatedRepo") {
    return bad_input(
        what + ": access is granted only to accounts that accepted its licence (" + status + ")",
        "accept it at " + page + ", then " +
            (environment.token.empty() ? "set HF_TOKEN to a token of that account (" +
                                             environment.endpoint + "/settings/tokens)"
                                       : "check that the token of " + environment.token_source +
                                             " belongs to that account"));
  }
  if (reply.status == 401 && said.starts_with("Invalid credentials")) {
    return bad_input(what + ": " + host + " does not know the token of " +
                         environment.token_source + " (" + status + ")",
                     "make a new one at " + environment.endpoint + "/settings/tokens, or unset it");
  }
  if (reply.status == 404 && code == "RevisionNotFound") {
    return bad_input(question.repository.id + ": expected the revision " +
                         printable(question.revision) + ", got none of that name at " + host,
                     "its branches and tags are listed at " + page);
  }
  if (reply.status == 404 &&
      (code == "EntryNotFound" || (code.empty() && !question.file.empty()))) {
    return bad_input(what + ": expected this file in the repository, got none at " + host,
                     "its files are listed at " + page + "/tree/" + question.revision);
  }
  if (reply.status == 404 || (forbidden && code == "RepoNotFound")) {
    return bad_input(
        what + ": no such repository at " + host + ", or a private one (" + status + ")",
        "check the name; for a private repository " + token_hint(environment));
  }
  if (forbidden) {
    return bad_input(what + ": access refused by " + host + " (" + status +
                         (said.empty() ? ")" : ": " + said + ")"),
                     "see " + page + "; " + token_hint(environment));
  }
  if (reply.status == 429) {
    const auto seconds = asked_to_wait(reply);
    return Error(ErrorCode::kFailure, what + ": too many requests to " + host + " (" + status + ")",
                 "try again in " + (seconds ? std::to_string(*seconds) + " seconds" : "a while") +
                     (environment.token.empty() ? "; with HF_TOKEN set the limit is higher" : ""));
  }
  return Error(ErrorCode::kFailure,
               what + ": " + host + " answers " + status + (said.empty() ? "" : ": " + said),
               reply.status >= 500
                   ? "the server has a problem: try again later"
                   : "is HF_ENDPOINT=" + environment.endpoint + " a HuggingFace hub?");
}

Error not_cached(const HubQuestion& question, const std::string& missing,
                 const std::filesystem::path& place) {
  return bad_input(question_text(question) + ": expected " + missing +
                       " in the HuggingFace cache (" + place.string() +
                       "), got none, and HF_HUB_OFFLINE forbids the download",
                   "unset HF_HUB_OFFLINE, or load it on a machine with network and copy the "
                   "cache, or give a directory");
}

}  // namespace billm
