#!/usr/bin/env python3
"""Makes the PyTorch reference files that the model tests compare Weft against.

Needs Python 3 with torch, numpy and safetensors; the tests themselves only read the files.

    python3 tests/reference/make_reference.py            # writes tests/reference/data/*.safetensors
    python3 tests/reference/make_reference.py --check    # recomputes and compares with the files there

Two tiny models, each 2 layers, d_model 32, 4 heads, vocabulary 61, sequence 16, batch 3:

  gpt2   pre-norm, learned positions, LayerNorm (eps 1e-5), GELU (tanh), biases everywhere, head tied to the embedding
  llama  pre-norm, RMSNorm (eps 1e-5), rotary positions (theta 10000, a head's first half rotates with its second
         half), SwiGLU, 2 key-value heads, no biases, a head of its own

Shapes: B batch, T sequence, V vocabulary, D d_model, H heads, K key-value heads, C channels of a head, F hidden width.

Every number is computed in float64 and stored as float32; names that begin with `f32.` were computed by PyTorch in
float32 from the same weights, and show how far two correct programs may differ. Contents of a file:

  <parameter>               initial weights; a linear layer is y = x W^T + b
      embed.tokens.weight [V,D]                 embed.positions.weight [T,D] (gpt2)
      blocks.{i}.norm1.weight|bias [D]          blocks.{i}.norm2.weight|bias [D]
      blocks.{i}.mixer.qkv.weight [(H+2K)C,D]   rows: query heads, key heads, value heads
      blocks.{i}.mixer.out.weight [D,HC]
      blocks.{i}.ffn.up.weight [F,D] (gpt2)     blocks.{i}.ffn.gate_up.weight [2F,D] (llama; gate rows, then up rows)
      blocks.{i}.ffn.down.weight [D,F]          norm.weight|bias [D]          head.weight [V,D] (llama)
  tokens, targets           [B,T] int32; the targets are the tokens one place on
  logits                    [B,T,V]
  loss                      [1] mean cross-entropy over the B*T targets
  grad.<parameter>          gradient of `loss`, before clipping
  losses, grad_norms        [10] loss and global gradient norm (before clipping) at steps 1 to 10 on that same batch
  final.<parameter>         weights after the ten steps
  f32.logits, f32.loss, f32.grad.<parameter>, f32.losses, f32.grad_norms, f32.final.<parameter>

Training is torch.optim.AdamW (lr 1e-3, betas 0.9 and 0.95, eps 1e-8), weight decay 0.1 on parameters of two or more
dimensions only, after clipping the global norm to 1 (factor 1 / (norm + 1e-6)).

The gradient of a key bias is exactly zero (softmax does not change when a constant is added to its row), so float32
programs see rounding noise there, which AdamW's division by its own size enlarges: compare neither the gradients
relatively nor the final weights of those rows. The same holds for rows of an embedding that no token reads.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.numpy import save_file

STEPS = 10
LEARNING_RATE = 1e-3
BETAS = (0.9, 0.95)
ADAM_EPS = 1e-8
WEIGHT_DECAY = 0.1
CLIP = 1.0


@dataclasses.dataclass(frozen=True)
class Config:
    name: str
    seed: int
    kv_heads: int
    d_ff: int
    llama: bool
    layers: int = 2
    d_model: int = 32
    heads: int = 4
    vocab: int = 61
    seq: int = 16
    batch: int = 3
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def head_dim(self):
        return self.d_model // self.heads


CONFIGS = (
    Config(name="gpt2", seed=1, kv_heads=4, d_ff=128, llama=False),
    Config(name="llama", seed=2, kv_heads=2, d_ff=88, llama=True),
)


def parameter_shapes(c):
    qkv_rows = (c.heads + 2 * c.kv_heads) * c.head_dim
    shapes = {"embed.tokens.weight": (c.vocab, c.d_model)}
    if not c.llama:
        shapes["embed.positions.weight"] = (c.seq, c.d_model)

    def norm(name):
        shapes[name + ".weight"] = (c.d_model,)
        if not c.llama:
            shapes[name + ".bias"] = (c.d_model,)

    def linear(name, rows, columns):
        shapes[name + ".weight"] = (rows, columns)
        if not c.llama:
            shapes[name + ".bias"] = (rows,)

    for i in range(c.layers):
        block = f"blocks.{i}."
        norm(block + "norm1")
        linear(block + "mixer.qkv", qkv_rows, c.d_model)
        linear(block + "mixer.out", c.d_model, c.heads * c.head_dim)
        norm(block + "norm2")
        if c.llama:
            linear(block + "ffn.gate_up", 2 * c.d_ff, c.d_model)
        else:
            linear(block + "ffn.up", c.d_ff, c.d_model)
        linear(block + "ffn.down", c.d_model, c.d_ff)
    norm("norm")
    if c.llama:
        shapes["head.weight"] = (c.vocab, c.d_model)
    return shapes


def initial_weights(c):
    # Larger than a usual initialisation, and never 0 or 1: every term of every gradient must show.
    rng = np.random.Generator(np.random.PCG64(c.seed))
    weights = {}
    for name, shape in parameter_shapes(c).items():
        noise = rng.standard_normal(shape)
        if "norm" in name.split(".")[-2]:
            value = 0.1 * noise + (1.0 if name.endswith(".weight") else 0.0)
        elif name.startswith("embed.") or name == "head.weight":
            value = 0.3 * noise
        elif name.endswith(".bias"):
            value = 0.1 * noise
        else:
            value = noise / math.sqrt(shape[1])
        weights[name] = value.astype(np.float32)
    stream = rng.integers(0, c.vocab, size=(c.batch, c.seq + 1), dtype=np.int32)
    return weights, stream[:, :-1].copy(), stream[:, 1:].copy()


def normalise(c, p, name, x_BTD):
    if c.llama:
        return x_BTD * torch.rsqrt(x_BTD.pow(2).mean(-1, keepdim=True) + c.norm_eps) * p[name + ".weight"]
    return F.layer_norm(x_BTD, (c.d_model,), p[name + ".weight"], p[name + ".bias"], c.norm_eps)


def linear(p, name, x):
    return F.linear(x, p[name + ".weight"], p.get(name + ".bias"))


def rotate(c, x_BHTC):
    half = c.head_dim // 2
    frequency = c.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle_TC = torch.arange(x_BHTC.shape[2], dtype=torch.float64)[:, None] * frequency
    cos, sin = angle_TC.cos().to(x_BHTC.dtype), angle_TC.sin().to(x_BHTC.dtype)
    first, second = x_BHTC[..., :half], x_BHTC[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attention(c, p, name, x_BTD):
    B, T, _ = x_BTD.shape
    q_width, kv_width = c.heads * c.head_dim, c.kv_heads * c.head_dim
    q, k, v = linear(p, name + ".qkv", x_BTD).split((q_width, kv_width, kv_width), dim=-1)
    q = q.view(B, T, c.heads, c.head_dim).transpose(1, 2)
    k = k.view(B, T, c.kv_heads, c.head_dim).transpose(1, 2)
    v = v.view(B, T, c.kv_heads, c.head_dim).transpose(1, 2)
    if c.llama:
        q, k = rotate(c, q), rotate(c, k)
    # Query head h reads key-value head h // (heads / kv_heads).
    k = k.repeat_interleave(c.heads // c.kv_heads, dim=1)
    v = v.repeat_interleave(c.heads // c.kv_heads, dim=1)
    scores_BHTT = q @ k.transpose(-1, -2) / math.sqrt(c.head_dim)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    weights_BHTT = scores_BHTT.masked_fill(future, -math.inf).softmax(-1)
    return linear(p, name + ".out", (weights_BHTT @ v).transpose(1, 2).reshape(B, T, q_width))


def feed_forward(c, p, name, x_BTD):
    if c.llama:
        gate, up = linear(p, name + ".gate_up", x_BTD).chunk(2, dim=-1)
        return linear(p, name + ".down", F.silu(gate) * up)
    return linear(p, name + ".down", F.gelu(linear(p, name + ".up", x_BTD), approximate="tanh"))


def forward(c, p, tokens_BT):
    x_BTD = p["embed.tokens.weight"][tokens_BT]
    if not c.llama:
        x_BTD = x_BTD + p["embed.positions.weight"][: tokens_BT.shape[1]]
    for i in range(c.layers):
        block = f"blocks.{i}."
        x_BTD = x_BTD + attention(c, p, block + "mixer", normalise(c, p, block + "norm1", x_BTD))
        x_BTD = x_BTD + feed_forward(c, p, block + "ffn", normalise(c, p, block + "norm2", x_BTD))
    return F.linear(normalise(c, p, "norm", x_BTD), p["head.weight" if c.llama else "embed.tokens.weight"])


def train(c, weights, tokens, targets, dtype):
    p = {name: torch.tensor(value, dtype=dtype, requires_grad=True) for name, value in weights.items()}
    optimizer = torch.optim.AdamW(
        [
            {"params": [v for v in p.values() if v.dim() >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [v for v in p.values() if v.dim() < 2], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE, betas=BETAS, eps=ADAM_EPS, foreach=False)
    tokens, targets = torch.from_numpy(tokens).long(), torch.from_numpy(targets).long()
    out, losses, norms = {}, [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        logits_BTV = forward(c, p, tokens)
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten())
        loss.backward()
        if step == 0:
            out["logits"] = logits_BTV.detach()
            out["loss"] = loss.detach().reshape(1)
            out.update({"grad." + name: value.grad.clone() for name, value in p.items()})
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_(list(p.values()), CLIP, foreach=False).item())
        optimizer.step()
    out["losses"], out["grad_norms"] = torch.tensor(losses, dtype=dtype), torch.tensor(norms, dtype=dtype)
    out.update({"final." + name: value.detach() for name, value in p.items()})
    return {name: np.ascontiguousarray(value.numpy().astype(np.float32)) for name, value in out.items()}


def reference(c):
    weights, tokens, targets = initial_weights(c)
    tensors = {**weights, "tokens": tokens, "targets": targets}
    tensors.update(train(c, weights, tokens, targets, torch.float64))
    single = train(c, weights, tokens, targets, torch.float32)
    tensors.update({"f32." + name: value for name, value in single.items()})
    metadata = {"config": json.dumps(dataclasses.asdict(c)), "torch": torch.__version__}
    return tensors, metadata


def difference(a, b):
    return float(np.linalg.norm((a - b).astype(np.float64)) / max(np.linalg.norm(b.astype(np.float64)), 1e-30))


def check(path, tensors):
    """True if the file holds the same numbers: float64 results nearly exactly, float32 results within rounding."""
    with safe_open(path, framework="numpy") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}
    if stored.keys() != tensors.keys():
        print(f"{path}: names differ: {sorted(stored.keys() ^ tensors.keys())}")
        return False
    bad = []
    for name, value in tensors.items():
        if name.startswith("f32.final.") or (name.startswith("f32.grad.") and name.endswith("qkv.bias")):
            continue  # rounding noise in the key biases; see above
        tolerance = 2e-5 if name.startswith("f32.") else 1e-6
        if stored[name].shape != value.shape or difference(stored[name], value) > tolerance:
            bad.append(name)
    print(f"{path}: " + (f"differs in {bad}" if bad else f"{len(tensors)} tensors agree"))
    return not bad


def summary(tensors):
    own = [n[len("grad."):] for n in tensors if n.startswith("grad.")]
    worst = max((difference(tensors["f32.grad." + n], tensors["grad." + n]), n) for n in own)
    losses, single = tensors["losses"], tensors["f32.losses"]
    print(f"  {len(own)} parameters, loss {losses[0]:.6f} -> {losses[-1]:.6f}, "
          f"gradient norm {tensors['grad_norms'][0]:.4f}")
    print(f"  f32 against f64: logits {difference(tensors['f32.logits'], tensors['logits']):.1e}, "
          f"worst gradient {worst[0]:.1e} ({worst[1]}), losses {np.max(np.abs(single / losses - 1)):.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent / "data")
    parser.add_argument("--check", action="store_true", help="compare with the stored files, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    good = True
    for c in CONFIGS:
        tensors, metadata = reference(c)
        path = options.out / f"{c.name}.safetensors"
        if options.check:
            good = check(path, tensors) and good
        else:
            options.out.mkdir(parents=True, exist_ok=True)
            save_file(tensors, path, metadata)
            path.chmod(0o644)
            print(f"{path}: {path.stat().st_size} bytes")
        summary(tensors)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
