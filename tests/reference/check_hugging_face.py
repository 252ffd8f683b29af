#!/usr/bin/env python3
"""Holds `weft import` and `weft export` against Hugging Face's classes: parameters, logits, loss and tokens.

Small GPT-2 and Llama models with random parameters are saved by the package transformers in f32, f16, bf16 and shards,
imported, evaluated on text, exported, and loaded again; models that Weft trained are exported and loaded. Needs torch and
transformers; tests/end_to_end/{import,export}_test.cpp check what can be checked without. It prints one line a model and
ends with status 1 if one of them is wrong:

    python3 tests/reference/check_hugging_face.py build/release/weft
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

TOKENIZER = pathlib.Path(__file__).parent / "data" / "tokenizer-gpt2.json"
SEQ = 48  # tokens of a window, fewer than the models have positions for
TOLERANCE = 1e-5  # of the logits by norm, and of the loss
TEXT = "".join(f"It's größer than {i * i}, said the weaver;\n\n\tshe'd {i} threads.\n" for i in range(40))


def models(vocab):
    """Name, configuration and class of each kind of model."""
    gpt2 = dict(vocab_size=vocab, n_positions=64, n_embd=48, n_layer=2, n_head=3, bos_token_id=None, eos_token_id=None)
    llama = dict(
        vocab_size=vocab,
        max_position_embeddings=64,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=6,
        intermediate_size=80,
        bos_token_id=None,
        eos_token_id=None,
    )
    yield "gpt2", GPT2Config(**gpt2), GPT2LMHeadModel
    yield "gpt2 untied", GPT2Config(**gpt2, n_inner=100, tie_word_embeddings=False), GPT2LMHeadModel
    yield "llama", LlamaConfig(**llama), LlamaForCausalLM
    grouped = LlamaConfig(**llama, num_key_value_heads=2, rms_norm_eps=1e-5)
    grouped.rope_parameters = {"rope_type": "default", "rope_theta": 500000.0}
    yield "llama grouped", grouped, LlamaForCausalLM
    yield "llama tied", LlamaConfig(**llama, num_key_value_heads=1, tie_word_embeddings=True), LlamaForCausalLM


def random_model(config, kind):
    """Parameters far from those of a fresh model: norms and biases too, and logits of a few units."""
    torch.manual_seed(7)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 0.2))
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name and name.endswith("weight"):
                parameter += 1
    return model


def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    wrong = {kind: names for kind, names in info.items() if names}
    if wrong:
        raise SystemExit(f"{folder}: {wrong}")
    return model.eval()


class Weft:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.text = folder / "text.txt"
        self.text.write_text(TEXT)

    def run(self, *words):
        done = subprocess.run([self.program, *map(str, words)], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"weft {' '.join(map(str, words))}: status {done.returncode}\n{done.stderr}")
        return done.stdout

    def evaluate(self, run, *more):
        """Its row and the tensors of --logits."""
        file = self.folder / "logits.safetensors"
        file.unlink(missing_ok=True)
        words = ["eval", "--checkpoint", run, "--data", self.text, "--seq", SEQ, "--dtype", "f32", "--json"]
        row = json.loads(self.run(*words, "--logits", file, *more))
        return row, load_file(file)


def difference(model, row, written):
    """Of Weft's logits (relative, by norm) and of its loss from those of `model` in float64."""
    tokens, targets = written["tokens"].long(), written["targets"].long()
    with torch.no_grad():
        logits = model.double()(input_ids=tokens).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1).item()
    kept = targets >= 0
    apart = (written["logits"].double() - logits)[kept].norm() / logits[kept].norm()
    return apart.item(), abs(row["loss"] - loss) / loss


def same_parameters(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_tokens(folder, written):
    """Whether the folder's tokenizer, as AutoTokenizer has it, gives the tokens that Weft evaluated."""
    tokens = torch.tensor(AutoTokenizer.from_pretrained(folder)(TEXT, add_special_tokens=False)["input_ids"])
    own = torch.cat([written["tokens"].flatten()[:1], written["targets"].flatten()])
    return torch.equal(tokens, own[own >= 0].long())


def check_import(weft, config, kind, storage):
    theirs, run, back = (weft.folder / name for name in ("theirs", "run", "back"))
    model = random_model(config, kind)
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}.get(storage, torch.float32)
    model.to(dtype).save_pretrained(theirs, max_shard_size="40KB" if storage == "shards" else "50GB")
    if (storage == "shards") != (theirs / "model.safetensors.index.json").exists():
        raise SystemExit(f"{theirs}: not saved as {storage}")
    (theirs / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    weft.run("import", theirs, "--out", run)
    row, written = weft.evaluate(run)
    weft.run("export", run, "--out", back, "--dtype", "bf16" if storage == "bf16" else "f32")
    # Loaded from their file: the values as they were rounded when it was saved.
    reference = load(theirs)
    same = {
        "parameters": same_parameters(reference, load(back)),
        "tokenizer": (back / "tokenizer.json").read_bytes() == TOKENIZER.read_bytes() and same_tokens(back, written),
    }
    return *difference(reference, row, written), same


def check_export(weft, name, options):
    run, out = weft.folder / "run", weft.folder / "out"
    words = ["train", "--data", weft.text, "--out", run, "--model", name, "--layers", 2, "--d-model", 48, "--heads", 6]
    weft.run(*words, "--seq", 64, "--batch", 4, "--steps", 20, "--lr", 0.01, "--dtype", "f32", "--quiet", *options)
    row, written = weft.evaluate(run)
    weft.run("export", run, "--out", out)
    return *difference(load(out), row, written), {"tokenizer": same_tokens(out, written)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weft", help="the built program")
    transformers.utils.logging.disable_progress_bar()
    weft_path = str(pathlib.Path(parser.parse_args().weft).resolve())
    vocab = len(json.loads(TOKENIZER.read_text())["model"]["vocab"]) + 8  # added tokens stand behind
    failed = 0

    def report(name, logits, loss, same):
        wrong = [what for what, right in same.items() if not right]
        right = logits < TOLERANCE and loss < TOLERANCE and not wrong
        print(f"{'ok   ' if right else 'WRONG'} {name:32} logits {logits:.1e}, loss {loss:.1e}", *wrong, sep="  ")
        return 0 if right else 1

    for name, config, kind in models(vocab):
        for storage in ("f32", "f16", "bf16", "shards"):
            with tempfile.TemporaryDirectory() as folder:
                result = check_import(Weft(weft_path, pathlib.Path(folder)), config, kind, storage)
            failed += report(f"{name}, {storage}", *result)
    for name, options in (
        ("gpt2", []),
        ("gpt2", ["--tied", "no"]),
        ("llama", ["--kv-heads", 2, "--rotary-theta", 300, "--norm-eps", 1e-3]),
    ):
        with tempfile.TemporaryDirectory() as folder:
            result = check_export(Weft(weft_path, pathlib.Path(folder)), name, options)
        failed += report(f"trained {name} {' '.join(map(str, options))}", *result)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
