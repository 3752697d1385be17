"""What the peers share: the work folder with its finished steps, logs and virtual environments,
limits of the machine, timing, and the tables.

Every peer is a file peer_NAME.py with `prepare(work)` (installs and makes models; may be stopped
and started again) and `measure(work)`, which returns rows. What must run inside a virtual
environment is the same file called as a program; it prints a line of JSON per measured case.
"""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import shape

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CASES = [f"prefill {n}" for n in shape.PREFILL] + [f"decode at {n}" for n in shape.DEPTHS]


class PeerError(Exception):
    """Why a peer can't run: one line, which goes into the table."""


class Work:
    """The work folder. A step is done once; its stamp holds the versions that it was done for."""

    def __init__(self, root, options):
        self.root = pathlib.Path(root).resolve()
        self.options = options
        self.threads = options.threads
        self.started = time.monotonic()
        for name in ("done", "log", "models", "src", "build", "venv"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def say(self, text):
        seconds = int(time.monotonic() - self.started)
        print(f"[{seconds // 60:3d}:{seconds % 60:02d}] {text}", file=sys.stderr, flush=True)

    def step(self, name, version, function):
        stamp = self.root / "done" / name.replace("/", "-")
        if stamp.exists() and stamp.read_text() == version:
            return
        if self.options.no_build:
            raise PeerError(f"{name} is not prepared (run with --prepare first)")
        self.say(name)
        function()
        stamp.write_text(version)

    def run(self, name, command, timeout=None, env=None, cwd=None):
        """Runs a program; returns what it printed. Its messages go to log/NAME.log."""
        log = self.root / "log" / (name.replace("/", "-").replace(" ", "-") + ".log")
        with open(log, "a") as messages:
            print("$", *command, file=messages, flush=True)
            try:
                result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, cwd=cwd,
                                        stderr=messages, timeout=timeout, text=True,
                                        env={**os.environ, **(env or {})})
            except subprocess.TimeoutExpired as e:
                raise PeerError(f"{name}: stopped after {timeout} s") from e
            except OSError as e:
                raise PeerError(f"{name}: {e}") from e
            messages.write(result.stdout)
        if result.returncode:
            raise PeerError(f"{name}: {last_line(log) or f'exit code {result.returncode}'}")
        return result.stdout

    def venv(self, name, *packages):
        """Python of a virtual environment with these packages."""
        python = self.root / "venv" / name / "bin" / "python"

        def make():
            if not python.exists():
                self.run(f"venv {name}", [sys.executable, "-m", "venv", python.parent.parent])
            self.run(f"venv {name}", [python, "-m", "pip", "install", "--no-cache-dir", *packages])

        self.step(f"venv {name}", " ".join(packages), make)
        return python

    def worker(self, name, python, arguments, timeout=420, env=None):
        """Runs a peer's file inside its environment; returns the JSON lines that it printed. A
        worker that stops early keeps the cases that it finished."""
        log = self.root / "log" / (name.replace(" ", "-") + ".log")
        environment = {"OMP_NUM_THREADS": str(self.threads), "HF_HUB_OFFLINE": "1", **(env or {})}
        command = [str(c) for c in [python, *arguments]]
        with open(log, "a") as messages:
            print("$", *command, file=messages, flush=True)
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, text=True,
                                       env={**os.environ, **environment})
            try:
                output, _ = process.communicate(timeout=timeout)
                reason = f"exit code {process.returncode}: {last_line(log)}"
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
                reason = f"stopped after {timeout} s"
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        if process.returncode:
            if not any("case" in line for line in lines):
                raise PeerError(f"{name}: {reason}")
            lines.append({"note": reason})
        return lines

    def free_gb(self):
        return shutil.disk_usage(self.root).free / 1e9


def last_line(path):
    lines = [line.strip() for line in open(path, errors="replace") if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [""])[-1][:160]


def longcat(work, *arguments, timeout=600):
    return json.loads(work.run("longcat", [work.options.longcat, *arguments, "--json"], timeout))


