#!/usr/bin/env python3
"""Checks that checkpoints of `longcat train run` are what other programs read: trains small models
of the types of Flash, Flash-Lite and Flash-Lite-Sparse for some steps, loads them in transformers,
mlx-lm and mlx-vlm, and compares the perplexity of a text with `longcat eval ppl`. With --sparse
MODEL that model (in F32 or BF16) is compared instead of the last one, in windows of index_topk.

    tools/check_export.py WORK [--python transformers=PATH] [--python mlx=PATH]
                               [--python mlx_vlm=PATH] [--steps N] [--sparse MODEL]

WORK: a folder for everything. --python: an interpreter that has the packages (default: this one);
bench/peers makes such environments under WORK/venv/torch and WORK/venv/mlx. A package that isn't
there is reported and left out. Run by hand; docs/training.md has a run's output.
"""
import argparse
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXT = ROOT / "tests" / "golden" / "tiny-code" / "heldout.txt"
PROGRAM = os.environ.get("LONGCAT", ROOT / "build" / "longcat")
WINDOW, TEXT_BYTES = 128, 20000
BASE = {
    "attention_method": "MLA", "vocab_size": 1024, "hidden_size": 96, "num_layers": 2,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 48,
    "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "head_dim": 8, "ffn_hidden_size": 192, "expert_ffn_hidden_size": 64, "n_routed_experts": 8,
    "zero_expert_num": 4, "zero_expert_type": "identity", "moe_topk": 3,
    "routed_scaling_factor": 3.0, "router_bias": False, "norm_topk_prob": False,
    "attention_bias": False, "attention_dropout": 0.0, "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "max_position_embeddings": 1024, "tie_word_embeddings": False, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.02, "use_cache": True, "torch_dtype": "float32"}
# mlx-lm and mlx-vlm leave mlx's default eps in the norms inside attention; mlx-vlm adds n-grams to
# the whole word, across ends of text
MODELS = {
    "transformers": ({**BASE, "architectures": ["LongcatFlashForCausalLM"],
                      "model_type": "longcat_flash"}, []),
    "mlx": ({**BASE, "architectures": ["LongcatFlashNgramForCausalLM"],
             "model_type": "longcat_flash_ngram", "emb_neighbor_num": 3, "emb_split_num": 2,
             "ngram_vocab_size_ratio": 4}, ["--set", "mla_eps=1e-5"]),
    "mlx_vlm": ({**BASE, "architectures": ["LongcatCausalLM"],
                 "model_type": "longcat_flash_sparse", "attention_method": "LSA",
                 "oe_neighbor_num": 3, "oe_split_num": 2, "oe_vocab_size_ratio": 4,
                 "index_n_heads": 16, "index_head_dim": 16, "index_topk": 32,
                 "index_init_tokens": 4, "index_local_tokens": 16, "index_k_norm_type": "rms",
                 "cli_factor": 2},
                ["--set", "mla_eps=1e-5", "--set", "k_norm_eps=1e-5", "--set",
                 "ngram_fusion=full_word", "--set", "ngram_eos_reset=false"])}
PACKAGES = {"transformers": "transformers", "mlx": "mlx_lm", "mlx_vlm": "mlx_vlm"}
RECIPE = """[model]
config = {config}
tokenizer = {tokenizer}

[train]
run = {run}
optimizer = muon
store = f32
checkpoint_minutes = 0

[source text]
folder = {data}

[stage only]
context = 128
tokens = {tokens}
batch = 8
micro = 8
rate = 3e-3
balance = 1e-3
"""


def longcat(*arguments):
    result = subprocess.run([str(a) for a in [PROGRAM, *arguments]], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if result.returncode:
        sys.exit(f"longcat {arguments[0]}: {result.stderr}")
    return result.stdout


def train(work, name, steps):
    """The folder of a model after that many steps."""
    tokenizer, data, run = work / "tokenizer" / "tokenizer.json", work / "data", work / name
    if not tokenizer.exists():
        tokenizer.parent.mkdir(parents=True, exist_ok=True)
        longcat("train", "tokenizer", ROOT / "src", ROOT / "docs", "-o", tokenizer, "--vocab",
                BASE["vocab_size"])
        longcat("train", "data", ROOT / "src", ROOT / "docs", "-o", data, "--tokenizer", tokenizer)
    shutil.rmtree(run, ignore_errors=True)
    (work / f"{name}.json").write_text(json.dumps(MODELS[name][0], indent=1))
    recipe = work / f"{name}.recipe"
    recipe.write_text(RECIPE.format(config=work / f"{name}.json", tokenizer=tokenizer.parent,
                                    run=run, data=data, tokens=steps * 8 * 128))
    longcat("train", "run", recipe)
    return run / "latest"


def windows(model, text, window):
    """The text's tokens in windows, as `longcat eval ppl` has them."""
    line = json.dumps({"text": text.read_text()}) + "\n"
    out = subprocess.run([PROGRAM, "tokenize", str(model), "--jsonl"], input=line, text=True,
                         stdout=subprocess.PIPE, check=True).stdout
    ids = json.loads(out)["ids"]
    return [ids[i:i + window] for i in range(0, len(ids), window)]


def with_transformers(folder):
    import torch
    import transformers
    from safetensors.torch import load_file
    model, info = transformers.LongcatFlashForCausalLM.from_pretrained(
        folder, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True)
    note = "loaded as it is"
    if info["mismatched_keys"] or info["missing_keys"]:
        # transformers 5 makes room for zero experts too, and then refuses files without them
        note = "experts put in place by name"
        ours = dict(model.named_parameters()) | dict(model.named_buffers())
        for name, tensor in load_file(str(pathlib.Path(folder) / "model.safetensors")).items():
            parts = name.split(".")
            if "experts" in parts:
                e, width = parts.index("experts"), BASE["expert_ffn_hidden_size"]
                kind = parts[e + 2]
                target = ours[".".join(parts[:e + 1] + ["down_proj" if kind == "down_proj"
                                                        else "gate_up_proj"])]
                target = target.data[int(parts[e + 1])]
                target = {"up_proj": target[width:], "gate_proj": target[:width],
                          "down_proj": target}[kind]
            else:
                target = ours[name].data
            target.copy_(tensor)

    def logits(ids):
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()

    return logits, f"transformers {transformers.__version__}, LongcatFlashForCausalLM, {note}"


def with_mlx(folder):
    from importlib.metadata import version
    import mlx.core as mx
    from mlx_lm.utils import load_model
    mx.set_default_device(mx.cpu)
    model, _ = load_model(pathlib.Path(folder).resolve())
    return (lambda ids: log_softmax(model(mx.array([ids]))[0]),
            f"mlx-lm {version('mlx-lm')}, longcat_flash_ngram")


def with_mlx_vlm(folder):
    from importlib.metadata import version
    import mlx.core as mx
    from mlx_vlm.models.longcat_flash_sparse import Model, ModelConfig
    mx.set_default_device(mx.cpu)
    folder = pathlib.Path(folder).resolve()
    config = json.loads((folder / "config.json").read_text()) | {"attention_method": "LSA"}
    model = Model(ModelConfig.from_dict(config))
    weights = {k: v.astype(mx.float32) for k, v in mx.load(str(folder / "model.safetensors")).items()}
    model.load_weights(list(model.sanitize(weights).items()))
    return (lambda ids: log_softmax(model(mx.array([ids])).logits[0]),
            f"mlx-vlm {version('mlx-vlm')}, longcat_flash_sparse")


def log_softmax(rows):
    import mlx.core as mx
    import numpy as np
    x = np.array(rows.astype(mx.float32), dtype=np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


LOADERS = {"transformers": with_transformers, "mlx": with_mlx, "mlx_vlm": with_mlx_vlm}


def worker(name, folder, ids):
    """In the interpreter that has the packages: nats of the windows in a file of JSON."""
    logits, what = LOADERS[name](folder)
    nats = predicted = 0
    for window in json.loads(pathlib.Path(ids).read_text()):
        if len(window) > 1:
            rows = logits(window)
            nats -= sum(float(rows[i, t]) for i, t in enumerate(window[1:]))
            predicted += len(window) - 1
    print(json.dumps({"what": what, "nats": nats / predicted}))


def check(work, name, python, options):
    if subprocess.run([python, "-c", f"import {PACKAGES[name]}"],
                      stderr=subprocess.DEVNULL, check=False).returncode:
        print(f"{name}: is not installed there, left out")
        return True
    given, window = name == "mlx_vlm" and options.sparse, WINDOW
    model = given or train(work, name, options.steps)
    if given:  # as many keys as the indexer may choose: equal scores can't be told apart
        window = json.loads((pathlib.Path(given) / "config.json").read_text())["index_topk"]
    text, ids = work / "text.txt", work / "ids.json"
    text.write_text(TEXT.read_text()[:TEXT_BYTES])
    ids.write_text(json.dumps(windows(model, text, window)))
    ours = json.loads(longcat("eval", "ppl", model, "--text", text, "--window", window, "--compute",
                              "f32", "--json", *MODELS[name][1]))["nats_per_token"]
    result = subprocess.run([python, __file__, "worker", name, model, ids], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    if result.returncode:
        print(f"{name}: {result.stderr.strip().splitlines()[-1]}")
        return False
    theirs = json.loads(result.stdout.splitlines()[-1])
    a, b = math.exp(ours), math.exp(theirs["nats"])
    good = abs(a - b) <= 1e-4 * b
    what = given or f"{MODELS[name][0]['model_type']} after {options.steps} steps"
    print(f"{what}: perplexity {a:.5f}, "
          f"{theirs['what']}: {b:.5f}, relative difference {abs(a - b) / b:.1e}: "
          f"{'equal' if good else 'FAILED'}")
    return good


def main():
    if len(sys.argv) == 5 and sys.argv[1] == "worker":
        return worker(*sys.argv[2:])
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("work", type=pathlib.Path)
    p.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    p.add_argument("--steps", type=int, default=100)
    p.add_argument("--sparse", metavar="MODEL")
    options = p.parse_args()
    pythons = dict(x.split("=", 1) for x in options.python)
    options.work.mkdir(parents=True, exist_ok=True)
    good = [check(options.work.resolve(), name, pythons.get(name, sys.executable), options)
            for name in MODELS]
    return not all(good)


if __name__ == "__main__":
    sys.exit(main())
