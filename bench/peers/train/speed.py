"""Steps of model.py on token shards; prints a line of JSON: seconds and CPU seconds of each step.

    python bench/peers/train/speed.py MODEL SHARDS BATCH LENGTH STEPS THREADS [compile]
"""
import json
import pathlib
import sys
import time

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from model import Config, Model, load  # noqa: E402

BY = {"mtp": 0.3, "balance": 5e-4}
HEADER = 128


def tokens(folder):
    """All tokens of a folder of shards (docs/training.md has the format)."""
    parts = []
    for path in sorted(pathlib.Path(folder).glob("*.tokens")):
        data = path.read_bytes()
        width = int.from_bytes(data[12:16], "little")
        count = int.from_bytes(data[40:48], "little")
        parts.append(np.frombuffer(data, np.dtype(f"<u{width}"), count, HEADER))
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def main(folder, shards, batch, length, steps, threads, how=""):
    batch, length = int(batch), int(length)
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    model = Model(Config(folder), load(folder), None, bf16=True, compiled=how == "compile")
    optimizer, text = model.optimizer(), tokens(shards)
    done = {"seconds": [], "cpu": [], "lm": []}
    for _ in range(int(steps)):
        first = torch.randint(len(text) - length, (batch, 1))
        ids = text[first + torch.arange(length)]
        wall, cpu = time.perf_counter(), time.process_time()
        done["lm"].append(model.step(optimizer, ids, None, BY)["lm"])
        done["seconds"].append(time.perf_counter() - wall)
        done["cpu"].append(time.process_time() - cpu)
    print(json.dumps({"case": "train", "version": f"torch {torch.__version__}", **done}))


if __name__ == "__main__":
    main(*sys.argv[1:])
