#!/usr/bin/env python3
"""Makes the PyTorch reference file that the recurrent operations are compared with.

Needs Python 3 with torch, numpy and safetensors; the tests themselves only read the file.

    python3 tests/reference/make_recurrent.py            # writes tests/reference/data/recurrent.safetensors
    python3 tests/reference/make_recurrent.py --check    # recomputes and compares with the file there

torch.nn.RNN (tanh), LSTM and GRU of one layer, batch first, in float64, stored as float32. B batch, T steps, D inputs, H
units, G gates in PyTorch's order. Contents, each name behind `elman.`, `lstm.` or `gru.`:

  x [B,T,D]   input.weight [GH,D]   input.bias [GH]   hidden.weight [GH,H]   hidden.bias [H] (gru: of the new gate)
  h_first, c_first [B,H] (c: lstm)
  y [B,T,H]   h_last, c_last [B,H]
  cotangent.y|h_last|c_last        the gradients are of the sum of the outputs times these
  grad.<each of the inputs above>

PyTorch has a second bias for every gate; all but the GRU's new gate's are zero here, where they would only add to the first.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

BATCH, STEPS, INPUTS, HIDDEN = 3, 11, 13, 21
FILE = pathlib.Path(__file__).parent / "data" / "recurrent.safetensors"
LAYERS = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def stored(values):
    """Random values that float32 holds, so that the file says what was computed."""
    return torch.from_numpy(values.astype(np.float32)).double()


def layer_tensors(name, rng):
    layer = LAYERS[name](INPUTS, HIDDEN, batch_first=True).double()
    gates = layer.weight_hh_l0.shape[0] // HIDDEN

    def normal(*shape, scale=1.0):
        return stored(scale * rng.standard_normal(shape))

    inputs = {"x": normal(BATCH, STEPS, INPUTS), "h_first": normal(BATCH, HIDDEN)}
    if name == "lstm":
        inputs["c_first"] = normal(BATCH, HIDDEN)
    parameters = {"input.weight": layer.weight_ih_l0, "input.bias": layer.bias_ih_l0,
                  "hidden.weight": layer.weight_hh_l0}
    with torch.no_grad():
        layer.weight_ih_l0.copy_(normal(gates * HIDDEN, INPUTS, scale=INPUTS ** -0.5))
        layer.bias_ih_l0.copy_(normal(gates * HIDDEN, scale=0.5))
        layer.weight_hh_l0.copy_(normal(gates * HIDDEN, HIDDEN, scale=1.5 * HIDDEN ** -0.5))
        layer.bias_hh_l0.zero_()
        if name == "gru":
            layer.bias_hh_l0[2 * HIDDEN:] = normal(HIDDEN, scale=0.5)
    for value in inputs.values():
        value.requires_grad_()
    states = [inputs[key][None] for key in ("h_first", "c_first") if key in inputs]
    y, last = layer(inputs["x"], tuple(states) if name == "lstm" else states[0])
    outputs = {"y": y, "h_last": (last[0] if name == "lstm" else last)[0]}
    if name == "lstm":
        outputs["c_last"] = last[1][0]
    cotangents = {key: normal(*value.shape) for key, value in outputs.items()}
    sum((outputs[key] * cotangents[key]).sum() for key in outputs).backward()

    tensors = {**inputs, **parameters, **outputs, **{f"cotangent.{k}": v for k, v in cotangents.items()}}
    gradients = {f"grad.{k}": v.grad for k, v in {**inputs, **parameters}.items()}
    if name == "gru":
        tensors["hidden.bias"] = layer.bias_hh_l0[2 * HIDDEN:]
        gradients["grad.hidden.bias"] = layer.bias_hh_l0.grad[2 * HIDDEN:]
    return {f"{name}.{k}": v.detach().numpy().astype(np.float32).copy() for k, v in {**tensors, **gradients}.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    options = parser.parse_args()
    rng = np.random.default_rng(20)
    made = {}
    for name in LAYERS:
        made.update(layer_tensors(name, rng))
    if not options.check:
        save_file(made, FILE)
        print(f"{FILE}: {FILE.stat().st_size} bytes, torch {torch.__version__}")
        return 0
    found = load_file(FILE)
    if found.keys() != made.keys():
        print(f"{FILE} has other tensors: {sorted(found.keys() ^ made.keys())}")
        return 1
    worst = max(float(np.abs(found[k] - made[k]).max() / np.abs(made[k]).max()) for k in made)
    print(f"largest difference {worst:.1e} of a tensor's largest element")
    return 0 if worst < 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
