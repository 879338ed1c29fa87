// SentencePiece's tokenizer.model -> TokenizerSpec: see readers.h.
// The file is a protocol buffer (sentencepiece_model.proto); of it LlamaTokenizer takes the pieces
// and their types only: the ids are the order, a merge is any split of a piece into two pieces,
// best is the lower id. Why not by libsentencepiece: docs/decisions/0009-sentencepiece.md.
#include <algorithm>
#include <protozero/pbf_message.hpp>
#include <tuple>

#include "billm/base/file.h"
#include "billm/base/utf8.h"
#include "billm/checkpoint/json.h"
#include "config_files.h"
#include "readers.h"

namespace billm::tokenizer {
namespace {

// Field numbers of sentencepiece_model.proto.
enum class ModelField : protozero::pbf_tag_type { kPieces = 1, kTrainerSpec = 2 };
enum class PieceField : protozero::pbf_tag_type { kPiece = 1, kType = 3 };
enum class TrainerField : protozero::pbf_tag_type { kModelType = 3 };

constexpr int32_t kUnigram = 1, kBpe = 2;  // TrainerSpec.ModelType; Unigram if it is not given
constexpr int32_t kControl = 3, kUserDefined = 4;  // SentencePiece.Type; 1 (normal) if not given
// Pieces are cut at every place to find merges, so that work grows with the square of their length.
// SentencePiece makes pieces of 16 characters unless told otherwise.
constexpr size_t kMaxPieceBytes = 1024;
constexpr const char* kMetaspace = "\xe2\x96\x81";  // U+2581

struct Piece {
  std::string text;
  int32_t type = 1;
};

struct Model {
  std::vector<Piece> pieces;
  int32_t type = kUnigram;
};

Piece parse_piece(const protozero::data_view& bytes) {
  Piece piece;
  protozero::pbf_message<PieceField> message(bytes);
  while (message.next()) {
    switch (message.tag_and_type()) {
      case protozero::tag_and_type(PieceField::kPiece, protozero::pbf_wire_type::length_delimited):
        piece.text = message.get_string();
        break;
      case protozero::tag_and_type(PieceField::kType, protozero::pbf_wire_type::varint):
        piece.type = message.get_enum();
        break;
      default:
        message.skip();
    }
  }
  return piece;
}

Model parse_model(std::string_view bytes) {
  Model model;
  protozero::pbf_message<ModelField> message(bytes.data(), bytes.size());
  while (message.next()) {
    switch (message.tag_and_type()) {
      case protozero::tag_and_type(ModelField::kPieces, protozero::pbf_wire_type::length_delimited):
        model.pieces.push_back(parse_piece(message.get_view()));
        break;
      case protozero::tag_and_type(ModelField::kTrainerSpec,
                                   protozero::pbf_wire_type::length_delimited): {
        protozero::pbf_message<TrainerField> trainer = message.get_message();
        while (trainer.next(TrainerField::kModelType, protozero::pbf_wire_type::varint)) {
          model.type = trainer.get_enum();
        }
        break;
      }
      default:
        message.skip();
    }
  }
  return model;
}

void fill_vocabulary(const Model& model, const std::string& name, BpeSpec& spec) {
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    const std::string& text = model.pieces[i].text;
    const std::string where = name + ": piece " + std::to_string(i);
    if (text.empty() || text.size() > kMaxPieceBytes) {
      throw bad_input(where + ": expected 1 to " + std::to_string(kMaxPieceBytes) + " bytes, got " +
                      std::to_string(text.size()));
    }
    if (find_invalid_utf8(text) != std::string::npos) throw bad_input(where + ": expected UTF-8");
    if (!spec.vocab.emplace(text, static_cast<int32_t>(i)).second) {
      throw bad_input(where + ": expected a piece of its own, got \"" + printable(text) +
                      "\" again");
    }
  }
}

// transformers' generate_merges: by the id of the whole, then by the length of the left part.
void fill_merges(const Model& model, BpeSpec& spec) {
  for (const Piece& piece : model.pieces) {
    size_t behind = 0;
    next_code_point(piece.text, behind);
    while (behind < piece.text.size()) {
      std::string left = piece.text.substr(0, behind), right = piece.text.substr(behind);
      if (spec.vocab.contains(left) && spec.vocab.contains(right)) {
        spec.merges.emplace_back(std::move(left), std::move(right));
      }
      next_code_point(piece.text, behind);
    }
  }
}

std::vector<AddedToken> special_pieces(const Model& model) {
  std::vector<AddedToken> tokens;
  for (const Piece& piece : model.pieces) {
    if (piece.type != kControl && piece.type != kUserDefined) continue;
    AddedToken token;
    token.content = piece.text;
    token.special = piece.type == kControl;
    tokens.push_back(std::move(token));
  }
  return tokens;
}

TokenizerSpec parse(std::string_view bytes, const ConfigFiles& files, const std::string& name) {
  Model model;
  try {
    model = parse_model(bytes);
  } catch (const protozero::exception& error) {
    throw bad_input(name + ": expected a SentencePiece model, got a damaged or another file (" +
                    error.what() + ")");
  }
  if (model.pieces.empty())
    throw bad_input(name + ": expected a SentencePiece model, got no pieces");
  if (model.type != kBpe) {
    throw bad_input(name + ": trainer_spec.model_type: expected 2 (BPE), got " +
                    std::to_string(model.type) + (model.type == kUnigram ? " (Unigram)" : ""));
  }
  const std::string class_name = tokenizer_class(files);
  if (!class_name.empty() && class_name != "LlamaTokenizer") {
    throw bad_input(files.where +
                        ": tokenizer_class: expected LlamaTokenizer beside "
                        "tokenizer.model, got \"" +
                        printable(class_name) + "\"",
                    "make a tokenizer.json of it with transformers (save_pretrained)");
  }
  TokenizerSpec spec;
  spec.bpe.byte_fallback = true;
  spec.bpe.fuse_unknown = true;
  fill_vocabulary(model, name, spec.bpe);
  fill_merges(model, spec.bpe);

  const bool prefix_space = config_flag(files, "add_prefix_space").value_or(true);
  const bool legacy = config_flag(files, "legacy").value_or(false);
  SplitStep step;
  step.metaspace = {kMetaspace, !prefix_space ? Metaspace::Prepend::kNever
                                : legacy      ? Metaspace::Prepend::kAlways
                                              : Metaspace::Prepend::kFirst};
  spec.steps.push_back(std::move(step));
  spec.decoders = {ReplaceText{kMetaspace, " "}, ByteFallbackDecode{}, FuseDecode{}};
  if (prefix_space) spec.decoders.emplace_back(StripDecode{' ', 1, 0});
  const ClassDefaults defaults = {"<s>", "</s>", "<unk>", special_pieces(model)};
  apply_special_tokens(parse_special_tokens(files, defaults), spec);
  return spec;
}

}  // namespace

TokenizerSpec read_sentencepiece(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "tokenizer.model";
  return parse(read_text_file(path), read_config_files(directory), path.string());
}

TokenizerSpec parse_sentencepiece(std::string_view model, std::string_view config,
                                  const std::string& name) {
  ConfigFiles files;
  files.where = name + ": tokenizer_config.json";
  if (!config.empty()) files.config = parse_json_object(config, files.where);
  return parse(model, files, name);
}

}  // namespace billm::tokenizer
