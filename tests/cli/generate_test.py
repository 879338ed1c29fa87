"""billm generate: where the prompt comes from, what ends a text, what flags and the model's files say,
conversations on a terminal, and everything that is refused."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
          "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
          "{{ '<|im_start|>assistant\\n' }}{% endif %}")
PROMPT = "the rain in spain"


class Generate(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.model = bt.make_tiny_llama(self.dir / "model")
        self.say("config.json", eos_token_id=None)

    def say(self, name, **changes):
        """Changes a JSON file of the model."""
        path = self.model / name
        settings = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(settings | changes))

    def give_template(self, template=CHATML):
        path = self.model / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        for content in ("<|im_start|>", "<|im_end|>"):
            tokenizer["added_tokens"].append(
                {"id": 300 - 2 + len(tokenizer["added_tokens"]), "content": content,
                 "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                 "special": True})
        # Ids of the vocabulary that the model has.
        for token in tokenizer["added_tokens"][1:]:
            token["id"] -= 2
            tokenizer["model"]["vocab"] = {k: v for k, v in tokenizer["model"]["vocab"].items()
                                           if v != token["id"]}
        tokenizer["model"]["merges"] = [
            m for m in tokenizer["model"]["merges"] if "".join(m) in tokenizer["model"]["vocab"]]
        path.write_text(json.dumps(tokenizer))
        self.say("tokenizer_config.json", chat_template=template, eos_token="<|im_end|>")

    def generate(self, *arguments, **options):
        """The report."""
        return self.report("generate", "--model", self.model, *arguments, **options)

    def refused(self, code, *arguments, needles=(), **options):
        return self.fails(code, "generate", "--model", self.model, *arguments, needles=needles,
                          **options)

    # --- prompts ----------------------------------------------------------------------------------

    def test_prompt_file_and_standard_input_are_one(self):
        file = self.dir / "prompt.txt"
        file.write_text(PROMPT + "\n")
        expected = self.generate("--prompt", PROMPT, "-n", 20)
        self.assertEqual(len(expected["ids"]), 20)
        for arguments, options in ((("-p", PROMPT), {}), (("--file", file), {}), (("-f", file), {}),
                                   (("-f", "-"), {"input": PROMPT}), ((), {"input": PROMPT}),
                                   ((), {"input": PROMPT + "\n"})):
            report = self.generate(*arguments, "-n", 20, **options)
            self.assertEqual(report["prompt_ids"], expected["prompt_ids"])
            self.assertEqual(report["ids"], expected["ids"])
        # One newline is the file's, a second the text's.
        report = self.generate("-n", 1, input=PROMPT + "\n\n")
        self.assertEqual(report["prompt_ids"],
                         self.generate("-p", PROMPT + "\n", "-n", 1)["prompt_ids"])

    def test_refused_prompts(self):
        file = self.dir / "prompt.txt"
        file.write_bytes(b"abc\xff")
        self.refused(bt.USAGE, "-p", "x", "-f", file, needles=["either --prompt or --file"])
        self.refused(bt.BAD_INPUT, "-f", file, needles=["UTF-8", "offset 3"])
        with file.open() as stdin:
            self.refused(bt.BAD_INPUT, stdin=stdin, needles=["UTF-8", "offset 3"])
        self.refused(bt.BAD_INPUT, "-f", self.dir / "none", needles=["none: cannot open"])
        self.refused(bt.BAD_INPUT, "-f", self.dir, needles=["cannot be read"])
        self.refused(bt.BAD_INPUT, "-p", "", needles=["the prompt is empty"])
        self.refused(bt.BAD_INPUT, input="", needles=["the prompt is empty"])
        terminal, other = pty.openpty()
        with os.fdopen(terminal), os.fdopen(other) as stdin:
            self.refused(bt.USAGE, stdin=stdin, needles=["expected a prompt", "--prompt TEXT"])
            self.refused(bt.USAGE, "--chat", "--json", self.dir / "x", stdin=stdin,
                         needles=["--json"])

    def test_newest_result(self):
        self.fails(bt.USAGE, "generate", "-p", "x", needles=["--model DIR"])
        self.billm("quantize", "--model", self.model, "--method", "rtn", "--calib",
                   self.calibration(), "--quiet")
        result = self.billm("generate", "-p", PROMPT, "-n", 3)
        self.assertIn("newest result: ", result.stderr)

    # --- output -----------------------------------------------------------------------------------

    def test_text_figures_and_report(self):
        path = self.dir / "report.json"
        result = self.billm("generate", "-m", self.model, "-p", PROMPT, "-n", 30, "--json", path)
        report = json.loads(path.read_text())
        self.assertEqual(result.stdout, report["text"] + "\n")
        for word in ("prompt ", "generated ", "30 tokens (length)", "tokens/s", "load ",
                     "peak memory"):
            self.assertIn(word, result.stderr)
        self.assertEqual(report["finish"], "length")
        self.assertEqual(report["prefill"]["tokens"], len(report["prompt_ids"]))
        self.assertEqual(report["decode"]["tokens"], 29)
        self.assertGreater(report["decode"]["tokens_per_second"], 0)
        self.assertGreater(report["peak_rss_bytes"], 10 << 20)
        self.assertEqual(report["settings"]["temperature"], 0)
        quiet = self.billm("generate", "-m", self.model, "-p", PROMPT, "-n", 30, "--quiet")
        self.assertEqual((quiet.stdout, quiet.stderr), (result.stdout, ""))
        decoded = self.billm("tokenize", "-m", self.model, "--decode", "--no-special",
                             " ".join(map(str, report["ids"]))).stdout
        self.assertEqual(decoded, result.stdout)

    def test_bytes_that_are_no_text(self):
        # A random model speaks random bytes: what it says is UTF-8 nevertheless.
        command = [bt.binary(), "generate", "--model", self.model, "-p", "x", "-n", "200", "--temp",
                   "5", "--top-k", "0", "--quiet", "--json", self.dir / "report"]
        out = subprocess.run(list(map(str, command)), env=self.environment(), capture_output=True,
                             timeout=60, check=True).stdout.decode("utf-8")
        self.assertEqual(out, json.loads((self.dir / "report").read_text())["text"] + "\n")
        self.assertIn("\ufffd", out)

    def test_reader_that_stops(self):
        # The text is 100,000 tokens long if nothing stops it.
        self.say("config.json", max_position_embeddings=1 << 20)
        process = self.start("generate", "-m", self.model, "-p", PROMPT, "-n", 100000, "--quiet")
        process.stdout.read(5)
        process.stdout.close()
        self.assertEqual(process.wait(60), 0, process.stderr.read())
        process.stderr.close()

    def test_unwritable_stdout(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "w") as full:
            result = subprocess.run([bt.binary(), "generate", "-m", self.model, "-p", PROMPT],
                                    stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
                                    env=self.environment())
        self.assertEqual(result.returncode, bt.FAILURE)
        self.assertIn("error: standard output: cannot write: No space", result.stderr)

    # --- what ends a text -------------------------------------------------------------------------

    def test_end_tokens(self):
        ids = self.generate("-p", PROMPT, "-n", 20)["ids"]
        end = next(i for i in range(3, 20) if ids[i] not in ids[:i])
        for name, value in (("config.json", ids[end]), ("config.json", [299, ids[end]]),
                            ("generation_config.json", ids[end]),
                            ("generation_config.json", [ids[end], 299])):
            self.say("config.json", eos_token_id=None)
            self.say("generation_config.json", eos_token_id=None)
            self.say(name, eos_token_id=value)
            report = self.generate("-p", PROMPT, "-n", 20)
            self.assertEqual((report["ids"], report["finish"]), (ids[:end + 1], "eos"))
            report = self.generate("-p", PROMPT, "-n", 20, "--ignore-eos")
            self.assertEqual((report["ids"], report["finish"]), (ids, "length"))
        # config.json counts only where generation_config.json is silent.
        self.say("config.json", eos_token_id=ids[0])
        self.assertEqual(self.generate("-p", PROMPT, "-n", 20)["ids"], ids[:end + 1])

    def test_stop_texts(self):
        arguments = ("-p", PROMPT, "-n", 60, "--temp", 3, "--top-k", 0)  # many different words
        whole = self.generate(*arguments)["text"]
        at = next(i for i in range(8, len(whole) - 3)
                  if whole.find(whole[i:i + 3]) == i and whole[i:i + 3].isprintable())
        report = self.generate(*arguments, "--stop", "never this", "--stop", whole[at:at + 3])
        self.assertEqual((report["text"], report["finish"]), (whole[:at], "stop"))
        self.assertLess(len(report["ids"]), 60)
        # The beginning of a stop text that does not go on is text.
        begun = next(c for c in reversed(whole) if c.isprintable())
        report = self.generate(*arguments, "--stop", begun + "nothing more")
        self.assertEqual((report["text"], report["finish"]), (whole, "length"))
        self.refused(bt.USAGE, "-p", "x", "--stop", "", needles=["--stop"])
        self.refused(bt.USAGE, "-p", "x", "--stop", b"\xff".decode(errors="surrogateescape"),
                     needles=["--stop"])

    def test_context(self):
        used = len(self.generate("-p", PROMPT, "-n", 1)["prompt_ids"])
        report = self.generate("-p", PROMPT, "-n", -1, "-c", used + 9)
        self.assertEqual((len(report["ids"]), report["finish"]), (10, "context"))
        report = self.generate("-p", PROMPT, "-n", 100, "-c", used + 9)
        self.assertEqual(report["finish"], "context")
        self.assertEqual(self.generate("-p", PROMPT, "-n", -1)["settings"]["context"], 256)
        text = f"the prompt has {used} tokens: expected fewer than the context of {used}"
        self.refused(bt.BAD_INPUT, "-p", PROMPT, "-c", used, needles=[text, "--ctx-size"])
        self.refused(bt.BAD_INPUT, "-p", "xyz " * 100, needles=["the context of 256"])
        # 512 bytes a token.
        self.refused(bt.FAILURE, "-p", "x", "-c", (1 << 31) - 1,
                     needles=["keys and values would take 1099.5 GB, ", " of memory are free",
                              "make --ctx-size smaller"])

    # --- sampling ---------------------------------------------------------------------------------

    def test_sampling_flags(self):
        def ids(*arguments):
            return self.generate("-p", PROMPT, "-n", 12, *arguments)["ids"]

        greedy = ids()
        for same in (("--greedy",), ("--temp", 0), ("--top-k", 1), ("--top-p", 0),
                     ("--temperature", 2, "--top-k", 1), ("--temp", 3, "--min-p", 1),
                     ("--temp", 3, "--greedy"), ("--repeat-penalty", 1)):
            self.assertEqual(ids(*same), greedy, same)
        sampled = ids("--temp", 3, "--seed", 4)
        self.assertNotEqual(sampled, greedy)
        self.assertEqual(ids("--temp", 3, "-s", 4, "--threads", 1), sampled)
        self.assertNotEqual(ids("--temp", 3, "--seed", 5), sampled)
        penalized = ids("--repetition-penalty", 50)
        self.assertEqual(len(set(penalized)), 12)
        self.assertEqual(ids("--repeat-penalty", 50), penalized)

    def test_generation_config(self):
        def settings(*arguments):
            got = self.generate("-p", PROMPT, "-n", 1, *arguments)["settings"]
            return tuple(got[key] for key in ("temperature", "top_k", "top_p", "min_p",
                                              "repetition_penalty"))

        self.assertEqual(settings(), (0, 50, 1, 0, 1))
        self.assertEqual(settings("--top-p", 0.5), (1, 50, 0.5, 0, 1))
        self.say("generation_config.json", temperature=0.6, top_p=0.9, top_k=20, min_p=None,
                 repetition_penalty=1.05)
        self.assertEqual(settings(), (0, 20, 0.9, 0, 1.05))  # do_sample is false by default
        self.assertEqual(settings("--min-p", 0.1), (0.6, 20, 0.9, 0.1, 1.05))
        self.say("generation_config.json", do_sample=True)
        self.assertEqual(settings(), (0.6, 20, 0.9, 0, 1.05))
        self.assertEqual(settings("--temp", 0.2, "--top-k", 0), (0.2, 0, 0.9, 0, 1.05))
        self.assertEqual(settings("--greedy")[0], 0)
        (self.model / "generation_config.json").write_text('{"top_k": 7.0}')
        self.assertEqual(settings()[1], 7)
        for changes in ({"do_sample": 1}, {"temperature": "hot"}, {"top_k": -1}, {"top_k": 1e30},
                        {"top_k": 50.5}, {"top_k": "50"},
                        {"eos_token_id": "x"}, {"eos_token_id": [[1]]}):
            (self.model / "generation_config.json").write_text(json.dumps(changes))
            self.refused(bt.BAD_INPUT, "-p", "x",
                         needles=["generation_config.json: " + next(iter(changes))])
        (self.model / "generation_config.json").write_text("[")
        self.refused(bt.BAD_INPUT, "-p", "x", needles=["generation_config.json"])

    def test_numbers_out_of_range(self):
        for flag, value in (("--temp", "-1"), ("--temp", "nan"), ("--top-k", "-1"),
                            ("--top-p", "1.5"), ("--top-p", "nan"), ("--min-p", "-0.1"),
                            ("--repeat-penalty", "0"), ("--repeat-penalty", "inf"), ("-n", "-2"),
                            ("-n", "0"), ("-n", "x"), ("-c", "0"), ("-c", "9" * 30),
                            ("--seed", "-1"), ("--device", "tpu"), ("--run-head-bits", "4")):
            with self.subTest(flag=flag, value=value):
                self.refused(bt.USAGE, "-p", "x", flag, value)

    # --- chats ------------------------------------------------------------------------------------

    def test_chat_once(self):
        self.give_template()
        report = self.generate("--chat", "--system", "be", "-p", "hi\n", "-n", 5)
        self.assertEqual(report["chat_template"], "chatml")
        shown = self.billm("tokenize", "-m", self.model, "--decode",
                           " ".join(map(str, report["prompt_ids"]))).stdout
        self.assertEqual(shown, "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\nhi\n<|im_end|>"
                                "\n<|im_start|>assistant\n\n")
        # The end of a message ends an answer, whatever the model's files say of it.
        self.assertEqual(report["settings"]["end_ids"], [299])
        self.assertEqual(self.generate("--chat", "-n", 2, input="hi\n")["prompt_ids"],
                         self.generate("--chat", "-n", 2, "-p", "hi")["prompt_ids"])

    def test_chat_refused(self):
        self.refused(bt.BAD_INPUT, "--chat", "-p", "x", needles=["expected a chat template"])
        self.refused(bt.USAGE, "--system", "x", "-p", "x", needles=["--system", "--chat"])
        self.give_template("{{ messages[0].content }}")
        self.refused(bt.BAD_INPUT, "--chat", "-p", "x",
                     needles=["tokenizer_config.json: chat_template", "chatml", "leave out --chat"])

    def converse(self, lines, *arguments):
        """What a terminal shows: (stdout, stderr)."""
        terminal, other = pty.openpty()
        with os.fdopen(other) as stdin:
            process = subprocess.Popen(
                [bt.binary(), "generate", "-m", str(self.model), "--chat", *map(str, arguments)],
                stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=self.environment())
        os.write(terminal, lines.encode())
        out, errors = process.communicate(timeout=60)
        os.close(terminal)
        self.assertEqual(process.returncode, 0, errors)
        return out.decode(), errors.decode()

    def test_conversation(self):
        self.give_template()
        self.say("config.json", max_position_embeddings=4096)
        # What it has computed of the first message is kept.
        out, errors = self.converse("hello\n\nmore\n/bye\n", "-n", 6)
        self.assertEqual(errors.count("generated "), 2)
        first = self.generate("--chat", "-p", "hello", "-n", 6)
        self.assertTrue(out.startswith("> " + first["text"] + "\n> "), out)
        # The second answer, computed in one go.
        history = ("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n" + first["text"] +
                   "<|im_end|>\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n")
        second = self.generate("-p", history, "-n", 6)
        self.assertEqual(out, f"> {first['text']}\n> > {second['text']}\n> \n")
        computed = [int(line.split()[1]) for line in errors.splitlines()
                    if line.startswith("prompt ")]
        self.assertEqual(computed[0], len(first["prompt_ids"]))
        self.assertLessEqual(computed[1], len(second["prompt_ids"]) - computed[0])
        # Ctrl-D ends it, too.
        self.assertEqual(self.converse("\x04", "--quiet"), ("> \n", ""))


if __name__ == "__main__":
    bt.main()
