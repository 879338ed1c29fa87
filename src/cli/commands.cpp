// The command table.
#include "command.h"

namespace billm {
namespace {

const Command kCommands[] = {
    {"quantize", "Quantize a checkpoint to about one bit per weight and write it packed",
     setup_quantize},
    {"distill", "Teach a packed model the original's next-token distribution, at no stored bits",
     setup_distill},
    {"eval", "Measure perplexity (and KL to the original) of a packed or dense model", setup_eval},
    {"generate", "Continue a text or chat with a packed or dense model", setup_generate},
    {"inspect", "Show what a packed model holds and what every layer costs", setup_inspect},
    {"export", "Write a packed model as an ordinary fp16 checkpoint", setup_export},
    {"tokenize", "Print the token ids of a text, or the text of token ids", setup_tokenize},
    {"bench", "Measure how fast packed layers and a model run on this machine", setup_bench},
};

}  // namespace

std::span<const Command> commands() { return kCommands; }

}  // namespace billm
