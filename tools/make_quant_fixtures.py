#!/usr/bin/env python3
"""Writes tests/golden/quant/: one small LongCat-Flash-Lite, quantised and stored by the tools that
people use, with the hash of every weight as those tools dequantise it.

    python3 -m venv v && v/bin/pip install "mlx[cpu]" mlx-lm compressed-tensors auto-round torch numpy
    make && v/bin/python tools/make_quant_fixtures.py

The committed files were made by mlx 0.32.4, mlx-lm 0.32.2, compressed-tensors 0.20.0, auto-round
0.16.1 and torch 2.9.1. Weights are random, with outliers; packing and dequantising are the tools'.

expected.json: "weights" maps each weight's name (as in a BF16 checkpoint) to the SHA-256 of its
values, fp32, row by row. The tools dequantise in the type of the scales; here the scales are
widened to fp32 before, so that a value has one rounding. mlx/expected.safetensors also holds
mlx-lm's logits: the dequantised model in fp32, which has mla_eps 1e-5 and no EOS rule.
"""
import hashlib
import json
import os
import tempfile

import numpy as np
import torch
from safetensors.torch import save_file

OUT = "tests/golden/quant"
CONFIG = {
    "architectures": ["LongcatFlashNgramForCausalLM"], "model_type": "longcat_flash_ngram",
    "attention_method": "MLA", "vocab_size": 64, "hidden_size": 64, "num_layers": 1,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": 32,
    "kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
    "ffn_hidden_size": 64, "expert_ffn_hidden_size": 32, "n_routed_experts": 3,
    "zero_expert_num": 1, "zero_expert_type": "identity", "moe_topk": 2,
    "routed_scaling_factor": 2.0, "router_bias": False, "norm_topk_prob": False,
    "attention_bias": False, "mla_scale_q_lora": True, "mla_scale_kv_lora": True,
    "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
    "max_position_embeddings": 64, "tie_word_embeddings": False, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 3, "emb_neighbor_num": 2, "emb_split_num": 1,
    "ngram_vocab_size_ratio": 1.0, "torch_dtype": "bfloat16",
}
R = np.random.RandomState(7)


def random_weight(*shape):
    w = R.standard_normal(shape) / np.sqrt(shape[-1])
    w *= 1 + 3 * (R.random_sample(shape) < 0.02)
    return torch.tensor(w, dtype=torch.float32).to(torch.bfloat16)


def make_weights():
    c = CONFIG
    h, q, r, n = c["hidden_size"], c["q_lora_rank"], c["kv_lora_rank"], c["num_attention_heads"]
    nope, rope, v = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    norm = lambda d: torch.tensor(1 + 0.1 * R.standard_normal(d)).to(torch.bfloat16)
    w = {"model.embed_tokens.weight": random_weight(c["vocab_size"], h) * 8,
         "model.norm.weight": norm(h), "lm_head.weight": random_weight(c["vocab_size"], h),
         "model.ngram_embeddings.embedders.0.weight": random_weight(65, h) * 8,
         "model.ngram_embeddings.post_projs.0.weight": random_weight(h, h)}
    ffn = lambda at, width: {at + ".gate_proj.weight": random_weight(width, h),
                             at + ".up_proj.weight": random_weight(width, h),
                             at + ".down_proj.weight": random_weight(h, width)}
    at = "model.layers.0"
    for s in range(2):
        a = f"{at}.self_attn.{s}"
        w |= {f"{at}.input_layernorm.{s}.weight": norm(h),
              f"{at}.post_attention_layernorm.{s}.weight": norm(h),
              a + ".q_a_proj.weight": random_weight(q, h), a + ".q_a_layernorm.weight": norm(q),
              a + ".q_b_proj.weight": random_weight(n * (nope + rope), q),
              a + ".kv_a_proj_with_mqa.weight": random_weight(r + rope, h),
              a + ".kv_a_layernorm.weight": norm(r),
              a + ".kv_b_proj.weight": random_weight(n * (nope + v), r),
              a + ".o_proj.weight": random_weight(h, n * v)}
        w |= ffn(f"{at}.mlps.{s}", c["ffn_hidden_size"])
    entries = c["n_routed_experts"] + c["zero_expert_num"]
    w[at + ".mlp.router.classifier.weight"] = random_weight(entries, h) * 3
    w[at + ".mlp.router.e_score_correction_bias"] = torch.tensor(
        0.01 * R.standard_normal(entries), dtype=torch.float32)
    for e in range(c["n_routed_experts"]):
        w |= ffn(f"{at}.mlp.experts.{e}", c["expert_ffn_hidden_size"])
    return w


