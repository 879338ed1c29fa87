// See embedding_rows.h.
#include "embedding_rows.h"

#include <algorithm>

#include "billm/base/error.h"

namespace billm {

void check_embedding_bits(const EmbeddingBits& bits, bool tied, const std::string& where) {
  if (!tied || !bits.head || *bits.head == kAsItIs) return;
  throw Error(ErrorCode::kUsage,
              "--head-bits: the output head of " + where +
                  " is its embedding: expected no bits of "
                  "its own, got " +
                  std::to_string(*bits.head),
              "leave it out: --embedding-bits says how both are stored");
}

std::map<std::string, IntegerRows> round_embeddings(const Model& model, const EmbeddingBits& bits,
                                                    int threads,
                                                    std::vector<IntegerRowsReport>* reports) {
  std::map<std::string, IntegerRows> rounded;
  const ModelSpec& spec = model.spec();
  const int64_t rows = spec.config.vocab_size, cols = spec.config.embed_width;
  const int64_t piece = std::max<int64_t>(1, kRoundedPieceBytes / (4 * cols));
  for (const auto& [tensor, wanted] :
       {std::pair(spec.embed, bits.embedding), std::pair(spec.head, bits.head_bits())}) {
    if (wanted == kAsItIs) continue;
    const std::string module = tensor.substr(0, tensor.rfind('.'));
    IntegerRows made = make_integer_rows(rows, cols, wanted);
    RoundingError sum;
    for (int64_t first = 0; first < rows; first += piece) {
      const at::Tensor weight = model.weights().rows(tensor, first, std::min(piece, rows - first));
      const RoundingError part =
          round_rows(weight.const_data_ptr<float>(), first, weight.size(0), threads, module, &made);
      sum.error += part.error;
      sum.total += part.total;
    }
    model.weights().release(tensor);
    reports->push_back({module, rows, cols, wanted, made.stored_bits(),
                        sum.total > 0 ? sum.error / sum.total : 0});
    rounded.emplace(module, std::move(made));
  }
  return rounded;
}

}  // namespace billm
