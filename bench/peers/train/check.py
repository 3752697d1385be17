"""Compares model.py with tests/golden/model: every loss, every gradient, five AdamW steps.

    python bench/peers/train/check.py            (torch and safetensors; prints a line a case)
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from model import Config, Model, load  # noqa: E402

GOLDEN = pathlib.Path(__file__).resolve().parents[3] / "tests" / "golden" / "model"


def run(case):
    folder = GOLDEN / case
    rules = json.loads((folder / "train.json").read_text())
    want = load_file(folder / "train.safetensors")
    by = {k.replace("_coeff", "").replace("_weight", ""): v
          for k, v in rules["coefficients"].items()}
    config = Config(folder)
    model = Model(config, load(folder), "sparse", target_topk=rules["target_topk"])
    ids, mask = want["ids"], want["mask"]
    out = model.losses(ids[0], mask[0])
    total, _ = model.objective(out, by)
    total.backward()
    worst = {"loss": 0.0, "gradient": 0.0, "step": 0.0, "off": 0, "weights": 0}
    for name in (n for n in want if n.startswith("grad.")):
        grad = model.p[name[5:]].grad
        off = ((0 if grad is None else grad) - want[name]).abs().max()
        error = off / want[name].square().mean().sqrt()
        worst["gradient"] = max(worst["gradient"], float(error) if want[name].any() else 0.0)
    model = Model(config, load(folder), "sparse", target_topk=rules["target_topk"])
    optimizer = model.optimizer()
    for s in range(rules["steps"]):
        got = model.step(optimizer, ids[s], mask[s], by, rest=False)
        for name in (n for n in want if n.startswith("adamw.loss.")):
            value = float(want[name][s])
            worst["loss"] = max(worst["loss"],
                                abs(got[name[11:]] - value) / max(1, abs(value)))
        for name in (n for n in want if n.startswith(f"adamw.step{s + 1}.")):
            off = (model.p[name[12:]] - want[name]).abs() > 1e-5
            worst["off"] += int(off.sum())
            worst["weights"] += off.numel()
    return worst, rules["tolerance"]


def main():
    failed = False
    for case in ("flash-tiny", "lite-tiny", "two-tiny"):
        worst, limit = run(case)
        bad = (worst["loss"] > limit["loss"] or worst["gradient"] > limit["gradient"]
               or worst["off"] * 1000 > worst["weights"])
        failed |= bad
        print(f"{case}: losses {worst['loss']:.1e}, gradients {worst['gradient']:.1e} of the RMS, "
              f"{worst['off']} of {worst['weights']} weights off: {'FAILED' if bad else 'equal'}")
    sys.exit(failed)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
