// billm tokenize.
#include <charconv>
#include <memory>
#include <sstream>

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"
#include "billm/hub/model_name.h"
#include "billm/tokenizer/tokenizer.h"
#include "command.h"
#include "common.h"

namespace billm {
namespace {

struct Options {
  CommonOptions common;
  std::string model, file, text;
  bool has_text = false;  // TEXT is given, be it empty
  bool decode = false, no_special = false;
};

std::vector<int32_t> parse_ids(const std::string& text) {
  std::vector<int32_t> ids;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    int32_t id = -1;
    const char* end = word.data() + word.size();
    const auto [stop, failure] = std::from_chars(word.data(), end, id);
    if (failure != std::errc() || stop != end || id < 0) {
      throw bad_input("--decode: expected token ids, got '" + printable(word) + "'");
    }
    ids.push_back(id);
  }
  return ids;
}

void run(const Options& options) {
  options.common.check_json();
  if (options.has_text != options.file.empty()) {
    throw Error(ErrorCode::kUsage, "expected either TEXT or --file FILE ('-': standard input)");
  }
  const std::string input = options.has_text ? options.text : read_input(options.file);
  const Tokenizer tokenizer = Tokenizer::from_directory(
      resolve_model(options.model, ModelPart::kTokenizer, options.common.quiet));
  if (options.decode) {
    const std::string text = tokenizer.decode(parse_ids(input), options.no_special);
    if (options.common.print()) write_stdout(text + "\n");
    options.common.write_json({{"text", text}});
    return;
  }
  const std::vector<int32_t> ids = tokenizer.encode(input, !options.no_special);
  if (options.common.print()) {
    std::string line;
    for (const int32_t id : ids) line += (line.empty() ? "" : " ") + std::to_string(id);
    write_stdout(line + "\n");
  }
  options.common.write_json({{"ids", ids}});
}

}  // namespace

std::function<void()> setup_tokenize(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option(
         "-m,--model", options->model,
         "Model whose tokenizer is used: directory (its tokenizer files are enough), alias or "
         "hub id org/name[@revision]")
      ->required()
      ->type_name("DIR|ALIAS");
  const auto* text = app.add_option("TEXT", options->text, "Text, or ids with --decode");
  app.add_option("--file", options->file, "Read the text (or ids) from FILE ('-': standard input)")
      ->type_name("FILE");
  app.add_flag("--decode", options->decode, "From ids to text");
  app.add_flag("--no-special", options->no_special,
               "Add no BOS or EOS (add_special_tokens=False of HuggingFace); with --decode leave "
               "special tokens out (skip_special_tokens=True)");
  options->common.add_to(app);
  return [options, text] {
    options->has_text = text->count() > 0;
    run(*options);
  };
}

}  // namespace billm
