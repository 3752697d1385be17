"""Training: `longcat train run` beside the same model in PyTorch (train/model.py), same first
weights, text, batch, precision (BF16 products, fp32 weights) and optimiser (AdamW).

The two run in turns. Tokens a second are of the best step; tokens a CPU second are of all steps and
hold on a busy machine too. The share is of the best BF16 instruction on registers, measured before.
"""
import json
import os
import shutil
import subprocess

from common import HERE, ROOT, PeerError, last_line
from peer_transformers import PACKAGES

SHAPE = HERE / "train" / "shape.json"
TEXT = ["src", "docs", "tests/unit", "bench"]
BATCH, LENGTH, STEPS, ROUNDS = 8, 512, 4, 2


def folder(work, name):
    return work.root / "models" / f"train-{name}"


def prepare(work):
    work.venv("torch", *PACKAGES)

    def make():
        for name in ("model", "tokenizer", "data"):
            shutil.rmtree(folder(work, name), ignore_errors=True)
        text = [ROOT / t for t in TEXT]
        folder(work, "tokenizer").mkdir(parents=True)
        tokenizer = folder(work, "tokenizer") / "tokenizer.json"
        for command in (["bench", "make", "--shape", SHAPE, "--draft", "--ngram-ratio", "0",
                         folder(work, "model")],
                        ["train", "tokenizer", *text, "-o", tokenizer, "--vocab", "8192"],
                        ["train", "data", *text, "-o", folder(work, "data"), "--tokenizer",
                         tokenizer]):
            work.run("longcat", [work.options.longcat, *command])

    work.step("train model", SHAPE.read_text(), make)


def ours(work, steps):
    """Runs that many steps from the start; CPU seconds of the process, and the log's lines."""
    run, recipe = folder(work, "run"), folder(work, "run").with_suffix(".recipe")
    recipe.write_text(f"""[model]
from = {folder(work, "model")}
tokenizer = {folder(work, "tokenizer")}

[train]
run = {run}
optimizer = adamw
checkpoint_minutes = 0

[source text]
folder = {folder(work, "data")}

[stage dense]
context = {LENGTH}
tokens = {STEPS * BATCH * LENGTH}
batch = {BATCH}
micro = {BATCH}
rate = 1e-3
schedule = constant
mtp = 0.3
balance = 5e-4
index = dense
""")
    shutil.rmtree(run, ignore_errors=True)
    log = work.root / "log" / "train.log"
    with open(log, "a") as messages:
        process = subprocess.Popen([work.options.longcat, "train", "run", recipe, "--steps",
                                    str(steps), "--threads", str(work.threads)],
                                   stdout=messages, stderr=messages)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise PeerError(f"longcat train run: {last_line(log)}")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return usage.ru_utime + usage.ru_stime, [line for line in lines if "seconds" in line]


def theirs(work, how):
    python = work.venv("torch", *PACKAGES)
    lines = work.worker("train torch", python,
                        [HERE / "train" / "speed.py", folder(work, "model"), folder(work, "data"),
                         BATCH, LENGTH, STEPS + 1, work.threads, *how],
                        timeout=1800, env={"OMP_WAIT_POLICY": "passive"})
    return lines[0]


def measure(work, limit):
    now, tokens = limit(), BATCH * LENGTH
    found = {name: {"seconds": [], "cpu": []} for name in ("longcat", "torch")}
    operations = 0
    for _ in range(ROUNDS):
        once, _ = ours(work, 1)
        cpu, lines = ours(work, STEPS)
        found["longcat"]["seconds"] += [line["seconds"] for line in lines[1:]]
        found["longcat"]["cpu"].append((cpu - once) / (STEPS - 1))
        operations = max(line["flop_s"] * line["seconds"] for line in lines)
        line = theirs(work, [])
        found["torch"]["seconds"] += line["seconds"][1:]  # the first one warms up
        found["torch"]["cpu"] += line["cpu"][1:]
        found["torch"]["version"] = line["version"]
    return {"tokens": tokens, "operations": operations, "limit": now["bf16"], "engines": {
        name: {"version": f.get("version", ""), "tokens_per_s": tokens / min(f["seconds"]),
               "tokens_per_cpu_s": tokens / min(f["cpu"]),
               "share": operations / min(f["seconds"]) / now["bf16"]["rate"]}
        for name, f in found.items()}}


def show(result, table):
    head = (f"training, {BATCH} x {LENGTH} tokens a step, BF16 products, AdamW; limit "
            f"{result['limit']['name']} {result['limit']['rate'] / 1e9:.0f} Gop/s, "
            f"{result['operations'] / result['tokens'] / 1e6:.0f} M operations a token")
    engines = result["engines"]
    rows = [["engine", "version", "tok/s", "tok/CPU s", "% of the limit"]]
    rows += [[name, e["version"] or "-", f"{e['tokens_per_s']:.0f}", f"{e['tokens_per_cpu_s']:.0f}",
              f"{100 * e['share']:.1f}"] for name, e in engines.items()]
    ratio = [engines["longcat"][k] / engines["torch"][k]
             for k in ("tokens_per_s", "tokens_per_cpu_s")]
    return (f"{head}\n{table(rows)}\nlongcat / torch: {ratio[0]:.2f} in time, {ratio[1]:.2f} in "
            f"CPU time")