def digest(values):
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()


def write(name, stored, config, weights, about):
    folder = f"{OUT}/{name}"
    os.makedirs(folder, exist_ok=True)
    if stored is not None:
        save_file({k: v.contiguous() for k, v in stored.items()}, f"{folder}/model.safetensors")
    json.dump(config, open(f"{folder}/config.json", "w"), indent=1)
    hashes = {k: digest(v.float().numpy() if torch.is_tensor(v) else v)
              for k, v in sorted(weights.items())}
    json.dump({"about": about, "weights": hashes}, open(f"{folder}/expected.json", "w"), indent=1)


# ---- compressed-tensors ----

def make_compressed(weights):
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

    def scheme(fmt, targets, **args):
        return QuantizationScheme(targets=targets, format=fmt, weights=QuantizationArgs(**args))

    schemes = {
        "group_0": scheme("pack-quantized", [r"re:.*mlp\.experts.*"], num_bits=4, strategy="group",
                          group_size=32, symmetric=True),
        "group_1": scheme("pack-quantized", [r"re:.*mlps\.0.*"], num_bits=4, strategy="group",
                          group_size=32, symmetric=False),
        "group_2": scheme("pack-quantized", [r"re:.*mlps\.1.*"], num_bits=8, strategy="group",
                          group_size=64, symmetric=False),
        "group_3": scheme("int-quantized", [r"re:.*self_attn\.0.*"], num_bits=8, strategy="channel",
                          symmetric=True),
        "group_4": scheme("int-quantized", [r"re:.*o_proj"], num_bits=8, strategy="group",
                          group_size=32, symmetric=True),
        "group_5": scheme("pack-quantized", [r"re:.*q_b_proj"], num_bits=4, strategy="channel",
                          symmetric=False),
    }
    stored, values = {}, {}
    pick = [("experts", 0, torch.bfloat16), (".mlps.0", 1, torch.float16),
            (".mlps.1", 2, torch.float32), ("self_attn.0.", 3, torch.bfloat16),
            ("self_attn.1.o_proj", 4, torch.bfloat16), ("self_attn.1.q_b", 5, torch.bfloat16)]
    for name, w in weights.items():
        found = next((p for p in pick if p[0] in name and "norm" not in name), None)
        if not found:
            stored[name] = values[name] = w
            continue
        s = schemes[f"group_{found[1]}"]
        args, x = s.weights, w.float()
        size = args.group_size or x.shape[1]
        g = x.reshape(x.shape[0], -1, size)
        low, high = -(1 << (args.num_bits - 1)), (1 << (args.num_bits - 1)) - 1
        if args.symmetric:
            scale, zero = g.abs().amax(-1) / high, None
        else:
            top, bottom = g.amax(-1).clamp(min=0), g.amin(-1).clamp(max=0)
            scale = (top - bottom) / (high - low)
            zero = torch.clamp(torch.round(low - bottom / scale), low, high).to(torch.int8)
        scale = scale.to(found[2])
        state = {"weight": x, "weight_scale": scale.float()}
        if zero is not None:
            state["weight_zero_point"] = zero
        tool = BaseCompressor.get_value_from_registry(s.format)
        packed = tool.compress(state, s)
        values[name] = tool.decompress(dict(packed), s)["weight"]
        packed["weight_scale"] = scale
        module = name.removesuffix("weight")
        stored |= {module + k: v for k, v in packed.items()}
    q = QuantizationConfig(config_groups=schemes, format="mixed-precision",
                           quantization_status="compressed", ignore=["lm_head"]).to_dict()
    write("compressed-tensors", stored, CONFIG | {"quantization_config": json.loads(json.dumps(q, default=str))},
          values, "compressed-tensors: int4 and int8, groups and channels, with and without zero "
          "points, pack-quantized and int-quantized; scales BF16, F16 and F32")


