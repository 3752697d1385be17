"""llama.cpp and ik_llama.cpp, built from source for this processor (with --isa: for that set), on
the DeepSeek-V2 form of the shape (llama_models.py): prefill and decode of a short context by their
own llama-bench, deep contexts by llama_depth.c. The settings are those that were fastest when this
was written.

llama.cpp's source is the one inside llama-cpp-python's source package; ik_llama.cpp is cloned.
Where the clone can't be made, put a copy of the source into WORK/src/ik_llama.cpp by hand.
"""
import json
import platform
import tarfile

import shape
from common import CASES, HERE, PeerError, failed, rate, row

GGUF = ["gguf==0.19.0", "numpy"]
KINDS = {"q8_0": ("int8", 8.5, 16), "q4_K": ("int4", 4.5, 5.5), "q4_0": ("int4", 4.5, 5.5),
         "bf16": ("bf16", 16, 16)}  # operands; bits of a weight, of one of k_b and v_b
TYPES = {name: (kind, bits + (own - bits) * shape.absorbed_weights() / shape.weights_of_token())
         for name, (kind, bits, own) in KINDS.items()}
DEEPEST = max(shape.DEPTHS)
IK_SOURCE = "https://github.com/ikawrakow/ik_llama.cpp"
IK_COMMIT = "8337e4cd3861406fc04e0854b1409cd1b027fbc9"
LLAMA_PACKAGE = "llama-cpp-python==0.3.36"
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"  # its AMX code crashes in ldtilecfg here
CMAKE = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_CURL=OFF",
         "-DLLAMA_BUILD_TESTS=OFF"]
ISA = {None: ["-DGGML_NATIVE=ON"],
       "avx2": ["-DGGML_NATIVE=OFF", "-DGGML_AVX=ON", "-DGGML_AVX2=ON", "-DGGML_FMA=ON",
                "-DGGML_F16C=ON"]}


class Engine:
    def __init__(self, name, version, flags, flash, types, bench):
        self.name, self.version, self.flags = name, version, flags
        self.flash, self.types, self.bench = flash, types, bench

    def source(self, work):
        if self.name == "ik_llama.cpp":
            return work.root / "src" / self.name
        return work.root / "src" / "llama_cpp_python" / "vendor" / "llama.cpp"

    def built(self, work):
        """Name of the build: that of --isa stands beside the native one."""
        return f"{self.name}-{work.options.isa}" if work.options.isa else self.name

    def tool(self, work, name):
        return work.root / "build" / self.built(work) / "bin" / name


ENGINES = [
    Engine("ik_llama.cpp", IK_COMMIT[:9], ["-DIK_LLAMA"], 1, ["q8_0", "q4_K", "bf16"],
           ["-mla", "3", "-fa", "1", "-fmoe", "1", "-rtr", "1", "-mmp", "0"]),
    Engine("llama.cpp", LLAMA_PACKAGE, [], 1, ["q8_0", "q4_K"], ["-fa", "on", "-lm", "none"]),
]


def fetch(work, engine):
    target = engine.source(work)
    if (target / "CMakeLists.txt").exists():
        return
    if engine.name == "ik_llama.cpp":
        work.run("fetch ik_llama.cpp", ["git", "clone", "--filter=blob:none", IK_SOURCE, target])
        work.run("fetch ik_llama.cpp", ["git", "-C", target, "checkout", IK_COMMIT])
        return
    python = work.venv("gguf", *GGUF)
    folder = work.root / "src"
    work.run("fetch llama.cpp", [python, "-m", "pip", "download", "--no-deps", "--no-binary",
                                 ":all:", "-d", folder, LLAMA_PACKAGE])
    archive = next(folder.glob("llama_cpp_python-*.tar.gz"))
    with tarfile.open(archive) as tar:
        top = tar.getnames()[0].split("/")[0]
        tar.extractall(folder)
    (folder / top).rename(folder / "llama_cpp_python")


