// Bits in which the matrices outside of the blocks are stored: the embedding and the output head.
#pragma once

#include <optional>
#include <string>

namespace billm {

inline constexpr int kAsItIs = 16;  // not rounded

struct EmbeddingBits {
  int embedding = kAsItIs;  // 16, 8 or 4
  std::optional<int> head;  // as it was asked for; 16 unless it was

  int head_bits() const { return head.value_or(kAsItIs); }
  bool any() const { return embedding != kAsItIs || head_bits() != kAsItIs; }
};

// Throws Error{kUsage} where bits of a head are asked for that is the embedding. `where`: the
// model.
void check_embedding_bits(const EmbeddingBits& bits, bool tied, const std::string& where);

}  // namespace billm
