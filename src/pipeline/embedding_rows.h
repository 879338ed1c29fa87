// Rounds the embedding and the output head of a model to integer rows: the last thing that is done
// to a result, so that the codes of the blocks are the same whatever they are stored in.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "billm/model/model.h"
#include "billm/pack/integer_rows.h"
#include "billm/pipeline/embedding_bits.h"
#include "billm/report/report.h"

namespace billm {

// A matrix in fp32 that is held at a time.
inline constexpr int64_t kRoundedPieceBytes = int64_t{64} << 20;

// By module; what stays as it is is not there. Holds a piece of a matrix in fp32 at a time. Throws
// Error{kBadInput} for weights too large for scales in fp16.
std::map<std::string, IntegerRows> round_embeddings(const Model& model, const EmbeddingBits& bits,
                                                    int threads,
                                                    std::vector<IntegerRowsReport>* reports);

}  // namespace billm
