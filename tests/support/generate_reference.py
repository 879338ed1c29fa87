#!/usr/bin/env python3
"""What transformers' generate() makes of a prompt.

Usage: generate_reference.py --tokens N --prompt TEXT [--kinds KIND,...] [--penalty R]
       [--ignore-eos yes|no] MODEL ...

Prints {model's directory name: {"prompt": ids, KIND: ids behind the prompt, "text": of the first
kind}}; kinds are "greedy" and "penalized" (with a repetition penalty). All in fp32.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--kinds", default="greedy,penalized")
    parser.add_argument("--penalty", type=float, default=1.0)
    parser.add_argument("--ignore-eos", choices=("yes", "no"), default="yes")
    parser.add_argument("models", nargs="+", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = {}
    for path in arguments.models:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
        prompt = tokenizer(arguments.prompt, return_tensors="pt").input_ids

        def generate(**settings):
            # A model of its own: a dynamic rope keeps the length of the sequence before.
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
            if arguments.ignore_eos == "yes":
                model.generation_config.eos_token_id = None
            with torch.no_grad():
                ids = model.generate(prompt, attention_mask=torch.ones_like(prompt),
                                     max_new_tokens=arguments.tokens, do_sample=False, **settings)
            return ids[0, prompt.shape[1]:].tolist()

        kinds = {"greedy": {}, "penalized": {"repetition_penalty": arguments.penalty}}
        wanted = arguments.kinds.split(",")
        ids = {kind: generate(**kinds[kind]) for kind in wanted}
        text = tokenizer.decode(ids[wanted[0]], skip_special_tokens=True)
        result[path.name] = {"prompt": prompt[0].tolist(), "text": text} | ids
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
