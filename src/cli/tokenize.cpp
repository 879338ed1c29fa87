// billm tokenize.
#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/checkpoint/tokenizer.h"
#include "billm/hub/model_name.h"
#include "command.h"
#include "common.h"

namespace billm {
namespace {

struct Options {
  CommonOptions common;
  std::string model, file, text;
  bool decode = false, no_special = false;
};

std::vector<int32_t> parse_ids(const std::string& text) {
  std::vector<int32_t> ids;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    size_t used = 0;
    long id = -1;
    try {
      id = std::stol(word, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used != word.size() || id < 0 || id > INT32_MAX) {
      throw bad_input("--decode: expected token ids, got '" + word.substr(0, 40) + "'");
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

void run(const Options& options) {
  options.common.check_json();
  if (options.file.empty() == options.text.empty()) {
    throw Error(ErrorCode::kUsage, "expected either TEXT or --file FILE");
  }
  const std::string input = options.file.empty() ? options.text : read_text_file(options.file);
  const Tokenizer tokenizer = Tokenizer::from_directory(
      resolve_model(options.model, ModelPart::kTokenizer, options.common.quiet));
  if (options.decode) {
    const std::string text = tokenizer.decode(parse_ids(input));
    if (options.common.print()) std::cout << text << "\n";
    if (!options.common.json.empty()) options.common.write_json({{"text", text}});
    return;
  }
  const std::vector<int32_t> ids = tokenizer.encode(input, !options.no_special);
  if (options.common.print()) {
    std::string line;
    for (const int32_t id : ids) line += (line.empty() ? "" : " ") + std::to_string(id);
    std::cout << line << "\n";
  }
  options.common.write_json({{"ids", ids}});
}

}  // namespace

std::function<void()> setup_tokenize(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("-m,--model", options->model,
                 "Model whose tokenizer is used: directory, alias or hub id org/name[@revision]")
      ->required()
      ->type_name("DIR|ALIAS");
  app.add_option("TEXT", options->text, "Text, or ids with --decode");
  app.add_option("--file", options->file, "Read the text (or ids) from FILE")->type_name("FILE");
  app.add_flag("--decode", options->decode, "From ids to text");
  app.add_flag("--no-special", options->no_special, "Add no BOS or EOS");
  options->common.add_to(app);
  return [options] { run(*options); };
}

}  // namespace billm
