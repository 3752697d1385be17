"""longcat itself: a BF16 checkpoint of the shape, and its int8 and int4 versions, head included; packed
ones hold the same weights in the order that kernels read (`longcat pack`)."""
import json
import shutil

import shape
from common import PeerError, failed, longcat, row

TYPES = {"bf16": ("bf16", 16), "bf16-packed": ("bf16", 16), "int8": ("int8", 8), "int8-packed": ("int8", 8),
         "int4": ("int4", 4.25), "int4-packed": ("int4", 4.25)}  # operands, bits


def prepare(work):
    config = work.root / "models" / "longcat.json"
    source = model(work, "bf16")

    def make():
        shutil.rmtree(source, ignore_errors=True)
        config.write_text(json.dumps(shape.LONGCAT, indent=1))
        work.run("longcat", [work.options.longcat, "bench", "make", "--shape", config, source])

    def quantize(name):
        shutil.rmtree(model(work, name), ignore_errors=True)
        work.run("longcat", [work.options.longcat, "quantize", source, model(work, name),
                             "--type", name, "--head"])

    def pack(name):
        shutil.rmtree(model(work, f"{name}-packed"), ignore_errors=True)
        work.run("longcat", [work.options.longcat, "pack", model(work, name),
                             model(work, f"{name}-packed")])

    version = json.dumps(shape.LONGCAT)
    for name in ("bf16", "int8", "int4"):
        work.step(f"longcat model {name}", version,
                  make if name == "bf16" else lambda: quantize(name))
        work.step(f"longcat model {name}-packed", version, lambda: pack(name))


def model(work, name):
    return work.root / "models" / f"longcat-{name}"


def bench(work, name, threads, prefill, depths, repeat=3):
    report = longcat(work, "bench", "model", str(model(work, name)), "--batch", "1",
                     "--prefill", ",".join(map(str, prefill)), "--threads", str(threads),
                     "--depths", ",".join(map(str, depths)), "--steps", "16",
                     "--repeat", str(repeat),
                     *(["--isa", work.options.isa] if work.options.isa else []))
    return report, {r["test"]: {"min": r["min_tokens_per_s"], "median": r["tokens_per_s"],
                                "max": r["max_tokens_per_s"], "read": r["limit_bytes_per_s"],
                                "own_bytes_per_token": r["bytes_per_token"]}
                    for r in report["results"]}


def measure(work, limit):
    rows = []
    for name, (kind, bits) in TYPES.items():
        now = limit()
        try:
            report, cases = bench(work, name, work.threads, shape.PREFILL, shape.DEPTHS)
        except PeerError as e:
            rows.append(failed(f"longcat {name}", e))
            continue
        machine = report["machine"]
        version = f"{machine['longcat']}, {machine['compiler']}"
        rows.append(row("longcat", version, name, kind, bits, now, cases,
                        report["results"][0]["isa"]))
    return rows


def scaling(work):
    """Tokens a second with one thread and with all, in turns, and their ratio."""
    found = []
    for name in TYPES:
        runs = {1: [], work.threads: []}
        for _ in range(2):
            for threads in runs:
                runs[threads].append(bench(work, name, threads, [512], [0], 1)[1])
        for case in runs[1][0]:
            best = {t: max(r[case]["max"] for r in runs[t]) for t in runs}
            read = {t: max(r[case]["read"] for r in runs[t]) for t in runs}
            found.append({"weights": name, "case": case, "tokens_per_s": best,
                          "ratio": best[work.threads] / best[1],
                          "bandwidth_ratio": read[work.threads] / read[1]})
    return found
