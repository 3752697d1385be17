"""mlx-lm on mlx's CPU build: the same LongCat checkpoint as ours, its own model code.

Its CPU has no product of gathered experts in BF16: they are widened to fp32 as far as needed, and
the table says so. A zero expert costs it the time of expert 0. Also measured: its own affine
quantisation to 4 bits in groups of 64, which its CPU multiplies without vector instructions'
help: what isn't reached in MOST_SECONDS is left out.
"""
import sys

import shape
from common import CASES, HERE, PeerError, emit, failed, from_lines, repeat, row, said

PACKAGES = ["mlx[cpu]==0.32.4", "mlx-lm==0.32.2"]
VARIANTS = {"bf16": ("bf16", 16), "4 bits": ("int4", 4.5)}
DECODE_STEPS = {0: 4, 8192: 2, 32768: 1}
MOST_SECONDS = 45  # for all cases of a variant


def prepare(work):
    work.venv("mlx", *PACKAGES)


def measure(work, limit):
    from peer_longcat import model
    python = work.venv("mlx", *PACKAGES)
    rows = []
    for name, (kind, bits) in VARIANTS.items():
        now = limit()
        try:
            lines = work.worker("mlx", python, [HERE / "peer_mlx.py", model(work, "bf16"), name],
                                timeout=MOST_SECONDS)
        except PeerError as e:
            rows.append(failed(f"mlx-lm {name}", e))
            continue
        cases = {case: f"over {MOST_SECONDS} s" for case in CASES} | from_lines(lines)
        rows.append(row("mlx-lm", said(lines, "version"), name, kind, bits, now, cases,
                        said(lines, "note")))
    return rows


def load(folder, variant):
    import pathlib
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    model, _ = load_model(pathlib.Path(folder), lazy=True)
    if variant != "bf16":
        nn.quantize(model, 64, int(variant.split()[0]),
                    class_predicate=lambda path, m: hasattr(m, "to_quantized")
                    and not path.endswith("classifier"))
    mx.eval(model.parameters())
    return model


def main(folder, variant):
    from importlib.metadata import version
    import mlx.core as mx
    from mlx.utils import tree_map

    emit(version=f"{version('mlx-lm')}, mlx {version('mlx')}")
    model = load(folder, variant)
    words = lambda n: mx.random.randint(3, shape.VOCAB, (1, n))

    def prefill(tokens):
        cache = model.make_cache()
        mx.eval(model(words(tokens), cache=cache)[:, -1])
        return cache

    try:
        prefill(4)
    except (RuntimeError, ValueError) as e:
        for layer in model.layers:
            mlp = layer.mlp.switch_mlp
            mlp.update(tree_map(lambda w: w.astype(mx.float32) if w.dtype == mx.bfloat16 else w,
                                mlp.parameters()))
            mx.eval(mlp.parameters())
        emit(note=f"experts in fp32 ({str(e)[:60]})")
        prefill(4)
    for n in shape.DEPTHS:
        cache = prefill(4)
        for layer in cache:
            for kv in layer.caches:
                for name in ("keys", "values"):
                    old = getattr(kv, name)
                    size = (*old.shape[:2], max(n, 4), old.shape[3])
                    setattr(kv, name, mx.random.normal(size).astype(old.dtype))
                kv.offset = max(n, 4)
                mx.eval(kv.keys, kv.values)
        steps = DECODE_STEPS[n]

        def decode():
            for _ in range(steps):
                mx.eval(model(words(1), cache=cache))

        emit(case=f"decode at {n}", times=repeat(decode, most=3, seconds=3, warm=False),
             tokens=steps)
    for n in shape.PREFILL:
        emit(case=f"prefill {n}", times=repeat(lambda: prefill(n), most=2, seconds=3, warm=False),
             tokens=n)


if __name__ == "__main__":
    main(*sys.argv[1:])
