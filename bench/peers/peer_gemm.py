"""Products alone: longcat's kernels beside torch (oneDNN) and OpenBLAS, operands in the caches.

2,048 x 2,048 weights, 8 to 2,048 left rows. torch: fp32, BF16, int8 (its _int_mm: int8 by int8 into
int32). OpenBLAS: the one in numpy's wheel, sgemm, and sbgemm where it is built in.
"""
import sys

from common import HERE, PeerError, emit, failed, longcat, repeat, said, table

ROWS, SIZE = (8, 64, 512, 2048), 2048  # those of `longcat bench kernels`


def prepare(work):
    from peer_transformers import PACKAGES
    work.venv("torch", *PACKAGES)


def measure(work, limit):
    """({engine, type, rows: {m: {ops_per_s, share}}} ..., failures)."""
    from peer_transformers import PACKAGES
    found, errors = {}, []
    now = limit()
    report = longcat(work, "bench", "kernels", "--only", "square", "--repeat", "5",
                     "--threads", str(work.threads))
    best = {}
    for k in report["kernels"]:
        stored = k["type"].split()[0]  # "int4 strips" is int4
        if k["operands"] == "cache" and stored in ("f32", "bf16", "int8", "int4"):
            key = (f"longcat {k['type']}", stored)
            here = best.setdefault(key, {})
            here[k["rows"]] = max(here.get(k["rows"], 0), k["ops_per_s"])
    found.update(best)
    for what in ("torch", "openblas"):
        try:
            lines = work.worker(f"gemm {what}", work.venv("torch", *PACKAGES),
                                [HERE / "peer_gemm.py", what, work.threads], timeout=150,
                                env={"OPENBLAS_NUM_THREADS": str(work.threads)})
        except PeerError as e:
            errors.append(failed(f"gemm {what}", e))
            continue
        for line in lines:
            if "case" in line:
                key = (f"{said(lines, 'version')} {line['case']}", line["kind"])
                found.setdefault(key, {})[line["rows"]] = (2 * line["rows"] * SIZE * SIZE
                                                           / min(line["times"]))
            elif "note" in line:
                errors.append(failed(f"gemm {what}", line["note"]))
    rows = []
    for (name, kind), rates in found.items():
        peak = now[kind]
        rows.append({"engine": name, "limit": peak["name"], "limit_ops_per_s": peak["rate"],
                     "rows": {str(m): {"ops_per_s": r, "share": r / peak["rate"]}
                              for m, r in sorted(rates.items())}})
    return rows, errors


def show(rows):
    cells = [["product, Gop/s (% of limit)", "limit", *(f"{m} rows" for m in ROWS)]]
    for r in rows:
        cells.append([r["engine"], f"{r['limit']} {r['limit_ops_per_s'] / 1e9:.0f}"] +
                     [f"{p['ops_per_s'] / 1e9:.0f} ({100 * p['share']:.0f})" if p else "-"
                      for p in (r["rows"].get(str(m)) for m in ROWS)])
    return table(cells)


def main(what, threads):
    globals()[f"main_{what}"](int(threads))


def main_torch(threads):
    import torch
    torch.set_num_threads(threads)
    emit(version=f"torch {torch.__version__}")
    for kind, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16), ("int8", torch.int8)):
        if dtype == torch.int8:
            b = torch.randint(-127, 127, (SIZE, SIZE), dtype=dtype).t()
            product = torch._int_mm
        else:
            b = torch.randn(SIZE, SIZE).to(dtype).t()
            product = torch.matmul
        for m in ROWS:
            a = torch.randn(m, SIZE) if dtype != torch.int8 else torch.randint(-127, 127, (m, SIZE))
            a = a.to(dtype)
            with torch.inference_mode():
                emit(case=kind, kind=kind, rows=m,
                     times=repeat(lambda: product(a, b), seconds=0.6, most=1000))


def main_openblas(threads):
    import ctypes
    import pathlib
    import numpy as np
    emit(version=f"OpenBLAS of numpy {np.__version__}")
    b = np.random.rand(SIZE, SIZE).astype(np.float32)
    for m in ROWS:
        a = np.random.rand(m, SIZE).astype(np.float32)
        emit(case="sgemm", kind="f32", rows=m,
             times=repeat(lambda: a @ b, seconds=0.6, most=1000))
    folder = pathlib.Path(np.__file__).parent.parent / "numpy.libs"
    blas = ctypes.CDLL(str(next(folder.glob("*openblas*"))))
    name = next((n for n in ("scipy_cblas_sbgemm64_", "cblas_sbgemm64_", "cblas_sbgemm")
                 if hasattr(blas, n)), None)
    if not name:
        emit(note="sbgemm (BF16) is not in this build of OpenBLAS")
        return
    sbgemm = getattr(blas, name)
    pointer = lambda x: x.ctypes.data_as(ctypes.c_void_p)
    i, f = ctypes.c_int64, ctypes.c_float
    right = np.full((SIZE, SIZE), 0x3f80, np.uint16)
    for m in ROWS:
        left, out = np.full((m, SIZE), 0x3f80, np.uint16), np.zeros((m, SIZE), np.float32)
        emit(case="sbgemm", kind="bf16", rows=m, times=repeat(
            lambda: sbgemm(101, 111, 112, i(m), i(SIZE), i(SIZE), f(1), pointer(left), i(SIZE),
                           pointer(right), i(SIZE), f(0), pointer(out), i(SIZE)),
            seconds=0.6, most=1000))
        assert out[0, 0] == SIZE, out[0, 0]


if __name__ == "__main__":
    main(*sys.argv[1:])
