"""billm generate against transformers' generate(): greedy and penalized ids of every family and of
the demo model; and a packed model speaks as the dense one that is exported from it."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

# With "dynamic" the angles change while the text grows; with "sliding" keys leave the window. (A
# window of one token is not among them: transformers' cache cuts it to [-0:], which is everything.
# generator_test.cpp has it, against transformers without cache.)
CASES = ("gqa3", "headdim", "biases", "base", "head_alone", "llama3", "linear", "dynamic",
         "dynamic_older", "mistral", "sliding", "qwen2", "qwen2_types", "qwen3",
         "qwen3_bias", "opt", "opt_350m", "opt_projected", "opt_post")
TOKENS = 60
PENALTY = 1.3


class AgainstTransformers(bt.TestCase):
    def reference(self, *arguments):
        result = bt.support("generate_reference.py", *arguments)
        if "No module named" in result.stderr:
            bt.skip("BILLM_PYTHON: no transformers there", data=True)
        self.assertEqual(result.returncode, 0, result.stderr[-2000:])
        return json.loads(result.stdout)

    def generate(self, model, prompt, *arguments):
        return self.report("generate", "--model", model, "--prompt", prompt, *arguments)

    def test_families(self):
        models = self.dir / "models"
        bt.tiny_models(models, CASES)
        tokenizer = bt.tiny_tokenizer()  # ids below the models' 97
        tokenizer["model"] |= {
            "vocab": {k: v for k, v in tokenizer["model"]["vocab"].items() if v < 97},
            "merges": []}
        for case in CASES:
            (models / case / "tokenizer.json").write_text(json.dumps(tokenizer))
        prompt = "The quick brown fox jumps over"
        expected = self.reference("--tokens", TOKENS, "--prompt", prompt, "--penalty", PENALTY,
                                  *(models / case for case in CASES))
        spoken = set()
        for case in CASES:
            with self.subTest(case=case):
                # More than some of them have positions: rotary ones go on.
                arguments = ("-n", TOKENS, "-c", 100, "--ignore-eos")
                found = self.generate(models / case, prompt, *arguments)
                self.assertEqual(found["prompt_ids"], expected[case]["prompt"])
                self.assertEqual(found["ids"], expected[case]["greedy"])
                found = self.generate(models / case, prompt, *arguments, "--repetition-penalty",
                                      PENALTY)
                self.assertEqual(found["ids"], expected[case]["penalized"])
                spoken |= set(found["ids"])
        self.assertGreater(len(spoken), 50)
        # Beyond the positions that a model has learned there is no context.
        self.fails(bt.USAGE, "generate", "--model", models / "opt", "-p", "The", "-c", 257,
                   needles=["at most the model's 256 positions",
                            "give --ctx-size at most 256"])
        for flags in (("-p", 257), ("-p", 0, "-n", 257)):
            self.fails(bt.USAGE, "bench", "--model", models / "opt", "--skip-layers", *flags,
                       needles=["at most the model's 256 positions",
                                "give -p and -n at most 256"])

    def test_demo_model(self):
        model = bt.demo_model()
        prompt = "The capital of France is"
        expected = self.reference("--tokens", 64, "--prompt", prompt, "--kinds", "greedy",
                                  "--ignore-eos", "no", model)[model.name]
        found = self.generate(model, prompt, "-n", 64)
        self.assertEqual((found["ids"], found["text"]), (expected["greedy"], expected["text"]))
        self.assertEqual(found["finish"], "eos")
        whole = self.reference("--tokens", 64, "--prompt", prompt, "--kinds", "penalized",
                               "--penalty", PENALTY, model)[model.name]
        found = self.generate(model, prompt, "-n", 64, "--ignore-eos", "--repetition-penalty",
                              PENALTY)
        self.assertEqual(found["ids"], whole["penalized"])
        self.assertEqual(len(found["ids"]), 64)

    def test_packed_as_exported(self):
        model = bt.make_tiny_llama(self.dir / "model", change=lambda config, tensors: config.update(
            eos_token_id=None))
        for method in ("billm", "arb"):
            packed, dense = self.dir / method, self.dir / (method + "-dense")
            self.billm("quantize", "--model", model, "--method", method, "--calib",
                       self.calibration(), "--out", packed, "--quiet")
            self.billm("export", "--dense", "--model", packed, "--out", dense, "--quiet")
            # Packed layers read inputs rounded to 8 bits (kernels/cpu/gemv.h), so near ties fall
            # otherwise now and then; by chance one in 300 would be equal.
            prompts = [f"the {word} in spain" for word in "rain sun snow wind ice fog hail".split()]
            equal = 0
            for prompt in prompts:
                one, other = (self.generate(m, prompt, "-n", 1, "--run-head-bits", 32)["ids"]
                              for m in (packed, dense))
                equal += one == other
            self.assertGreaterEqual(equal, 5)


if __name__ == "__main__":
    bt.main()
