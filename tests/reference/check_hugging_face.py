#!/usr/bin/env python3
"""Loads folders that `weft export` wrote into Hugging Face's classes and prints the mean loss over a file of bytes.

Needs torch and transformers. The figure is that of

    weft eval --checkpoint RUN --data FILE --seq SEQ

for the checkpoint that was exported (a model of bytes):

    python3 tests/reference/check_hugging_face.py --data FILE --seq SEQ FOLDER...
"""

import argparse
import pathlib

import torch
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--seq", type=int, required=True)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    options = parser.parse_args()
    data = torch.frombuffer(bytearray(options.data.read_bytes()), dtype=torch.uint8).long()
    for folder in options.folders:
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
        wrong = {kind: sorted(names) for kind, names in info.items() if names}
        if wrong:
            raise SystemExit(f"{folder}: {wrong}")
        total = count = 0
        for begin in range(0, len(data) - 1, options.seq):
            targets = data[begin + 1 : begin + 1 + options.seq]
            with torch.no_grad():
                logits = model.eval()(input_ids=data[None, begin : begin + len(targets)]).logits[0]
            total += torch.nn.functional.cross_entropy(logits.double(), targets, reduction="sum").item()
            count += len(targets)
        print(f"{folder}: {type(model).__name__}, loss {total / count:.9f} over {count} targets")


if __name__ == "__main__":
    main()
