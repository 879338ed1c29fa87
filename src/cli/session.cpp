// See session.h.
#include "session.h"

#include <algorithm>

#include "billm/base/stopwatch.h"
#include "billm/tokenizer/text_stream.h"
#include "stop_texts.h"

namespace billm {

std::span<const float> Session::append(std::span<const int32_t> tokens) {
  const std::span<const float> logits = generator_.append(tokens);
  computed_.insert(computed_.end(), tokens.begin(), tokens.end());
  return logits;
}

Answer Session::answer(const std::vector<int32_t>& sequence, bool continues_text,
                       const AnswerLimits& limits,
                       const std::function<bool(const std::string&)>& on_text) {
  const auto same =
      std::mismatch(computed_.begin(), computed_.end(), sequence.begin(), sequence.end());
  // The last token is computed in any case: its logits are needed.
  const size_t known =
      std::min(static_cast<size_t>(same.first - computed_.begin()), sequence.size() - 1);
  generator_.truncate(static_cast<int64_t>(known));
  computed_.resize(known);
  sampler_.start(sequence);

  Answer answer;
  StopTexts stops(limits.stops);
  TextStream stream(
      tokenizer_, continues_text ? std::span<const int32_t>(sequence) : std::span<const int32_t>());
  bool wanted = true;
  const auto give = [&](const std::string& text) {
    answer.text += text;
    if (wanted && !text.empty()) wanted = on_text(text);
  };
  const auto ends = [&](int32_t id) {
    return std::find(limits.end_ids.begin(), limits.end_ids.end(), id) != limits.end_ids.end();
  };

  const Stopwatch prefill;
  std::span<const float> logits = append(std::span(sequence).subspan(known));
  answer.prefill_tokens = static_cast<int64_t>(sequence.size() - known);
  answer.prefill_seconds = prefill.seconds();
  const Stopwatch decode;
  while (wanted) {
    const int32_t id = sampler_.sample(logits);
    answer.ids.push_back(id);
    give(stops.push(stream.push(id)));
    if (stops.found()) {
      answer.finish = "stop";
    } else if (ends(id)) {
      answer.finish = "eos";
    } else if (static_cast<int64_t>(answer.ids.size()) == limits.tokens) {
      answer.finish = "length";
    } else if (generator_.length() == generator_.context()) {
      answer.finish = "context";
    }
    if (*answer.finish != '\0') break;
    logits = append(std::span(&id, 1));
    ++answer.decode_tokens;
  }
  answer.decode_seconds = decode.seconds();
  if (*answer.finish == '\0') answer.finish = "closed";
  give(stops.push(stream.finish()));
  if (stops.found()) answer.finish = "stop";
  give(stops.finish());
  return answer;
}

}  // namespace billm
