#!/usr/bin/env python3
"""What transformers' generate() makes of a prompt.

Usage: generate_reference.py --tokens N --prompt TEXT --penalty R [--ignore-eos yes|no] MODEL ...

Prints {model's directory name: {"prompt": ids, "greedy": ids, "penalized": ids with a repetition
penalty, "text": of the greedy ones}}; the ids are those behind the prompt. All in fp32.
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
    parser.add_argument("--penalty", type=float, required=True)
    parser.add_argument("--ignore-eos", choices=("yes", "no"), default="yes")
    parser.add_argument("models", nargs="+", type=Path)
    arguments = parser.parse_args()
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

        greedy = generate()
        result[path.name] = {
            "prompt": prompt[0].tolist(), "greedy": greedy,
            "penalized": generate(repetition_penalty=arguments.penalty),
            "text": tokenizer.decode(greedy, skip_special_tokens=True)}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
