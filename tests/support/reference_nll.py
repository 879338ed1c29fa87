#!/usr/bin/env python3
"""Loss of a HuggingFace model on windows of tokens, as transformers computes it in fp32.

Usage: reference_nll.py MODEL_DIRECTORY TOKENS.npy [SECOND_MODEL_DIRECTORY]

Prints the sum of -log p(next token) over all predictions of all windows, each window alone, their
number, and with a second model the mean KL(model || second) per prediction ("nan" without).
"""

import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def main():
    torch.set_num_threads(2)
    tokens = torch.from_numpy(np.load(sys.argv[2]).astype(np.int64))
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
              for path in [sys.argv[1], *sys.argv[3:4]]]
    nll, kl = 0.0, 0.0
    with torch.no_grad():
        for row in tokens:
            logs = [torch.log_softmax(m(row[None]).logits[0, :-1].float(), -1) for m in models]
            nll -= logs[0].gather(1, row[1:, None]).double().sum().item()
            if len(logs) == 2:
                kl += (logs[0].exp() * (logs[0] - logs[1])).double().sum().item()
    predictions = tokens.shape[0] * (tokens.shape[1] - 1)
    print(repr(nll), predictions, repr(kl / predictions) if len(models) == 2 else "nan")


if __name__ == "__main__":
    main()
