#!/usr/bin/env python3
"""Random tiny checkpoints of every family with the logits that transformers computes for them.

Usage: make_tiny_model.py OUTPUT_DIRECTORY [NAME ...]

For each case a directory OUTPUT/NAME: an ordinary HuggingFace model (fp16, bf16 or fp32) plus
`tokens.npy` int32 [sequences, length], `logits.f32` and `hidden.f32` (raw little-endian fp32:
[sequences, length, vocab], and the first block's output [sequences, length, hidden]). Prints the
names of the cases, one a line.

Reference values are those of the directory as it is written in the end: transformers reads the
edited config.json and the renamed tensors.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          OPTConfig, OPTForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config,
                          Qwen3ForCausalLM)

SEQUENCES, LENGTH, VOCAB = 3, 37, 97  # deliberately no multiples of anything

CLASSES = {"llama": (LlamaConfig, LlamaForCausalLM), "mistral": (MistralConfig, MistralForCausalLM),
           "qwen2": (Qwen2Config, Qwen2ForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM),
           "opt": (OPTConfig, OPTForCausalLM)}

COMMON = dict(vocab_size=VOCAB, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
              max_position_embeddings=256, bos_token_id=1, eos_token_id=2)
BASE = COMMON | dict(intermediate_size=112, num_key_value_heads=2, rms_norm_eps=1e-5,
                     tie_word_embeddings=False)
OPT = COMMON | dict(ffn_dim=112, word_embed_proj_dim=64, pad_token_id=1)

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}


# --- changes to config.json and to the tensors after saving ---------------------------------------

def old_rope(config, tensors):
    """What transformers before version 5 wrote."""
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope


def older_rope(config, tensors):
    """And before version 4.43: "type" in place of "rope_type"."""
    old_rope(config, tensors)
    config["rope_scaling"]["type"] = config["rope_scaling"].pop("rope_type")


def both_ropes(config, tensors):
    """Of two, rope_scaling counts."""
    config["rope_scaling"] = {"rope_type": "linear", "factor": 3.0}


def first_llama(config, tensors):
    """A conversion of LLaMA-1 from early 2023: another spelling, little said, buffers saved."""
    old_rope(config, tensors)
    config["architectures"] = ["LLaMAForCausalLM"]
    for key in ("head_dim", "num_key_value_heads", "rope_theta", "rope_scaling", "mlp_bias",
                "attention_bias", "tie_word_embeddings", "max_position_embeddings"):
        config.pop(key, None)
    config["max_sequence_length"] = 2048
    for block in range(config["num_hidden_layers"]):
        name = f"model.layers.{block}.self_attn.rotary_emb.inv_freq"
        tensors[name] = torch.arange(8, dtype=torch.float32)


def without(*keys):
    def change(config, tensors):
        for key in keys:
            del config[key]
    return change


def base_names(config, tensors):
    """Saved from the base model: no "model." before the names."""
    for name in list(tensors):
        if name.startswith("model."):
            tensors[name.removeprefix("model.")] = tensors.pop(name)
    config["architectures"] = [config["architectures"][0].replace("ForCausalLM", "Model")]


def old_opt(config, tensors):
    """facebook/opt-*: no prefix, though the architecture is that with a head; terse."""
    base_names(config, tensors)
    config["architectures"] = ["OPTForCausalLM"]
    for key in ("tie_word_embeddings", "enable_bias", "layer_norm_elementwise_affine"):
        config.pop(key, None)


def head_of_its_own(config, tensors):
    """Tied by the configuration, but the file has two different tensors: they are not tied."""
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).contiguous()


def head_alone(config, tensors):
    """Tied, and the file has the head's name alone."""
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")


F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32