def limits(work, threads=None):
    """What the machine can do at this moment: best instruction for each kind of operand (with --isa
    of that set, as lower ones have none), reads."""
    threads = threads or work.threads
    report = longcat(work, "bench", "machine", "--repeat", "3", "--threads", str(threads))
    found = {"machine": report["machine"]}
    for m in report["memory"]:
        if m["threads"] == threads:
            found["read"] = m["bytes_per_s"]
    kinds = {"vfmadd": "f32", "fmla": "f32", "bf16": "bf16", "bfmlal": "bf16", "vpdpbusd": "int8",
             "vpmaddwd": "int8", "tdpbssd": "int8", "dot": "int8", "vpmaddubsw": "int4"}
    for i in report["instructions"]:
        if i["threads"] != threads or work.options.isa not in (None, i["isa"]):
            continue
        kind = next((k for word, k in kinds.items() if word in i["instruction"]), None)
        if kind and i["ops_per_s"] > found.get(kind, {}).get("rate", 0):
            found[kind] = {"rate": i["ops_per_s"], "name": i["instruction"]}
    # What has no instruction of its own.
    for kind, lesser in (("bf16", "f32"), ("int8", "bf16"), ("int4", "int8")):
        if found.get(kind, {}).get("rate", 0) < found[lesser]["rate"]:
            found[kind] = found[lesser]
    return found


def repeat(run, seconds=6.0, most=5, warm=True):
    """Times of `run`: at least one, up to `most` or until `seconds` are used."""
    times, begin = [], time.perf_counter()
    if warm:
        run()
        if time.perf_counter() - begin > 3 * seconds:  # too slow for a second run: count the first
            return [time.perf_counter() - begin]
    begin = time.perf_counter()
    while not times or (len(times) < most and time.perf_counter() - begin < seconds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def emit(**values):
    print(json.dumps(values), flush=True)


def rate(times, tokens):
    rates = sorted(tokens / t for t in times)
    return {"min": rates[0], "median": statistics.median(rates), "max": rates[-1]}


def row(engine, version, weights, kind, bits, limit, cases, note="", cache_bytes=2):
    """A row of the table. `cases` maps names of CASES to {min, median, max} tokens a second, or to
    a text that says why there is none."""
    done = {}
    for case, value in cases.items():
        what, _, n = case.rpartition(" ")
        if isinstance(value, str):
            done[case] = {"missing": value}
        elif what == "prefill":
            operations = shape.prefill_operations(int(n)) / int(n)
            done[case] = {**value, "operations_per_token": operations,
                          "limit": limit[kind]["name"], "limit_ops_per_s": limit[kind]["rate"],
                          "share": value["median"] * operations / limit[kind]["rate"]}
        else:
            size = shape.decode_bytes(bits, int(n), cache_bytes)
            done[case] = {**value, "bytes_per_token": size, "limit_bytes_per_s": limit["read"],
                          "share": value["median"] * size / limit["read"]}
    return {"engine": engine, "version": version, "weights": weights, "note": note, "cases": done}


def failed(engine, error):
    return {"engine": engine, "error": str(error)}


def from_lines(lines):
    """Cases of a worker's lines {"case", "times", "tokens"} or {"case", "missing"}."""
    return {line["case"]: line.get("missing") or rate(line["times"], line["tokens"])
            for line in lines if "case" in line}


def said(lines, key):
    """Value of `key` in a worker's lines, notes joined."""
    return "; ".join(dict.fromkeys(str(line[key]) for line in lines if key in line))


def table(rows):
    """Aligned text of rows of cells; the first row is the head. The first two columns lean left."""
    widths = [max(len(r[c]) for r in rows) for c in range(len(rows[0]))]
    lines = []
    for r in rows:
        cells = [cell.ljust(w) if c < 2 else cell.rjust(w)
                 for c, (cell, w) in enumerate(zip(r, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
