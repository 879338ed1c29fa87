"""Writes the file argv[1]: steps of torch.optim.AdamW (not fused, no weight decay) on random
gradients, for tests/unit/learn/adamw_test.cpp. start [n], gradients [steps, n], rates [steps],
expected [steps, n]."""

import sys

import torch
from safetensors.torch import save_file

STEPS, COUNT = 12, 3001


def main():
    generator = torch.Generator().manual_seed(7)
    start = torch.randn(COUNT, generator=generator)
    # The gradients have very different sizes, and some are 0 throughout.
    gradients = torch.randn(STEPS, COUNT, generator=generator) * torch.logspace(-9, 3, COUNT)
    gradients[:, ::50] = 0
    rates = torch.linspace(0.1, 0.01, STEPS)
    parameter = start.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([parameter], betas=(0.9, 0.99), eps=1e-20, weight_decay=0.0,
                                  foreach=False, fused=False)
    expected = []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = rates[step].item()
        parameter.grad = gradients[step].clone()
        optimizer.step()
        expected.append(parameter.detach().clone())
    save_file({"start": start, "gradients": gradients, "rates": rates,
               "expected": torch.stack(expected)}, sys.argv[1])


if __name__ == "__main__":
    main()