def build(work, engine):
    out, source = work.root / "build" / engine.built(work), engine.source(work)
    flags = ["-mbmi2"] if work.options.isa else []
    own, targets = ["-DLLAMA_BUILD_SERVER=ON"], ["llama-bench", "llama-server"]  # bench/serve/beside
    if engine.name == "llama.cpp":
        own, targets = ["-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_OPENSSL=OFF"], ["llama-bench"]
        if platform.machine() == "x86_64":
            flags.append(NO_AMX)
    if flags:
        own += [f"-DCMAKE_{c}_FLAGS={' '.join(flags)}" for c in ("C", "CXX")]
    log = f"build {engine.built(work)}"
    work.run(log, ["cmake", "-S", source, "-B", out, *CMAKE, *ISA[work.options.isa], *own])
    work.run(log, ["nice", "-n", "19", "cmake", "--build", out, "--target", *targets,
                   "-j", str(work.threads)])
    libraries = [p for name in ("libllama*.a", "libggml*.a") for p in sorted(out.rglob(name))]
    work.run(log, ["cc", "-std=gnu11", "-O2", *engine.flags, f"-I{source}/include",
                   f"-I{source}/ggml/include", "-c", HERE / "llama_depth.c", "-o",
                   out / "llama_depth.o"])
    work.run(log, ["c++", out / "llama_depth.o", "-o", engine.tool(work, "llama_depth"),
                   "-Wl,--start-group", *libraries, "-Wl,--end-group", "-fopenmp", "-lpthread",
                   "-ldl"])


def model(work, name):
    return work.root / "models" / "gguf" / f"{name}.gguf"


def state(work, engine):
    return work.root / "models" / "state" / engine.name


def prepare(work):
    python = work.venv("gguf", *GGUF)
    for folder in ("gguf", "state"):
        (work.root / "models" / folder).mkdir(exist_ok=True)
    version = json.dumps([shape.DEEPSEEK, KINDS])
    for name in ["thin", *TYPES]:
        work.step(f"gguf {name}", version, lambda name=name: work.run(
            "gguf", [python, HERE / "llama_models.py", model(work, name).parent, name]))
    problems = []
    for engine in ENGINES:
        try:
            work.step(f"fetch {engine.name}", engine.version, lambda: fetch(work, engine))
            work.step(f"build {engine.built(work)}", engine.version, lambda: build(work, engine))
            work.step(f"state {engine.name}", f"{engine.version} {version}", lambda: work.run(
                f"state {engine.name}",
                [engine.tool(work, "llama_depth"), "save", model(work, "thin"),
                 state(work, engine), str(work.threads), str(engine.flash), str(DEEPEST)]))
        except PeerError as e:
            problems.append(str(e))
    if problems:
        raise PeerError("; ".join(problems))


def bench(work, engine, name, prefill, steps):
    """llama-bench: {case: rate}."""
    output = work.run(f"{engine.name} {name}", [
        engine.tool(work, "llama-bench"), "-m", model(work, name), *engine.bench, "-ub", "2048", "-t",
        str(work.threads), "-p", ",".join(map(str, prefill)), "-n", str(steps),
        "-r", "2", "-o", "json"], timeout=240)
    cases = {}
    for test in json.loads(output[output.index("["):]):
        case = f"prefill {test['n_prompt']}" if test["n_prompt"] else "decode at 0"
        cases[case] = rate([1 / s for s in test["samples_ts"]], 1)
    return cases


def depths(work, engine, name, which, steps):
    output = work.run(f"{engine.name} {name}", [
        engine.tool(work, "llama_depth"), "run", model(work, name), state(work, engine),
        str(work.threads), str(engine.flash), str(DEEPEST), str(steps), "3",
        *map(str, which)], timeout=180)
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"at"')]
    return {f"decode at {line['at']}": rate(line["times"], line["tokens"]) for line in lines}


def measure(work, limit):
    rows = []
    for engine in ENGINES:
        for name in engine.types:
            kind, bits = TYPES[name]
            now = limit()
            cases = {case: "not reached" for case in CASES}
            note = " ".join(engine.bench)
            try:
                cases |= bench(work, engine, name, shape.PREFILL, 16)
                cases |= depths(work, engine, name, [d for d in shape.DEPTHS if d], 8)
            except PeerError as e:
                if all(isinstance(c, str) for c in cases.values()):
                    rows.append(failed(f"{engine.name} {name}", e))
                    continue
                note = str(e)
            rows.append(row(engine.name, engine.version, name, kind, bits, now, cases, note))
    return rows
