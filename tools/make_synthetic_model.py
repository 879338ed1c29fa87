#!/usr/bin/env python3
"""Writes a LLaMA-shaped checkpoint of random fp16 weights, to measure speed and memory of models that
are not at hand. The text that it generates means nothing.

Usage: make_synthetic_model.py DIR --tokenizer tokenizer.model [--hidden 2048] [--intermediate 5632]
           [--blocks 22] [--heads 32] [--kv-heads 4] [--vocab 32000] [--seed 0]

The defaults are TinyLlama's shape: 0.97e9 weights in linears, 1.9 GB. Weights: Student's t with 8
degrees of freedom, deviation 0.02; norms 1. The same seed gives the same files.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

DEVIATION, FREEDOM = 0.02, 8
SHARD_BYTES = 1_000_000_000
ROWS = 1024  # made at a time


def tensors(options):
    """(name, shape) in file order."""
    hidden, inner = options.hidden, options.intermediate
    kv = hidden // options.heads * options.kv_heads
    yield "model.embed_tokens.weight", (options.vocab, hidden)
    for block in range(options.blocks):
        prefix = f"model.layers.{block}."
        yield prefix + "input_layernorm.weight", (hidden,)
        for name, shape in (("q", (hidden, hidden)), ("k", (kv, hidden)), ("v", (kv, hidden)),
                            ("o", (hidden, hidden))):
            yield f"{prefix}self_attn.{name}_proj.weight", shape
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        for name, shape in (("gate", (inner, hidden)), ("up", (inner, hidden)),
                            ("down", (hidden, inner))):
            yield f"{prefix}mlp.{name}_proj.weight", shape
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (options.vocab, hidden)


def values(name, shape, seed):
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.float16)
    random = np.random.default_rng([seed, *name.encode()])
    result = np.empty(shape, np.float16)
    for first in range(0, shape[0], ROWS):
        size = result[first:first + ROWS].shape
        chi_square = 2 * random.standard_gamma(FREEDOM / 2, size, dtype=np.float32)
        normal = random.standard_normal(size, dtype=np.float32)
        result[first:first + ROWS] = normal * np.sqrt((FREEDOM - 2) / chi_square) * DEVIATION
    return torch.from_numpy(result)


def write_weights(options):
    shards, size = [[]], 0
    for name, shape in tensors(options):
        bytes_ = 2 * int(np.prod(shape))
        if size + bytes_ > SHARD_BYTES and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += bytes_
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: values(name, shape, options.seed) for name, shape in shard},
                  options.directory / file, metadata={"format": "pt"})
        index |= {name: file for name, _ in shard}
        print(f"{file}: {len(shard)} tensors", flush=True)
    (options.directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index}, indent=1))


def write_rest(options):
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": options.vocab, "hidden_size": options.hidden,
        "intermediate_size": options.intermediate, "num_hidden_layers": options.blocks,
        "num_attention_heads": options.heads, "num_key_value_heads": options.kv_heads,
        "head_dim": options.hidden // options.heads, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16"}
    (options.directory / "config.json").write_text(json.dumps(config, indent=1))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (options.directory / "special_tokens_map.json").write_text(json.dumps(special))
    (options.directory / "tokenizer_config.json").write_text(json.dumps(
        special | {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": True}))
    shutil.copyfile(options.tokenizer, options.directory / "tokenizer.model")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True,
                        help="a SentencePiece tokenizer.model of --vocab pieces")
    for name, default in (("hidden", 2048), ("intermediate", 5632), ("blocks", 22), ("heads", 32),
                          ("kv-heads", 4), ("vocab", 32000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if not options.tokenizer.is_file():
        parser.error(f"{options.tokenizer}: no such file")
    options.directory.mkdir(parents=True, exist_ok=True)
    write_weights(options)
    write_rest(options)


if __name__ == "__main__":
    main()