# ---- AutoRound, GPTQ packing ----

def make_gptq(weights, name, raw):
    from auto_round_extension.torch.qlinear_torch import QuantLinear as Raw
    from auto_round_extension.torch.qlinear_torch_zp import QuantLinear as Classic
    stored, values = {}, {}
    for weight, w in weights.items():
        rows, cols = (w.shape[0], w.shape[-1]) if w.dim() == 2 else (0, 0)
        chosen = ("experts" in weight or "mlps" in weight or "o_proj" in weight) and rows % 32 == 0
        if not chosen:
            stored[weight] = values[weight] = w
            continue
        bits, size = (8, 64) if "o_proj" in weight else (4, 32)
        x, top = w.float(), (1 << bits) - 1
        g = x.reshape(rows, -1, size)
        if "gate" in weight:  # asymmetric
            scale = (g.amax(-1) - g.amin(-1)) / top
            zero = torch.clamp(torch.round(-g.amin(-1) / scale), 1, top)
        else:
            scale = g.abs().amax(-1) / (top // 2)
            zero = torch.full_like(scale, (top + 1) // 2)
        layer = torch.nn.Linear(cols, rows, bias=False)
        layer.weight.data = x
        q = (Raw if raw else Classic)(bits, size, cols, rows, False, g_idx=not raw)
        q.device = "cpu"
        q.pack(layer, scale.half().float(), zero, None, device="cpu")
        module = weight.removesuffix("weight")
        keep = {"qweight": q.qweight, "qzeros": q.qzeros, "scales": q.scales}
        if not raw:
            keep["g_idx"] = q.g_idx.clone()
            del q.g_idx  # their reading of it fails where rows > columns; it is the plain order
        stored |= {module + k: v.clone() for k, v in keep.items()}
        q.scales = q.scales.float()
        q.dequant_dtype = torch.int32
        values[weight] = q.forward(torch.eye(cols)).t()
    config = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": False,
              "packing_format": "auto_round" if raw else "auto_round:auto_gptq",
              "extra_config": {f"model.layers.0.self_attn.{s}.o_proj": {"bits": 8, "group_size": 64}
                               for s in range(2)}}
    if not raw:
        config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False,
                  "sym": False, "checkpoint_format": "gptq"}
    about = ("AutoRound's packing with zero points as they are, no g_idx" if raw else
             "GPTQ packing (AutoRound's packer of format auto_gptq): zero points less one, g_idx")
    write(name, stored, CONFIG | {"quantization_config": config}, values,
          about + "; int4 in groups of 32, o_proj int8 in groups of 64")


# ---- MLX ----

