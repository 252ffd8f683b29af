#!/usr/bin/env python3
"""Makes tests/reference/data/sru.safetensors from the public `sru` package (2.6), which sru_test reads.

Needs Python 3 with torch, sru, numpy and safetensors; the test itself only reads the file.

    python3 tests/reference/make_sru_reference.py            # writes the file
    python3 tests/reference/make_sru_reference.py --check    # recomputes and compares with the file there

Each case is one SRUCell over B = 2 sequences of T = 37 tokens, computed in float64 and stored as float32:

  plain           12 wide, highway bias -1, input of the highway rescaled
  tanh            the same with tanh on the state
  four            10 in, 14 wide: the fourth matrix, and a linear layer 14 -> 10 behind it
  bidirectional   12 in, 6 each way
  affine          no state in the gates (the package's v1)

Names are `<case>.<what>`: parameters as Weft names and lays them out (in.weight [k*W, D], rows gate by gate; v_f, v_r, b_f,
b_r [W]; out.weight, out.bias), x and cotangent [B, T, D], y, and grad.<parameter>, grad.x of sum(cotangent * y).
"""

import argparse
import pathlib
import sys
import warnings

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from sru import SRUCell

BATCH, STEPS = 2, 37
FILE = pathlib.Path(__file__).parent / "data" / "sru.safetensors"

CASES = {
    "plain": dict(inputs=12, hidden=12, cell=dict(highway_bias=-1.0, rescale=True)),
    "tanh": dict(inputs=12, hidden=12, cell=dict(highway_bias=-1.0, rescale=True, use_tanh=True)),
    "four": dict(inputs=10, hidden=14, cell=dict(rescale=False)),
    "bidirectional": dict(inputs=12, hidden=6, cell=dict(bidirectional=True, rescale=False)),
    "affine": dict(inputs=12, hidden=12, cell=dict(v1=True, rescale=False)),
}


def gate_rows(weight_dk, width):
    """The package's columns go unit by unit, the gates of a unit beside each other; Weft's rows gate by gate."""
    d = weight_dk.shape[0]
    return weight_dk.reshape(d, width, -1).permute(2, 1, 0).reshape(-1, d)


def compute(name, inputs, hidden, cell):
    cell = SRUCell(inputs, hidden, **cell).double()
    width = cell.output_size
    out = torch.nn.Linear(width, inputs).double() if width != inputs else None
    with torch.no_grad():
        cell.bias.add_(torch.randn_like(cell.bias) * 0.3)
    # The package keeps its scale in float32.
    cell.scale_x = torch.tensor([(1 + 2 * np.exp(cell.highway_bias)) ** 0.5 if cell.rescale else 1.0], dtype=torch.float64)
    for parameter in [*cell.parameters(), *(out.parameters() if out else [])]:
        parameter.data = parameter.data.float().double()
    x = torch.randn(BATCH, STEPS, inputs).double().requires_grad_()
    cotangent = torch.randn(BATCH, STEPS, inputs).double()
    h, _ = cell(x.transpose(0, 1))
    y = h.transpose(0, 1)
    if out:
        y = out(y)
    (y * cotangent).sum().backward()

    result = {"x": x, "cotangent": cotangent, "y": y, "grad.x": x.grad}
    parameters = {"in.weight": (cell.weight, lambda w: gate_rows(w, width))}
    for i, gate in enumerate("fr"):
        half = slice(i * width, (i + 1) * width)
        parameters["b_" + gate] = (cell.bias, lambda b, half=half: b[half])
        if not cell.v1:
            parameters["v_" + gate] = (cell.weight_c, lambda v, half=half: v[half])
    if out:
        parameters["out.weight"] = (out.weight, lambda w: w)
        parameters["out.bias"] = (out.bias, lambda b: b)
    for key, (tensor, take) in parameters.items():
        result[key] = take(tensor.detach())
        result["grad." + key] = take(tensor.grad)
    return {f"{name}.{key}": np.ascontiguousarray(value.detach().numpy().astype(np.float32))
            for key, value in result.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="recompute and compare with the file there")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(1)
    tensors = {}
    for name, case in CASES.items():
        tensors |= compute(name, **case)
    if not arguments.check:
        save_file(tensors, FILE)
        return 0
    there = load_file(FILE)
    bad = [key for key in tensors if key not in there or not np.allclose(tensors[key], there[key], rtol=1e-5, atol=1e-6)]
    print(f"{len(tensors)} tensors, {len(bad)} differ: {bad}" if bad else f"{len(tensors)} tensors agree")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
