"""transformers on torch (CPU): the same LongCat checkpoint as ours, BF16, its own model code.

It keeps the latents in its cache, but expands them to keys and values of all heads in every step.
Its experts' tensor counts zero experts too, so its loader refuses a file in the official layout;
the weights are put in place here by name.
"""
import sys

import shape
from common import CASES, HERE, emit, from_lines, repeat, row, said

PACKAGES = ["torch==2.13.0", "transformers==5.24.0", "safetensors", "accelerate", "numpy"]
DECODE_STEPS = {0: 16, 8192: 2, 32768: 1}
MOST_SECONDS = 100


def prepare(work):
    work.venv("torch", *PACKAGES)


def measure(work, limit):
    from peer_longcat import model
    now = limit()
    lines = work.worker("transformers", work.venv("torch", *PACKAGES),
                        [HERE / "peer_transformers.py", model(work, "bf16"), work.threads],
                        timeout=MOST_SECONDS)
    cases = {case: f"over {MOST_SECONDS} s" for case in CASES} | from_lines(lines)
    return [row("transformers", said(lines, "version"), "bf16", "bf16", 16, now, cases,
                said(lines, "note"))]


def load(folder):
    import json
    import pathlib
    import torch
    from safetensors import safe_open
    from transformers import LongcatFlashConfig, LongcatFlashForCausalLM
    from transformers.initialization import no_init_weights

    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    for key in ("architectures", "model_type", "torch_dtype"):
        config.pop(key, None)
    torch.set_default_dtype(torch.bfloat16)
    with no_init_weights():
        model = LongcatFlashForCausalLM(LongcatFlashConfig(**config)).eval()
    ours = dict(model.named_parameters()) | dict(model.named_buffers())
    loaded = set()
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as f:
            for name in f.keys():
                place, tensor = name, f.get_tensor(name)
                parts = name.split(".")
                if "experts" in parts:
                    e = parts.index("experts")
                    kind = parts[e + 2]
                    fused = "down_proj" if kind == "down_proj" else "gate_up_proj"
                    place = ".".join(parts[:e + 1] + [fused])
                    target = ours[place].data[int(parts[e + 1])]
                    if kind == "up_proj":
                        target = target[shape.EXPERT:]
                    elif kind == "gate_proj":
                        target = target[:shape.EXPERT]
                else:
                    target = ours[place].data
                target.copy_(tensor)
                loaded.add(place)
    missing = [n for n, _ in model.named_parameters() if n not in loaded]
    assert not missing, f"weights missing: {missing[:3]}"
    return model


def main(folder, threads):
    import torch
    import transformers
    from transformers import DynamicCache

    torch.set_num_threads(int(threads))
    emit(version=f"{transformers.__version__}, torch {torch.__version__}")
    model = load(folder)

    def prefill(tokens):
        with torch.inference_mode():
            ids = torch.randint(3, shape.VOCAB, (1, tokens))
            return model(ids, use_cache=True, logits_to_keep=1).past_key_values

    for n in shape.DEPTHS:
        cache = prefill(4)
        if n:
            filled = DynamicCache(config=model.config)
            for i, layer in enumerate(cache.layers):
                size = lambda t: (*t.shape[:2], n, t.shape[3])
                filled.update(torch.randn(size(layer.keys), dtype=torch.bfloat16),
                              torch.randn(size(layer.values), dtype=torch.bfloat16), i)
            cache = filled
        steps = DECODE_STEPS[n]

        def decode():
            with torch.inference_mode():
                for _ in range(steps):
                    ids = torch.randint(3, shape.VOCAB, (1, 1))
                    model(ids, cache=cache, use_cache=True)

        emit(case=f"decode at {n}", times=repeat(decode, most=3), tokens=steps)
    for n in shape.PREFILL:
        emit(case=f"prefill {n}", times=repeat(lambda: prefill(n), most=3), tokens=n)


if __name__ == "__main__":
    main(*sys.argv[1:])