def make_mlx(weights):
    import mlx.core as mx
    import mlx_lm.utils as utils
    from pathlib import Path
    folder_of_source = tempfile.TemporaryDirectory()
    source = Path(folder_of_source.name)
    bf16 = {k: v.contiguous() for k, v in weights.items()}
    save_file(bf16, source / "model.safetensors", metadata={"format": "pt"})
    json.dump(CONFIG, open(source / "config.json", "w"))
    model, config = utils.load_model(source)

    def predicate(path, module):
        if "norm" in path:
            return False
        if path.endswith("classifier") or "post_projs" in path:
            return {"group_size": 64, "bits": 8}
        if "self_attn.1" in path or "embed_tokens" in path or "word_embeddings" in path:
            return {"group_size": 32, "bits": 8}
        return "mlps.1" not in path

    model, config = utils.quantize_model(model, config, 32, 4, quant_predicate=predicate)
    folder = Path(f"{OUT}/mlx")
    utils.save_model(folder, model)
    utils.save_config(config, folder / "config.json")
    for extra in ("README.md", "model.safetensors.index.json"):
        (folder / extra).unlink(missing_ok=True)
    flat = dict(mx.load(str(folder / "model.safetensors")))

    def value(module):
        w = flat[module + ".weight"]
        if module + ".scales" not in flat:
            return np.array(w.astype(mx.float32))
        s, b = (flat[module + k].astype(mx.float32) for k in (".scales", ".biases"))
        size = None
        for g in (32, 64, 128):
            for bits in (4, 8):
                if w.shape[-1] * 32 // bits == s.shape[-1] * g:
                    q = config["quantization"].get(module, {"group_size": 32, "bits": 4})
                    if q == {"group_size": g, "bits": bits}:
                        size = (g, bits)
        return np.array(mx.dequantize(w, s, b, group_size=size[0], bits=size[1]))

    values, at = {}, "model.layers.0"
    for name in weights:
        module = name.removesuffix(".weight")
        if "e_score" in name:
            values[name] = np.array(flat[name])
        elif ".experts." in name:
            e, proj = name.split(".experts.")[1].split(".")[:2]
            values[name] = value(f"{at}.mlp.switch_mlp.{proj}")[int(e)]
        elif "kv_b_proj" in name:
            a = module.removesuffix("kv_b_proj")
            k, v = value(a + "embed_q"), value(a + "unembed_out")
            values[name] = np.concatenate([k.swapaxes(-1, -2), v], axis=1).reshape(-1, k.shape[1])
        elif name == "model.embed_tokens.weight":
            values[name] = value("model.ngram_embeddings.word_embeddings")
        else:
            values[name] = value(module)
    write("mlx", None, json.load(open(folder / "config.json")), values,
          "mlx-lm: affine int4 in groups of 32, int8 in groups of 32 and 64, one FFN left alone")
    # logits of the dequantised model in fp32
    plain, _ = utils.load_model(source)
    plain.load_weights(list(plain.sanitize(
        {k: mx.array(np.asarray(v, dtype=np.float32)) for k, v in values.items()}).items()), strict=False)
    ids = R.randint(4, 64, size=(2, 24))
    logits = np.array(plain(mx.array(ids)).astype(mx.float32))
    save_file({"input_ids": torch.tensor(ids), "logits": torch.tensor(logits)},
              str(folder / "expected.safetensors"))
    folder_of_source.cleanup()


# ---- our own files, as compressed-tensors reads them ----

def make_own(weights):
    """Quantises the BF16 source with build/longcat; keeps the hashes of what compressed-tensors
    makes of the result by its config."""
    import re
    import subprocess
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from safetensors.torch import load_file
    write("source", weights, CONFIG, weights, "the BF16 weights")
    runs = {}
    for run in (["int8"], ["int8", "--group", "32"], ["int4"], ["int4", "--group", "32"],
                ["mixed"], ["int4", "--embeddings", "--head"]):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["build/longcat", "quantize", f"{OUT}/source", folder, "--type"] + run,
                           check=True, stderr=subprocess.DEVNULL)
            stored = load_file(f"{folder}/model.safetensors")
            config = json.load(open(f"{folder}/config.json"))["quantization_config"]
        schemes = QuantizationConfig.model_validate(config)
        hashes = {}
        for name, w in weights.items():
            module = name.removesuffix(".weight")
            found = [g for g in schemes.config_groups.values()
                     if any(re.match(t[3:], module) for t in g.targets)]
            skipped = any(re.match(t[3:], module) for t in schemes.ignore)
            assert len(found) + skipped == (1 if w.dim() == 2 else 0), name
            if not found:
                assert torch.equal(stored[name], w)
                continue
            state = {k: stored[f"{module}.{k}"] for k in
                     ("weight", "weight_packed", "weight_scale", "weight_shape")
                     if f"{module}.{k}" in stored}
            state["weight_scale"] = state["weight_scale"].float()
            tool = BaseCompressor.get_value_from_registry(found[0].format)
            values = tool.decompress(state, found[0])["weight"]
            error = (values - w.float()).norm() / w.float().norm()
            assert error < (0.15 if found[0].weights.num_bits == 4 else 0.01), (name, error)
            hashes[name] = digest(values.float().numpy() + np.float32(0))  # no -0
        runs[" ".join(run)] = hashes
    json.dump({"about": "longcat quantize --type KEY, dequantised by compressed-tensors",
               "runs": runs}, open(f"{OUT}/source/quantized.json", "w"), indent=1)


if __name__ == "__main__":
    W = make_weights()
    make_own(W)
    make_compressed(W)
    make_gptq(W, "gptq", raw=False)
    make_gptq(W, "auto-round", raw=True)
    make_mlx(W)
