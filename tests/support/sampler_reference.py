#!/usr/bin/env python3
"""What transformers' generate() would draw the next token from.

Usage: sampler_reference.py OUTPUT_DIRECTORY

Writes into it: logits.f32 (raw little-endian fp32 [cases, vocab]) and cases.json, a list of
{"settings": {...}, "seen": [ids], "tokens": [ids], "probabilities": [...]}: the tokens that are
kept after the processors that generate() builds, and what they are drawn with; greedy ones have
one.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

VOCAB = 211
SETTINGS = [
    {"do_sample": False},
    {"do_sample": False, "repetition_penalty": 1.3},
    {"do_sample": False, "repetition_penalty": 0.6},
    {"temperature": 1.0, "top_k": 0},
    {"temperature": 0.7, "top_k": 0},
    {"temperature": 2.5, "top_k": 0},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 5000},
    {"top_k": 0, "top_p": 0.9},
    {"top_k": 0, "top_p": 0.01},
    {"top_k": 0, "top_p": 0.0},
    {"top_k": 0, "top_p": 0.999},
    {"top_k": 0, "min_p": 0.05},
    {"top_k": 0, "min_p": 1.0},
    {"top_k": 0, "min_p": 0.0},
    {"top_k": 20, "top_p": 0.8, "min_p": 0.1, "temperature": 0.6, "repetition_penalty": 1.2},
    {"top_k": 50, "top_p": 0.95, "min_p": 0.02, "temperature": 1.7, "repetition_penalty": 1.05},
    {"top_k": 3, "top_p": 0.5, "temperature": 0.1},
]
REPEATS = 12


def processors(settings, length):
    config = GenerationConfig(**({"do_sample": True} | settings))
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, hidden_size=8, num_hidden_layers=1,
                                         num_attention_heads=1, intermediate_size=8))
    return model._get_logits_processor(generation_config=config, input_ids_seq_length=length,
                                       device="cpu", model_kwargs={})


def main():
    out = Path(sys.argv[1])
    random = np.random.default_rng(3)
    all_logits, cases = [], []
    for settings in SETTINGS:
        for repeat in range(REPEATS):
            logits = (random.standard_normal(VOCAB) * random.choice([0.5, 3, 12])).astype("<f4")
            if repeat % 4 == 3:
                logits = np.round(logits)  # many equal ones
                if "top_p" in settings:
                    logits += (np.arange(VOCAB) * 1e-3).astype("<f4")  # whose order would be open
            seen = random.integers(0, VOCAB, random.integers(1, 30)).tolist()
            scores = processors(settings, len(seen))(torch.tensor([seen]),
                                                     torch.from_numpy(logits)[None].clone())[0]
            if settings.get("do_sample", True):
                tokens = torch.nonzero(torch.isfinite(scores))[:, 0].tolist()
                probabilities = torch.softmax(scores, -1)[tokens].tolist()
            else:
                tokens, probabilities = [int(torch.argmax(scores))], [1.0]
            all_logits.append(logits)
            cases.append({"settings": settings, "seen": seen, "tokens": tokens,
                          "probabilities": probabilities})
    np.concatenate(all_logits).tofile(out / "logits.f32")
    (out / "cases.json").write_text(json.dumps(cases))


if __name__ == "__main__":
    main()
