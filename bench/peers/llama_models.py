"""Writes the DeepSeek-V2 form of the shape as GGUF files of random weights: one for each type, and
`thin`, which has the same cache and next to no weights (see llama_depth.c). Needs gguf and numpy.

Blocks of a quantised type are drawn as bytes; their scales give weights of about 1/sqrt(inputs), so
that activations keep their size. The small k_b and v_b are BF16 beside Q8_0 and Q5_0 beside 4 bits
(as llama.cpp's own quantiser has k_b, whose rows are too short for Q4_K): llama.cpp stops with an
assertion on AMX machines if they have a type that its AMX code takes.
"""
import pathlib
import sys

import gguf
import numpy as np

import shape

TYPES = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0,
         "q4_K": gguf.GGMLQuantizationType.Q4_K, "q5_0": gguf.GGMLQuantizationType.Q5_0,
         "bf16": gguf.GGMLQuantizationType.BF16}
ABSORBED = {"q8_0": "bf16", "q4_0": "q5_0", "q4_K": "q5_0", "bf16": "bf16"}  # k_b, v_b
DEVIATION = {"q8_0": 73.9, "q4_0": 4.61, "q4_K": 262.0, "q5_0": 9.23}  # of a code's value, scale 1


def blocks(kind, rows, inputs, random):
    """rows x inputs weights as an array of bytes, one row a row."""
    if kind == "bf16":
        w = random.random((rows, inputs), dtype=np.float32) - np.float32(0.5)
        w *= np.float32((12 / inputs) ** 0.5)
        return (w.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    weights, size = gguf.GGML_QUANT_SIZES[TYPES[kind]]
    count = rows * inputs // weights
    raw = np.frombuffer(random.bytes(count * size), np.uint8).reshape(count, size).copy()
    scale = inputs ** -0.5 / DEVIATION[kind]
    raw[:, :2] = np.array([scale], "<f2").view(np.uint8)
    if kind == "q4_K":
        raw[:, 2:4] = np.array([7.5 * scale], "<f2").view(np.uint8)
    return raw.reshape(rows, inputs // weights * size)


class Plan:
    """Names and sizes first, then the data in the same order, a tensor at a time."""

    def __init__(self, path, kind):
        self.writer = gguf.GGUFWriter(path, "deepseek2")
        self.kind, self.todo, self.random = kind, [], np.random.default_rng(1)

    def norm(self, name, n):
        self.add(name, (n,), np.ones(n, np.float32))

    def router(self, name, entries, inputs):
        w = self.random.standard_normal((entries, inputs), dtype=np.float32) * inputs ** -0.5
        self.add(name, w.shape, w)

    def weight(self, name, *sizes):
        kind = ABSORBED[self.kind] if name.endswith(("_k_b", "_v_b")) else self.kind
        rows = int(np.prod(sizes[:-1]))
        weights, size = gguf.GGML_QUANT_SIZES[TYPES[kind]]
        nbytes = rows * sizes[-1] // weights * size
        self.writer.add_tensor_info(name + ".weight", sizes, np.dtype(np.float32), nbytes,
                                    raw_dtype=TYPES[kind])
        self.todo.append(lambda: blocks(kind, rows, sizes[-1], self.random))

    def add(self, name, sizes, data):
        self.writer.add_tensor_info(name + ".weight", sizes, data.dtype, data.nbytes)
        self.todo.append(lambda: data)

    def write(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_ti_data_to_file()
        for data in self.todo:
            self.writer.write_tensor_data(data())
        self.writer.close()


def describe(w, hidden, heads, q_rank, dense_layers, ffn):
    layers = 2 * shape.LAYERS
    w.add_name("shape of bench/peers")
    w.add_context_length(131072)
    w.add_embedding_length(hidden)
    w.add_block_count(layers)
    w.add_feed_forward_length(ffn)
    w.add_head_count(heads)
    w.add_head_count_kv(1)
    w.add_rope_freq_base(shape.LONGCAT["rope_theta"])
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(shape.VOCAB)
    w.add_leading_dense_block_count(dense_layers)
    w.add_q_lora_rank(q_rank)
    w.add_kv_lora_rank(shape.KV_RANK)
    w.add_key_length(shape.KV_RANK + shape.ROPE)
    w.add_value_length(shape.KV_RANK)
    w.add_key_length_mla(shape.NOPE + shape.ROPE)
    w.add_value_length_mla(shape.V_HEAD)
    w.add_expert_feed_forward_length(shape.EXPERT)
    w.add_expert_count(shape.EXPERTS)
    w.add_expert_used_count(shape.REAL_EXPERTS)
    w.add_expert_shared_count(shape.DENSE // shape.EXPERT)
    w.add_expert_weights_scale(shape.LONGCAT["routed_scaling_factor"])
    w.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)
    w.add_rope_dimension_count(shape.ROPE)
    special = ["<unk>", "<s>", "</s>", "\n"]  # a vocabulary of words, for llama-server, which prints what it samples
    types = [gguf.TokenType.UNKNOWN] + 2 * [gguf.TokenType.CONTROL] + (shape.VOCAB - 3) * [gguf.TokenType.NORMAL]
    w.add_tokenizer_model("llama")
    w.add_token_list(special + [f"w{i}" for i in range(len(special), shape.VOCAB)])
    w.add_token_scores([0.0] * shape.VOCAB)
    w.add_token_types(types)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)


def write(path, kind, hidden=shape.HIDDEN, heads=shape.HEADS, q_rank=shape.Q_RANK,
          dense_layers=shape.LAYERS, ffn=shape.DENSE):
    plan = Plan(path, kind)
    describe(plan.writer, hidden, heads, q_rank, dense_layers, ffn)
    plan.weight("token_embd", shape.VOCAB, hidden)
    plan.norm("output_norm", hidden)
    plan.weight("output", shape.VOCAB, hidden)
    for i in range(2 * shape.LAYERS):
        b = f"blk.{i}."
        plan.norm(b + "attn_norm", hidden)
        plan.weight(b + "attn_q_a", q_rank, hidden)
        plan.norm(b + "attn_q_a_norm", q_rank)
        plan.weight(b + "attn_q_b", heads * (shape.NOPE + shape.ROPE), q_rank)
        plan.weight(b + "attn_kv_a_mqa", shape.KV_RANK + shape.ROPE, hidden)
        plan.norm(b + "attn_kv_a_norm", shape.KV_RANK)
        plan.weight(b + "attn_k_b", heads, shape.KV_RANK, shape.NOPE)
        plan.weight(b + "attn_v_b", heads, shape.V_HEAD, shape.KV_RANK)
        plan.weight(b + "attn_output", hidden, heads * shape.V_HEAD)
        plan.norm(b + "ffn_norm", hidden)
        suffix = "" if i < dense_layers else "_shexp"
        for name in ("ffn_gate", "ffn_up"):
            plan.weight(b + name + suffix, ffn, hidden)
        plan.weight(b + "ffn_down" + suffix, hidden, ffn)
        if i < dense_layers:
            continue
        plan.router(b + "ffn_gate_inp", shape.EXPERTS, hidden)
        for name in ("ffn_gate_exps", "ffn_up_exps"):
            plan.weight(b + name, shape.EXPERTS, shape.EXPERT, hidden)
        plan.weight(b + "ffn_down_exps", shape.EXPERTS, hidden, shape.EXPERT)
    plan.write()


def main(folder, kind):
    path = str(pathlib.Path(folder) / f"{kind}.gguf")
    if kind == "thin":
        write(path, "q8_0", hidden=256, heads=4, q_rank=256, dense_layers=2 * shape.LAYERS, ffn=256)
    else:
        write(path, kind)


if __name__ == "__main__":
    main(*sys.argv[1:])
