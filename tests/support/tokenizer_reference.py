"""Ids and texts from the `tokenizers` library, to compare billm's with.

encode TOKENIZER.json IN OUT [TOKENIZER.json IN OUT ...]
    IN: uint32 count, then count times (uint32 length, UTF-8 bytes).
    OUT: for each text: ids without special tokens, ids with them, text of the former, text of the
    latter without special tokens; each as uint32 length in items, then int32 ids or bytes.
gpt2 VOCAB.json MERGES.txt TOKENIZER.json
    GPT-2's two files as one tokenizer.json.
"""

import struct
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers


def encode(tokenizer_path, in_path, out_path):
    tokenizer = Tokenizer.from_file(tokenizer_path)
    with open(in_path, "rb") as file:
        data = file.read()
    (count,) = struct.unpack_from("<I", data)
    position = 4
    with open(out_path, "wb") as out:
        for _ in range(count):
            (size,) = struct.unpack_from("<I", data, position)
            text = data[position + 4 : position + 4 + size].decode()
            position += 4 + size
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            special = plain
            if tokenizer.post_processor is not None:
                special = tokenizer.encode(text, add_special_tokens=True).ids
            for ids in (plain, special):
                out.write(struct.pack(f"<I{len(ids)}i", len(ids), *ids))
            for ids, skip in ((plain, False), (special, True)):
                decoded = tokenizer.decode(ids, skip_special_tokens=skip).encode()
                out.write(struct.pack("<I", len(decoded)) + decoded)


def gpt2(vocab, merges, path):
    tokenizer = Tokenizer(models.BPE.from_file(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False, special=True)])
    tokenizer.save(path)


def main():
    command, *arguments = sys.argv[1:]
    if command == "gpt2":
        gpt2(*arguments)
    else:
        for i in range(0, len(arguments), 3):
            encode(*arguments[i : i + 3])


if __name__ == "__main__":
    main()
