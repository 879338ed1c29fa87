// billm generate.
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>

#include "billm/base/error.h"
#include "billm/base/log.h"
#include "billm/base/progress.h"
#include "billm/base/stopwatch.h"
#include "billm/checkpoint/config.h"
#include "billm/generate/generation_config.h"
#include "billm/tokenizer/chat_template.h"
#include "command.h"
#include "common.h"
#include "session.h"
#include "stop_texts.h"

namespace billm {
namespace {

// The default for a plain text, whose continuation may never come to an end.
constexpr int64_t kDefaultTokens = 256;
// Where neither --ctx-size nor a number of tokens bounds the sequence.
constexpr int64_t kDefaultContext = 4096;

struct Options {
  CommonOptions common;
  std::string model, prompt, file, system, device = "auto";
  std::vector<std::string> stops;
  bool has_prompt = false, has_system = false;  // given, be they empty
  bool chat = false, greedy = false, ignore_eos = false, no_graph = false;
  std::optional<int64_t> tokens, context, top_k;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  uint64_t seed = 0;
  int run_head_bits = 8;
};

// The text to continue or the one message; nothing if messages are to be read from the terminal.
std::optional<std::string> prompt_text(const Options& options) {
  if (options.has_prompt && !options.file.empty()) {
    throw Error(ErrorCode::kUsage, "expected either --prompt or --file, got both");
  }
  if (options.has_prompt) return options.prompt;
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (options.file.empty() && terminal) {
    if (options.chat) return std::nullopt;
    throw Error(ErrorCode::kUsage, "expected a prompt",
                "give --prompt TEXT or --file FILE, pipe a text in, or use --chat");
  }
  std::string text = read_input(options.file.empty() ? "-" : options.file);
  if (text.ends_with('\n')) text.pop_back();  // editors and echo end a file with one
  return text;
}

// What the model's files say, unless the command line says otherwise. Who asks for a way of
// sampling wants to sample.
SamplerSettings sampler_settings(const Options& options, const GenerationConfig& config) {
  SamplerSettings settings = config.sampler;
  settings.seed = options.seed;
  if (options.top_k || options.top_p || options.min_p) settings.temperature = config.temperature;
  settings.temperature = options.temperature.value_or(settings.temperature);
  settings.top_k = options.top_k.value_or(settings.top_k);
  settings.top_p = options.top_p.value_or(settings.top_p);
  settings.min_p = options.min_p.value_or(settings.min_p);
  settings.repetition_penalty = options.repetition_penalty.value_or(settings.repetition_penalty);
  if (options.greedy) settings.temperature = 0;
  return settings;
}

// `prompt`: its tokens, none of a conversation, which needs more than one answer.
int64_t context_size(const Options& options, const ModelConfig& config, size_t prompt,
                     int64_t tokens) {
  if (options.context) return *options.context;
  const bool bounded = prompt > 0 && tokens > 0;
  return std::min(static_cast<int64_t>(prompt) + (bounded ? tokens : kDefaultContext),
                  config.max_position_embeddings);
}

double rate(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

void print_summary(const Answer& answer, double load_seconds) {
  std::fprintf(stderr,
               "prompt        %ld tokens, %.1f tokens/s\n"
               "generated     %ld tokens (%s), %.1f tokens/s\n"
               "load          %.1f s\n"
               "peak memory   %.0f MB\n",
               static_cast<long>(answer.prefill_tokens),
               rate(answer.prefill_tokens, answer.prefill_seconds),
               static_cast<long>(answer.ids.size()), answer.finish,
               rate(answer.decode_tokens, answer.decode_seconds), load_seconds,
               static_cast<double>(peak_rss_bytes()) / 1e6);
}

class Generation {
 public:
  explicit Generation(const Options& options) : options_(options) {}

  void run() {
    options_.common.check_json();
    (void)StopTexts(options_.stops);
    if (options_.has_system && !options_.chat) {
      throw Error(ErrorCode::kUsage, "--system: expected --chat, which has such messages");
    }
    const std::optional<std::string> prompt = prompt_text(options_);
    if (!prompt && !options_.common.json.empty()) {
      throw Error(ErrorCode::kUsage, "--json: expected one prompt, got a conversation",
                  "give --prompt TEXT or --file FILE");
    }
    model_ = model_or_newest(options_.model, options_.common.quiet);
    tokenizer_.emplace(Tokenizer::from_directory(model_));
    if (options_.chat) template_.emplace(ChatTemplate::from_directory(model_));
    if (options_.has_system) messages_.push_back({ChatRole::kSystem, options_.system});
    std::vector<int32_t> ids;
    if (prompt) ids = sequence(*prompt);
    load(ids);
    if (prompt) {
      answer_once(ids);
    } else {
      converse();
    }
  }

 private:
  // The prompt's tokens; in a chat, those of the conversation with this message added.
  std::vector<int32_t> sequence(const std::string& text) {
    if (!options_.chat) {
      std::vector<int32_t> ids = tokenizer_->encode(text, true);
      if (!ids.empty()) return ids;
      throw bad_input("the prompt is empty, and this model's tokenizer adds no token of its own",
                      "give a prompt of at least one character");
    }
    messages_.push_back({ChatRole::kUser, text});
    return tokenizer_->encode(template_->render(messages_), false);
  }

  void load(const std::vector<int32_t>& ids) {
    const ModelConfig config = read_config(model_ / "config.json");
    const GenerationConfig generation = read_generation_config(model_);
    settings_ = sampler_settings(options_, generation);
    sampler_.emplace(settings_, config.vocab_size);
    limits_.tokens = options_.tokens.value_or(options_.chat ? -1 : kDefaultTokens);
    limits_.stops = options_.stops;
    if (!options_.ignore_eos) {
      limits_.end_ids = generation.eos_token_ids;
      if (template_) {
        const std::vector<int32_t> end = tokenizer_->encode(template_->end_of_message(), false);
        if (end.size() == 1) limits_.end_ids.push_back(end[0]);
      }
    }
    GeneratorRequest request;
    request.model = model_;
    request.context = context_size(options_, config, ids.size(), limits_.tokens);
    request.threads = options_.common.resolved_threads();
    request.device = options_.device;
    request.run_head_bits = options_.run_head_bits;
    request.graphs = !options_.no_graph;
    // A log has no use for a line a block.
    request.quiet = options_.common.quiet || isatty(STDERR_FILENO) == 0;
    check_room(ids, request.context);
    const Stopwatch stopwatch;
    generator_ = std::make_unique<Generator>(request);
    load_seconds_ = stopwatch.seconds();
    session_.emplace(*generator_, *sampler_, *tokenizer_);
  }

  static void check_room(const std::vector<int32_t>& ids, int64_t context) {
    if (static_cast<int64_t>(ids.size()) < context) return;
    throw bad_input("the prompt has " + std::to_string(ids.size()) +
                        " tokens: expected fewer than the context of " + std::to_string(context),
                    "give a shorter prompt or a larger --ctx-size");
  }

  void answer_once(const std::vector<int32_t>& ids) {
    const bool stream = options_.common.json != "-";
    const Answer answer =
        session_->answer(ids, !options_.chat, limits_,
                         [&](const std::string& text) { return !stream || write_stdout(text); });
    if (stream) write_stdout("\n");
    if (!options_.common.quiet) print_summary(answer, load_seconds_);
    write_report(ids, answer);
  }

  void converse() {
    for (;;) {
      write_stdout("> ");
      std::string line;
      if (!std::getline(std::cin, line) || line == "/bye") break;
      if (line.empty()) continue;
      try {
        const std::vector<int32_t> ids = sequence(line);
        check_room(ids, generator_->context());
        const Answer answer = session_->answer(ids, false, limits_, write_stdout);
        write_stdout("\n");
        if (!options_.common.quiet) print_summary(answer, load_seconds_);
        messages_.push_back({ChatRole::kAssistant, answer.text});
      } catch (const Error& error) {  // of this message: the conversation goes on without it
        if (error.code() != ErrorCode::kBadInput) throw;
        messages_.pop_back();
        log_warning(error.message());
      }
    }
    write_stdout("\n");
  }

  void write_report(const std::vector<int32_t>& prompt_ids, const Answer& answer) const {
    const auto& [tokens, ends, stops] = limits_;
    options_.common.write_json(
        {{"model", model_.string()},
         {"chat_template", template_ ? nlohmann::ordered_json(template_->name()) : nullptr},
         {"prompt_ids", prompt_ids},
         {"ids", answer.ids},
         {"text", answer.text},
         {"finish", answer.finish},
         {"settings",
          {{"repetition_penalty", settings_.repetition_penalty},
           {"temperature", settings_.temperature},
           {"top_k", settings_.top_k},
           {"top_p", settings_.top_p},
           {"min_p", settings_.min_p},
           {"seed", settings_.seed},
           {"max_new_tokens", tokens},
           {"context", generator_->context()},
           {"run_head_bits", options_.run_head_bits},
           {"end_ids", ends},
           {"stop", stops}}},
         {"prefill",
          {{"tokens", answer.prefill_tokens},
           {"seconds", answer.prefill_seconds},
           {"tokens_per_second", rate(answer.prefill_tokens, answer.prefill_seconds)}}},
         {"decode",
          {{"tokens", answer.decode_tokens},
           {"seconds", answer.decode_seconds},
           {"tokens_per_second", rate(answer.decode_tokens, answer.decode_seconds)}}},
         {"load_seconds", load_seconds_},
         {"peak_rss_bytes", peak_rss_bytes()}});
  }

  const Options& options_;
  std::filesystem::path model_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> template_;
  std::vector<ChatMessage> messages_;
  SamplerSettings settings_;
  AnswerLimits limits_;
  std::optional<Sampler> sampler_;
  std::unique_ptr<Generator> generator_;
  std::optional<Session> session_;
  double load_seconds_ = 0;
};

void add_sampling(CLI::App& app, Options& options) {
  const std::string group = "Sampling";
  app.add_flag("--greedy", options.greedy, "Always the likeliest token, as --temp 0")->group(group);
  app.add_option("--temp,--temperature", options.temperature, "Temperature; 0: greedy")
      ->type_name("T")
      ->group(group);
  app.add_option("--top-k", options.top_k, "Only the K likeliest tokens; 0: all")
      ->type_name("K")
      ->group(group);
  app.add_option("--top-p", options.top_p, "Only the likeliest tokens that make up this share")
      ->type_name("P")
      ->group(group);
  app.add_option("--min-p", options.min_p,
                 "Only tokens at least this share as likely as the likeliest")
      ->type_name("P")
      ->group(group);
  app.add_option("--repeat-penalty,--repetition-penalty", options.repetition_penalty,
                 "Divides the logits of tokens that occurred; 1: none")
      ->type_name("R")
      ->group(group);
  app.add_option("-s,--seed", options.seed, "Seed of the random numbers")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber)
      ->group(group);
}

}  // namespace

std::function<void()> setup_generate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("-m,--model", options->model,
                 "Packed or dense model: directory, alias or hub id (default: the newest result)")
      ->type_name("DIR|ALIAS");
  const auto* prompt = app.add_option("-p,--prompt", options->prompt,
                                      "Text to continue; with --chat the message to answer")
                           ->type_name("TEXT");
  app.add_option("-f,--file", options->file,
                 "The same from FILE ('-' or nothing: standard input), without its last newline")
      ->type_name("FILE");
  app.add_flag("--chat", options->chat,
               "Use the model's chat template; without a prompt, talk on the terminal (/bye or "
               "Ctrl-D ends)");
  const auto* system =
      app.add_option("--system", options->system, "System message of the chat")->type_name("TEXT");
  app.add_option("-n,--n-predict,--max-new-tokens", options->tokens,
                 "Most tokens of an answer; -1: until the model or the context ends it (default " +
                     std::to_string(kDefaultTokens) + ", with --chat -1)")
      ->check(CLI::Range(-1, INT32_MAX))
      ->type_name("N");
  app.add_option("-c,--ctx-size", options->context,
                 "Most tokens of prompt and answer together (default: what they need, " +
                     std::to_string(kDefaultContext) +
                     " more than the prompt with -n -1; at most the model's positions)")
      ->check(CLI::Range(1, INT32_MAX))
      ->type_name("N");
  app.add_option("--stop", options->stops, "End before this text; may be given several times")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  app.add_flag("--ignore-eos", options->ignore_eos, "Go on after a token that ends a text");
  app.add_option("--device", options->device, "auto, cpu or cuda")->capture_default_str();
  app.add_option(
         "--run-head-bits", options->run_head_bits,
         "How the output head of a packed model is run: 8 (faster; from integers: those that "
         "are stored, or rounded to 8 bits) or 32 (in fp32)")
      ->capture_default_str()
      ->check(CLI::IsMember({8, 32}));
  app.add_flag("--no-graph", options->no_graph,
               "On a GPU: launch a token's kernels one by one, not as a CUDA graph");
  add_sampling(app, *options);
  options->common.add_to(app);
  app.get_option("--quiet")->description("Nothing but the text, and errors");
  app.footer(
      "The text goes to stdout as it is made, figures to stderr. Where no flag says otherwise, the "
      "model's\ngeneration_config.json decides, as in transformers' generate(): greedy unless it "
      "has do_sample;\n--temp, --top-k, --top-p and --min-p sample.\n"
      "Examples:\n"
      "  billm generate --prompt 'The capital of France is' -n 32\n"
      "  billm generate --model ./result --chat\n"
      "  billm generate --chat --prompt 'Write a haiku' --temp 0.8 --top-p 0.95 --seed 1");
  return [options, prompt, system] {
    options->has_prompt = prompt->count() > 0;
    options->has_system = system->count() > 0;
    if (options->tokens == 0) {
      throw Error(ErrorCode::kUsage, "--n-predict: expected -1 or at least 1, got 0");
    }
    Generation(*options).run();
  };
}

}  // namespace billm