# name: (model_type, settings besides BASE or OPT, dtype, changes, length)
CASES = {
    # LLaMA
    "gqa": ("llama", dict(), F16, None, LENGTH),
    "gqa3": ("llama", dict(hidden_size=60, num_attention_heads=3, num_key_value_heads=1,
                           tie_word_embeddings=True,
                           rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
             BF16, None, LENGTH),
    "theta": ("llama", dict(rope_parameters={"rope_type": "default", "rope_theta": 1234.5},
                            rms_norm_eps=1e-3), F32, old_rope, LENGTH),
    "headdim": ("llama", dict(hidden_size=48, num_key_value_heads=4, head_dim=20,
                              tie_word_embeddings=True), F16, old_rope, LENGTH),
    "first_llama": ("llama", dict(num_key_value_heads=4, max_position_embeddings=2048), F16,
                    first_llama, LENGTH),
    "biases": ("llama", dict(attention_bias=True, mlp_bias=True), F16, None, LENGTH),
    "relu": ("llama", dict(hidden_act="relu"), F32, None, LENGTH),
    "base": ("llama", dict(tie_word_embeddings=True), F16, base_names, LENGTH),
    "untied_head": ("llama", dict(tie_word_embeddings=True), F16, head_of_its_own, LENGTH),
    "head_alone": ("llama", dict(tie_word_embeddings=True), F16, head_alone, LENGTH),
    "long": ("llama", dict(max_position_embeddings=20), F16, None, 111),
    "llama3": ("llama", dict(head_dim=32, rope_parameters=LLAMA3), BF16, None, 111),
    "llama3_old": ("llama", dict(rope_parameters=LLAMA3 | {"rope_theta": 10000.0}), F16, old_rope,
                   111),
    "llama3_silent": ("llama", dict(max_position_embeddings=24, rope_parameters={
        k: v for k, v in LLAMA3.items() if k != "original_max_position_embeddings"}), F16, None,
        LENGTH),
    "linear": ("llama", dict(max_position_embeddings=40, rope_parameters={
        "rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}), F16, None, 111),
    "linear_older": ("llama", dict(max_position_embeddings=40, rope_parameters={
        "rope_type": "linear", "rope_theta": 3000.0, "factor": 2.5}), F16, older_rope, 111),
    "both_ropes": ("llama", dict(), F16, both_ropes, LENGTH),
    "dynamic": ("llama", dict(max_position_embeddings=40, rope_parameters={
        "rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}), F16, None, 111),
    "dynamic_older": ("llama", dict(max_position_embeddings=36, rope_parameters={
        "rope_type": "dynamic", "rope_theta": 700.0, "factor": 3.5}), F16, older_rope, LENGTH),
    "dynamic_short": ("llama", dict(max_position_embeddings=40, rope_parameters={
        "rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}), F16, None, 40),
    # Mistral
    "mistral": ("mistral", dict(sliding_window=64, head_dim=16), BF16, None, LENGTH),
    "sliding": ("mistral", dict(sliding_window=7, head_dim=20, hidden_size=60,
                                num_attention_heads=5, num_key_value_heads=1), F16, None, 111),
    "sliding_one": ("mistral", dict(sliding_window=1, head_dim=16), F16, old_rope, LENGTH),
    "sliding_null": ("mistral", dict(sliding_window=None), F16, None, LENGTH),
    "mistral_silent": ("mistral", dict(num_attention_heads=8, num_key_value_heads=8), F16,
                       without("sliding_window", "num_key_value_heads", "max_position_embeddings"),
                       LENGTH),
    # Qwen2
    "qwen2": ("qwen2", dict(), BF16, None, LENGTH),
    "qwen2_tied": ("qwen2", dict(tie_word_embeddings=True, hidden_size=60, num_attention_heads=3,
                                 num_key_value_heads=3), F16, old_rope, LENGTH),
    "qwen2_window": ("qwen2", dict(use_sliding_window=True, sliding_window=9, max_window_layers=1),
                     F16, without("layer_types"), LENGTH),
    "qwen2_window_0": ("qwen2", dict(use_sliding_window=True, sliding_window=9,
                                     max_window_layers=0), F16, without("layer_types"), LENGTH),
    "qwen2_types": ("qwen2", dict(use_sliding_window=True, sliding_window=5, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention"]), F16, None, LENGTH),
    "qwen2_unused": ("qwen2", dict(sliding_window=5), F16, None, LENGTH),
    # Qwen3
    "qwen3": ("qwen3", dict(hidden_size=48, head_dim=20), BF16, None, LENGTH),
    "qwen3_bias": ("qwen3", dict(attention_bias=True, tie_word_embeddings=True, hidden_size=60,
                                 num_attention_heads=3, num_key_value_heads=1, head_dim=32,
                                 use_sliding_window=True, sliding_window=11, max_window_layers=2),
                   F16, None, LENGTH),
    "qwen3_silent": ("qwen3", dict(), F16, without("head_dim"), LENGTH),
    # OPT
    "opt": ("opt", dict(), F16, None, LENGTH),
    "opt3": ("opt", dict(hidden_size=63, num_attention_heads=3, word_embed_proj_dim=63,
                         max_position_embeddings=111), BF16, without("word_embed_proj_dim"), 111),
    "opt_350m": ("opt", dict(do_layer_norm_before=False, word_embed_proj_dim=40), F16, old_opt,
                 LENGTH),
    "opt_base": ("opt", dict(), F16, base_names, LENGTH),
    "opt_projected": ("opt", dict(word_embed_proj_dim=72, tie_word_embeddings=False), F32, None,
                      LENGTH),
    "opt_post": ("opt", dict(do_layer_norm_before=False, enable_bias=False), F16, None, LENGTH),
    "opt_bare": ("opt", dict(enable_bias=False, layer_norm_elementwise_affine=False,
                             activation_function="gelu"), F16, None, LENGTH),
    "opt_no_final": ("opt", dict(_remove_final_layer_norm=True, tie_word_embeddings=False), F16,
                     None, LENGTH),
}


def randomize(model):
    """Larger than the usual 0.02, so that attention and gates are far from linear; no zeros."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.2)


def edit(directory, change):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    tensors = load_file(directory / "model.safetensors")
    change(config, tensors)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def make(name, directory):
    model_type, settings, dtype, change, length = CASES[name]
    torch.manual_seed(list(CASES).index(name))
    make_config, make_model = CLASSES[model_type]
    model = make_model(make_config(**((OPT if model_type == "opt" else BASE) | settings)))
    randomize(model)
    model.to(dtype).save_pretrained(directory)
    if change:
        edit(directory, change)

    # Loaded anew: model.to(fp16) has rounded the rotary frequencies, too.
    model = make_model.from_pretrained(directory, dtype=torch.float32,
                                       attn_implementation="eager").eval()
    tokens = torch.randint(0, VOCAB, (SEQUENCES, length), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        output = model(tokens, output_hidden_states=True)
    np.save(directory / "tokens.npy", tokens.numpy().astype(np.int32))
    output.logits.numpy().astype("<f4").tofile(directory / "logits.f32")
    output.hidden_states[1].numpy().astype("<f4").tofile(directory / "hidden.f32")


def main():
    torch.set_num_threads(1)
    output = Path(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        make(name, output / name)
        print(name)


if __name__ == "__main__":
    main()
