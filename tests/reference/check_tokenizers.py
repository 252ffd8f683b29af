#!/usr/bin/env python3
"""Compares the tokens of `weft prepare` with the package tokenizers on texts, or makes the fixture of the tests.

Needs the package tokenizers. Trains byte-level BPE with the expressions of GPT-2, Llama 3 and Qwen 2 on the given files, has
the built program encode them and random Unicode text, and compares every token; and times both:

    python3 tests/reference/check_tokenizers.py --weft build/release/weft FILE...
    python3 tests/reference/check_tokenizers.py --fixture tests/reference/data FILE...
"""

import argparse
import array
import json
import pathlib
import random
import subprocess
import tempfile
import time

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "gpt2": None,
    "llama3": rf"(?i:{CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}" + TAIL,
    "qwen2": rf"(?i:{CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}" + TAIL,
}
ODD = " \t\n\r\v\f\u0085\u00a0\u2003\u2028\u3000\u200b'sStTdDmMlLvVrReE\u017f09\u0663\u00b2\u216b\u4e00\u3042\uac00é\u0301ß"
ODD += "\U0001f600\U0001f468\u200d\U0001f469\U0001f3fd.,;-_<|>\x00\x7f\ufeff\ue000\U00020000\U0010ffff"


def train(name, texts, vocab):
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    if PATTERNS[name]:
        split = pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|end|>"])
    tokenizer.add_tokens([AddedToken("<|en", normalized=True)])
    return tokenizer


def odd_texts(count, length):
    generator = random.Random(1)
    for _ in range(count):
        characters = []
        for _ in range(generator.randrange(1, length)):
            kind = generator.random()
            if kind < 0.7:
                characters.append(generator.choice(ODD))
            elif kind < 0.73:
                characters.append(generator.choice(["<|endoftext|>", "<|end|>", "<|en", "'ll", "'RE", "   \n\n  "]))
            else:
                code = generator.randrange(0x110000)
                characters.append("x" if 0xD800 <= code < 0xE000 else chr(code))
        yield "".join(characters)


def weft_tokens(weft, file, text, folder):
    source, out = folder / "text", folder / "out"
    source.write_bytes(text.encode())
    words = [weft, "prepare", "--tokenizer-file", file, "--valid-fraction", "0", "--replace", "--quiet", "--out", out, source]
    begin = time.perf_counter()
    subprocess.run([str(word) for word in words], check=True)
    seconds = time.perf_counter() - begin
    kind = json.loads((out / "train.meta.json").read_text())["format"]
    return array.array({"u16": "H", "u32": "I"}[kind], (out / "train.bin").read_bytes()[header(out) :]), seconds


def header(out):
    meta = json.loads((out / "train.meta.json").read_text())
    return (out / "train.bin").stat().st_size - meta["tokens"] * {"u16": 2, "u32": 4}[meta["format"]]


def check(options, name, tokenizer, texts, folder):
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    for pairs in (True, False):
        content = json.loads(file.read_text())
        content["model"]["merges"] = [m if pairs else " ".join(m) for m in content["model"]["merges"]]
        file.write_text(json.dumps(content))
        for text in [*texts, "\x01".join(odd_texts(3000, 40))]:
            begin = time.perf_counter()
            expected = tokenizer.encode(text, add_special_tokens=False).ids
            theirs = time.perf_counter() - begin
            found, own = weft_tokens(options.weft, file, text, folder)
            same = list(found) == expected
            if not same:
                at = next(i for i, (a, b) in enumerate(zip(found, expected)) if a != b)
                print(f"  at {at}: {list(found[at - 3 : at + 5])}, expected {expected[at - 3 : at + 5]}")
                print("  " + repr(tokenizer.decode(expected[max(0, at - 5) : at + 5], skip_special_tokens=False)))
            size = len(text.encode()) / 1e6
            print(f"{name}: {size:.2f} MB, {len(expected)} tokens, {'equal' if same else 'DIFFERENT'}; "
                  f"MB/s: {size / own:.1f}, the package {size / theirs:.1f}")
            if not same:
                raise SystemExit(1)


def write_fixture(folder, texts):
    for name in ("gpt2", "llama3"):
        tokenizer = train(name, [*(text[:100000] for text in texts), *odd_texts(4000, 24)], 700)
        cases = [*odd_texts(60, 24), "It's a  test: 12345 words.\n\n  They'LL see\u017f \u4e16\u754c \U0001f600!\r\n\tEnd  "]
        tokenizer.save(str(folder / f"tokenizer-{name}.json"), pretty=False)
        rows = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in cases]
        (folder / f"tokenizer-{name}-cases.json").write_text("[" + ",\n".join(json.dumps(row) for row in rows) + "]\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weft", type=pathlib.Path)
    parser.add_argument("--fixture", type=pathlib.Path)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    texts = [path.read_bytes().decode(errors="replace") for path in options.files]
    if options.fixture:
        write_fixture(options.fixture, texts)
    if options.weft:
        with tempfile.TemporaryDirectory() as folder:
            for name in PATTERNS:
                check(options, name, train(name, texts, 8000), texts, pathlib.Path(folder))


if __name__ == "__main__":
    main()
