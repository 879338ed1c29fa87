"""Ids and texts from HuggingFace's libraries, to compare billm's with.

compare LONG SOURCE IN OUT [SOURCE IN OUT ...]
    LONG: a text of more bytes is encoded once only, with special tokens.
    SOURCE: a tokenizer.json, for the `tokenizers` library, or CLASS:FOLDER, for that class of
    transformers.
    IN: uint32 count, then count times (uint32 length, UTF-8 bytes); the same of int32 ids.
    OUT: for each text: ids without special tokens and their text (not of long texts), ids with them
    and the text of these without special tokens; for each list of ids: text, text without special tokens; each as
    uint32 length in items, then int32 ids or bytes.
convert FOLDER OUT_FOLDER [FOLDER OUT_FOLDER ...]
    A tokenizer.model as tokenizer.json, by transformers' LlamaTokenizer.
"""

import struct
import sys

from tokenizers import Tokenizer


class Library:
    def __init__(self, path):
        self.tokenizer = Tokenizer.from_file(path)

    def encode(self, text, special):
        return self.tokenizer.encode(text, add_special_tokens=special).ids

    def decode(self, ids, skip):
        return self.tokenizer.decode(ids, skip_special_tokens=skip)


class Transformers:
    def __init__(self, class_name, folder):
        import transformers

        self.tokenizer = getattr(transformers, class_name).from_pretrained(folder)

    def encode(self, text, special):
        return self.tokenizer.encode(text, add_special_tokens=special)

    def decode(self, ids, skip):
        return self.tokenizer.decode(ids, skip_special_tokens=skip)


class Input:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.position = 0

    def take(self, width):
        (count,) = struct.unpack_from("<I", self.data, self.position)
        start = self.position + 4
        self.position = start + count * width
        return self.data[start : self.position]

    def number(self):
        (value,) = struct.unpack_from("<I", self.data, self.position)
        self.position += 4
        return value


def compare(long, source, in_path, out_path):
    reference = Transformers(*source.split(":", 1)) if ":" in source else Library(source)
    data = Input(in_path)
    with open(out_path, "wb") as out:

        def write_text(text):
            out.write(struct.pack("<I", len(text.encode())) + text.encode())

        for _ in range(data.number()):
            raw = data.take(1)
            text = raw.decode()
            for special in (False, True) if len(raw) <= long else (True,):
                ids = reference.encode(text, special)
                out.write(struct.pack(f"<I{len(ids)}i", len(ids), *ids))
                write_text(reference.decode(ids, special))
        for _ in range(data.number()):
            raw = data.take(4)
            ids = list(struct.unpack(f"<{len(raw) // 4}i", raw))
            for skip in (False, True):
                write_text(reference.decode(ids, skip))


def convert(folder, out_folder):
    from transformers import LlamaTokenizer

    LlamaTokenizer.from_pretrained(folder).save_pretrained(out_folder)


def main():
    command, *arguments = sys.argv[1:]
    if command == "convert":
        for i in range(0, len(arguments), 2):
            convert(*arguments[i : i + 2])
    else:
        for i in range(1, len(arguments), 3):
            compare(int(arguments[0]), *arguments[i : i + 3])


if __name__ == "__main__":
    main()
