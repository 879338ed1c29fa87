#!/usr/bin/env python3
"""Random tiny LLaMA-family checkpoints with the logits that transformers computes for them.

Usage: make_tiny_llama.py OUTPUT_DIRECTORY [NAME ...]

For each configuration a directory OUTPUT/NAME: an ordinary HuggingFace model (fp16, bf16 or fp32)
plus `tokens.npy` int32 [sequences, length] (the same for all), `logits.f32` and `hidden.f32` (raw little-endian fp32:
[sequences, length, vocab], and the first block's output [sequences, length, hidden]).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

SEQUENCES, LENGTH, VOCAB = 3, 37, 97  # deliberately no multiples of anything

BASE = dict(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=112,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=1e-5,
    max_position_embeddings=256,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
)

# name: (changes to BASE, dtype, where the rope base stands in config.json)
CONFIGS = {
    "gqa": (dict(), torch.float16, "rope_parameters"),
    "gqa3": (dict(hidden_size=60, num_attention_heads=3, num_key_value_heads=1,
                  tie_word_embeddings=True, rope_parameters={"rope_type": "default",
                                                            "rope_theta": 500000.0}),
             torch.bfloat16, "rope_parameters"),
    "theta": (dict(rope_parameters={"rope_type": "default", "rope_theta": 1234.5},
                   rms_norm_eps=1e-3), torch.float32, "rope_theta"),
    "headdim": (dict(hidden_size=48, num_attention_heads=4, num_key_value_heads=4, head_dim=20,
                     tie_word_embeddings=True), torch.float16, "rope_theta"),
    "mistral": (dict(sliding_window=64, head_dim=16), torch.bfloat16, "rope_parameters"),
}


def make(name, directory):
    changes, dtype, rope_key = CONFIGS[name]
    torch.manual_seed(sorted(CONFIGS).index(name))
    mistral = name == "mistral"
    config = (MistralConfig if mistral else LlamaConfig)(**{**BASE, **changes})
    model = (MistralForCausalLM if mistral else LlamaForCausalLM)(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Larger than the usual 0.02, so that attention and gates are far from linear.
            if key.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.2)
    model = model.to(dtype)
    model.save_pretrained(directory)

    path = directory / "config.json"
    written = json.loads(path.read_text())
    if rope_key == "rope_theta":  # what transformers before version 5 wrote
        rope = written.pop("rope_parameters", None) or {"rope_theta": 10000.0}
        written["rope_theta"] = rope["rope_theta"]
        written["rope_scaling"] = None
    else:
        assert "rope_parameters" in written and "rope_theta" not in written
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")

    # Loaded anew: model.to(fp16) has rounded the rotary frequencies, too.
    model = type(model).from_pretrained(directory, dtype=torch.float32).eval()
    tokens = torch.randint(0, VOCAB, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        output = model(tokens, output_hidden_states=True)
    np.save(directory / "tokens.npy", tokens.numpy().astype(np.int32))
    output.logits.numpy().astype("<f4").tofile(directory / "logits.f32")
    output.hidden_states[1].numpy().astype("<f4").tofile(directory / "hidden.f32")


def main():
    torch.set_num_threads(1)
    output = Path(sys.argv[1])
    for name in sys.argv[2:] or CONFIGS:
        make(name, output / name)


if __name__ == "__main__":
    main()
