"""Makes tests/golden/train_curve/curve.json: the losses of 200 steps in PyTorch (fp32, AdamW).
tests/golden/test_train_curve.c compares them with src/train's.

    python bench/peers/train/curve.py [STEPS]

config.json there is tiny-code's. First weights: a hash of each element's number, so that any
program can make them; batches: the text tests/golden/tiny-code/heldout.txt in order, encoded by the
tokenizer that the fixture was made with (the ids are in ids.safetensors).
"""
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from model import Config, Model  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
FOLDER = ROOT / "tests" / "golden" / "train_curve"
BY = {"lm": 1, "mtp": 0.3, "balance": 0.02, "router_z": 0.004, "hidden_z": 1e-4, "kl": 0.1}
RATE, EPS, BIAS_RATE, ROWS, LENGTH = 1e-4, 1e-8, 0.01, 2, 64


def shapes(c):
    """Every tensor that the objective reaches, and the biases of routers."""
    h, found = c.hidden, {}

    def attention(at, indexer):
        found.update({
            f"{at}.q_a_proj.weight": (c.q_rank, h), f"{at}.q_a_layernorm.weight": (c.q_rank,),
            f"{at}.q_b_proj.weight": (c.heads * (c.nope + c.rope), c.q_rank),
            f"{at}.kv_a_proj_with_mqa.weight": (c.kv_rank + c.rope, h),
            f"{at}.kv_a_layernorm.weight": (c.kv_rank,),
            f"{at}.kv_b_proj.weight": (c.heads * (c.nope + c.v_dim), c.kv_rank),
            f"{at}.o_proj.weight": (h, c.heads * c.v_dim)})
        if indexer and c.index_heads:
            found.update({
                f"{at}.indexer.wq_b.weight": (c.index_heads * c.index_dim, c.q_rank),
                f"{at}.indexer.wk.weight": (c.index_dim, h),
                f"{at}.indexer.k_norm.weight": (c.index_dim,),
                f"{at}.indexer.weights_proj.weight": (c.index_heads, h)})

    def ffn(at, width):
        found.update({f"{at}.gate_proj.weight": (width, h), f"{at}.up_proj.weight": (width, h),
                      f"{at}.down_proj.weight": (h, width)})

    found["model.embed_tokens.weight"] = found["lm_head.weight"] = (c.vocab, h)
    found["model.norm.weight"] = (h,)
    for i in range(c.tables):
        found[c.table_name(i, "table")] = (c.table_rows(i), h // c.tables)
        found[c.table_name(i, "proj")] = (h, h // c.tables)
    for layer in range(c.layers):
        at = f"model.layers.{layer}"
        for half in range(2):
            found[f"{at}.input_layernorm.{half}.weight"] = (h,)
            found[f"{at}.post_attention_layernorm.{half}.weight"] = (h,)
            attention(f"{at}.self_attn.{half}", half == 0)
            ffn(f"{at}.mlps.{half}", c.ffn)
        found[f"{at}.mlp.router.classifier.weight"] = (c.experts + c.zero, h)
        found[f"{at}.mlp.router.e_score_correction_bias"] = (c.experts + c.zero,)
        for e in range(c.experts):
            ffn(f"{at}.mlp.experts.{e}", c.expert_ffn)
    if c.mtp:
        at = "model.mtp.layers.0"
        found["model.mtp.embed_tokens.weight"] = (c.vocab, h)
        found[f"{at}.eh_proj.weight"] = (h, 2 * h)
        for name in ("model.mtp.norm", f"{at}.enorm.m", f"{at}.hnorm.m", f"{at}.input_layernorm",
                     f"{at}.post_attention_layernorm"):
            found[f"{name}.weight"] = (h,)
        attention(f"{at}.self_attn", True)
        ffn(f"{at}.transformer_layer.mlp", c.ffn)
    return found


def number(name, count):
    """0.02 times uniform numbers of variance 1: FNV-1a of the name, murmur's finaliser."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 & 0xffffffff
    x = (np.arange(count, dtype=np.uint64) * 2654435769 + seed & 0xffffffff).astype(np.uint32)
    x ^= x >> 16
    x *= np.uint32(0x85ebca6b)
    x ^= x >> 13
    x *= np.uint32(0xc2b2ae35)
    x ^= x >> 16
    unit = (x >> 8).astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)
    return unit * np.float32(0.02 * 12 ** 0.5)


def first_weights(c):
    params = {}
    for name, shape in shapes(c).items():
        if name.endswith("e_score_correction_bias"):
            value = torch.zeros(shape)
        elif len(shape) == 1:
            value = torch.ones(shape)
        else:
            value = torch.from_numpy(number(name, int(np.prod(shape))).copy()).view(shape)
        params[name] = value.requires_grad_("e_score_correction_bias" not in name)
    return params


def batches(steps):
    path = FOLDER / "ids.safetensors"
    if not path.exists():
        from tokenizers import Tokenizer
        text = (ROOT / "tests" / "golden" / "tiny-code" / "heldout.txt").read_text()
        ids = Tokenizer.from_file(str(ROOT / "tests" / "golden" / "tiny-code" / "tokenizer.json")).encode(text).ids
        ids = torch.tensor(ids[:steps * ROWS * LENGTH], dtype=torch.int32)
        save_file({"ids": ids.view(steps, ROWS, LENGTH)}, path)
    return load_file(path)["ids"].long()


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    torch.set_num_threads(1)
    config = Config(FOLDER)
    model = Model(config, first_weights(config), "sparse")
    optimizer = model.optimizer(RATE, eps=EPS)
    curve = {}
    for s, ids in enumerate(batches(steps)[:steps]):
        for name, value in model.step(optimizer, ids, None, BY, BIAS_RATE, rest=False).items():
            curve.setdefault(name, []).append(float(f"{value:.8g}"))
        if s % 10 == 0 or s == steps - 1:
            print(s, f"{curve['lm'][-1]:.4f}", flush=True)
            write(model, curve)


def write(model, curve):
    document = {"made_by": f"bench/peers/train/curve.py, torch {torch.__version__}, fp32",
                "coefficients": BY, "target_topk": model.target_topk, "rate": RATE, "eps": EPS,
                "decay": 0.1, "bias_rate": BIAS_RATE, "clip": 1.0, "losses": curve}
    (FOLDER / "curve.json").write_text(json.dumps(document, indent=None, separators=(",", ":"))
                                       .replace('],"', '],\n"') + "\n")


if __name__ == "__main__":
    main()
