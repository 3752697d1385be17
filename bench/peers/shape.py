"""The one shape that every engine runs, in the two forms in which engines know it.

LongCat: Flash-Lite's widths without n-grams, few layers, fewer experts. A layer of it is two
attentions, two dense FFNs and one mixture of experts, of which a token's top-k entries hit zero
experts in proportion, so 8 real ones on average.

DeepSeek-V2, for engines that don't know LongCat: the same matrices in another order. Each LongCat
layer becomes one dense layer (attention, FFN) and one mixture layer (attention, 8 experts a token,
and 6 shared experts that together are as wide as the other dense FFN). A token reads the same
number of weights and multiplies the same number of times; only the router is narrower.
"""

HIDDEN, HEADS, Q_RANK, KV_RANK = 3072, 32, 1536, 512
NOPE, ROPE, V_HEAD = 128, 64, 128
DENSE, EXPERT = 6144, 1024
LAYERS, EXPERTS, ZERO_EXPERTS, TOP_K, VOCAB = 3, 48, 24, 12, 16384
REAL_EXPERTS = TOP_K * EXPERTS // (EXPERTS + ZERO_EXPERTS)
PREFILL, DEPTHS = (512, 2048), (0, 8192, 32768)

LONGCAT = {
    "architectures": ["LongcatFlashForCausalLM"], "model_type": "longcat_flash",
    "attention_method": "MLA", "vocab_size": VOCAB, "hidden_size": HIDDEN, "num_layers": LAYERS,
    "num_hidden_layers": 2 * LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
    "q_lora_rank": Q_RANK, "kv_lora_rank": KV_RANK, "qk_nope_head_dim": NOPE,
    "qk_rope_head_dim": ROPE, "v_head_dim": V_HEAD, "head_dim": ROPE, "ffn_hidden_size": DENSE,
    "expert_ffn_hidden_size": EXPERT, "n_routed_experts": EXPERTS,
    "zero_expert_num": ZERO_EXPERTS, "zero_expert_type": "identity", "moe_topk": TOP_K,
    "routed_scaling_factor": 6.0, "router_bias": False, "norm_topk_prob": False,
    "attention_bias": False, "attention_dropout": 0.0, "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "rope_theta": 5000000.0, "max_position_embeddings": 131072, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02, "use_cache": True,
    "torch_dtype": "bfloat16",
}

DEEPSEEK = {
    "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "vocab_size": VOCAB,
    "hidden_size": HIDDEN, "num_hidden_layers": 2 * LAYERS, "first_k_dense_replace": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "q_lora_rank": Q_RANK,
    "kv_lora_rank": KV_RANK, "qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE,
    "v_head_dim": V_HEAD, "intermediate_size": DENSE, "moe_intermediate_size": EXPERT,
    "n_routed_experts": EXPERTS, "num_experts_per_tok": REAL_EXPERTS,
    "n_shared_experts": DENSE // EXPERT, "n_group": 1, "topk_group": 1, "topk_method": "greedy",
    "moe_layer_freq": 1, "scoring_func": "softmax", "norm_topk_prob": False,
    "routed_scaling_factor": 6.0, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "rope_theta": 5000000.0, "max_position_embeddings": 131072, "attention_bias": False,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
}


def weights_of_token(head=True):
    """Weights that one token multiplies with, router apart."""
    attention = (HIDDEN * Q_RANK + Q_RANK * HEADS * (NOPE + ROPE) + HIDDEN * (KV_RANK + ROPE)
                 + KV_RANK * HEADS * (NOPE + V_HEAD) + HEADS * V_HEAD * HIDDEN)
    ffn = 3 * HIDDEN * (DENSE * 2 + EXPERT * REAL_EXPERTS)
    return LAYERS * (2 * attention + ffn) + (HIDDEN * VOCAB if head else 0)


def absorbed_weights():
    """Of those, the keys' and values' part of every attention (k_b and v_b in GGUF)."""
    return 2 * LAYERS * KV_RANK * HEADS * (NOPE + V_HEAD)


def decode_bytes(bits, depth, cache_bytes=2):
    """What one decoded token must read at least: its weights, the fp32 routers, and the cached
    latents of every attention once."""
    router = LAYERS * (EXPERTS + ZERO_EXPERTS) * HIDDEN * 4
    cache = 2 * LAYERS * depth * (KV_RANK + ROPE) * cache_bytes
    return weights_of_token() * bits / 8 + router + cache


def prefill_operations(tokens):
    """Multiplications and additions of a whole prompt; the head for its last token only; attention
    over keys and values that were expanded once (the form with the fewest operations)."""
    products = 2 * weights_of_token(head=False) * tokens + 2 * HIDDEN * VOCAB
    pairs = tokens * (tokens + 1) // 2
    return products + 2 * LAYERS * HEADS * 2 * (NOPE + ROPE + V_HEAD) * pairs
