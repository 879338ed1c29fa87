#!/usr/bin/env python3
"""Loss of HuggingFace models on windows of tokens, as transformers computes it in fp32.

Usage: reference_nll.py MODEL_DIRECTORY TOKENS.npy [MODEL_DIRECTORY TOKENS.npy ...]

Prints for each, one a line, the sum of -log p(next token) over all predictions of all windows, each
window alone, and their number.
"""

import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def loss(model, tokens):
    tokens = torch.from_numpy(np.load(tokens).astype(np.int64))
    model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    nll = 0.0
    with torch.no_grad():
        for row in tokens:
            logs = torch.log_softmax(model(row[None]).logits[0, :-1].float(), -1)
            nll -= logs.gather(1, row[1:, None]).double().sum().item()
    print(repr(nll), tokens.shape[0] * (tokens.shape[1] - 1))


def main():
    torch.set_num_threads(1)
    for model, tokens in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        loss(model, tokens)


if __name__ == "__main__":
    main()
