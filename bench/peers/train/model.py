"""LongCat-2.0's architecture in PyTorch, for training on a CPU: the peer of src/train.

Parameters are a dictionary under the names of the checkpoint, so both programs start from the same
file. Written for speed as a PyTorch user would: BF16 autocast over fp32 weights, SDPA with its
flash kernel, experts as a loop over slices of sorted rows, fused AdamW; the parts between the
products may be compiled. `check.py` compares losses and gradients with tests/golden/model.
"""
import json
import math
import pathlib

import torch
import torch.nn.functional as F


class Config:
    def __init__(self, folder):
        c = json.loads((pathlib.Path(folder) / "config.json").read_text())
        get = c.get
        self.vocab, self.hidden = c["vocab_size"], c["hidden_size"]
        self.layers = get("num_layers") or c["num_hidden_layers"] // 2
        self.heads = c["num_attention_heads"]
        self.q_rank, self.kv_rank = c["q_lora_rank"], c["kv_lora_rank"]
        self.nope, self.rope, self.v_dim = (c[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim",
                                                           "v_head_dim"))
        self.ffn, self.expert_ffn = c["ffn_hidden_size"], c["expert_ffn_hidden_size"]
        self.experts, self.zero = c["n_routed_experts"], get("zero_expert_num") or 0
        self.topk, self.scale = c["moe_topk"], c["routed_scaling_factor"]
        self.eps, self.eos = c["rms_norm_eps"], c["eos_token_id"]
        self.order = get("oe_neighbor_num") or get("emb_neighbor_num") or 0
        self.splits = get("oe_split_num") or get("emb_split_num") or 0
        self.ratio = get("oe_vocab_size_ratio") or get("ngram_vocab_size_ratio") or 0
        self.oe_names = "oe_neighbor_num" in c
        self.tables = self.splits * (self.order - 1) if self.order else 0
        self.index_heads, self.index_dim = get("index_n_heads") or 0, get("index_head_dim") or 0
        self.index_topk = get("index_topk") or 0
        self.sink, self.window = get("index_init_tokens") or 0, get("index_local_tokens") or 0
        self.mla_eps = 1e-5 if self.index_heads else 1e-6
        self.mtp = get("mtp_num_layers") or get("num_nextn_predict_layers") or 0
        rope = get("rope_scaling") or {}
        self.theta, self.rope_scaling = c["rope_theta"], rope
        mscale = 1.0
        if rope and rope.get("factor", 1) > 1:
            mscale = 0.1 * rope.get("mscale_all_dim", 0) * math.log(rope["factor"]) + 1
        self.softmax_scale = (self.nope + self.rope) ** -0.5 * mscale ** 2

    def table_rows(self, i):
        return math.floor(self.ratio * self.vocab + 2 * i + 1)

    def table_name(self, i, kind):
        if self.oe_names:
            return f"model.oe_embed_{'tokens' if kind == 'table' else 'proj'}{i}.weight"
        kind = "embedders" if kind == "table" else "post_projs"
        return f"model.ngram_embeddings.{kind}.{i}.weight"


def load(folder):
    """Checkpoint as fp32 parameters by name; biases of routers get no gradient."""
    from safetensors.torch import load_file
    params = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        if path.name not in ("state.safetensors", "train.safetensors", "expected.safetensors"):
            params |= {k: v.float() for k, v in load_file(path).items()}
    for name, value in params.items():
        value.requires_grad_("e_score_correction_bias" not in name and ".mtp.oe_" not in name)
    return params


def rotary(c, length):
    """cos and sin [T][rope / 2], in the fp32 steps of the reference."""
    power = torch.tensor(float(c.theta)) ** (torch.arange(0, c.rope, 2).float() / c.rope)
    r = c.rope_scaling
    multiplier = 1.0
    if r and r.get("factor", 1) > 1:
        def turn(rotations):
            return (c.rope * math.log(r["original_max_position_embeddings"]
                                      / (2 * math.pi * rotations)) / (2 * math.log(c.theta)))
        low = max(math.floor(turn(r.get("beta_fast", 32))), 0)
        high = min(math.ceil(turn(r.get("beta_slow", 1))), c.rope - 1)
        ramp = ((torch.arange(c.rope // 2).float() - low)
                / (high - low if high > low else 0.001)).clamp(0, 1)
        keep = 1 - ramp
        frequency = 1 / (r["factor"] * power) * (1 - keep) + 1 / power * keep
        scale = lambda s: 0.1 * s * math.log(r["factor"]) + 1
        multiplier = scale(r.get("mscale", 1)) / scale(r.get("mscale_all_dim", 1))
    else:
        frequency = 1 / power
    angle = torch.arange(length).float()[:, None] * frequency
    return angle.cos() * multiplier, angle.sin() * multiplier


def rotate(x, cos, sin):
    """Interleaved pairs of the last dimension; x [..., T, rope]."""
    pairs = x.float().unflatten(-1, (-1, 2))
    a, b = pairs[..., 0], pairs[..., 1]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def rms(x, w, eps, dtype=torch.float32):
    """Statistics in fp32; the result in the type of the products that read it."""
    return F.rms_norm(x.float(), (x.shape[-1],), w, eps).to(dtype)


def swiglu(x, gate, up, down):
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def heads_of(x, w, cos, sin, heads, nope, rope, v_dim, eps, q_scale, kv_scale):
    """x [B, T, H] to queries, keys [B, N, T, nope + rope], values [B, N, T, v], scaled c_q."""
    q_a, q_norm, q_b, kv_a, kv_norm, kv_b = w
    b, t = x.shape[:2]
    c_q = rms(F.linear(x, q_a), q_norm * q_scale, eps, x.dtype)
    q = F.linear(c_q, q_b).view(b, t, heads, nope + rope).transpose(1, 2)
    latent, k_rope = F.linear(x, kv_a).split((kv_a.shape[0] - rope, rope), -1)
    kv = F.linear(rms(latent, kv_norm * kv_scale, eps, x.dtype), kv_b)
    kv = kv.view(b, t, heads, nope + v_dim).transpose(1, 2)
    k_rope = rotate(k_rope, cos, sin)[:, None].expand(-1, heads, -1, -1)
    q = torch.cat((q[..., :nope], rotate(q[..., nope:], cos, sin)), -1)
    k = torch.cat((kv[..., :nope], k_rope.to(kv.dtype)), -1)
    return q, k, kv[..., nope:], c_q


class Model:
    """index: None (dense attention, the indexer rests), "warmup" or "sparse"."""

    def __init__(self, config, params, index=None, bf16=False, compiled=False, target_topk=None):
        self.c, self.p, self.bf16 = config, params, bf16
        self.index = index if config.index_heads else None
        self.target_topk = target_topk or config.topk * config.experts / (config.experts
                                                                          + config.zero)
        self.low = torch.bfloat16 if bf16 else torch.float32
        self.heads_of, self.swiglu, self.rms = heads_of, swiglu, rms
        if compiled:
            self.heads_of = torch.compile(heads_of, dynamic=False)
            self.swiglu = torch.compile(swiglu, dynamic=False)
            self.rms = torch.compile(rms, dynamic=False)
        self.cache = {}

    # ---- parts ----

    def embed(self, ids):
        c, p = self.c, self.p
        x = F.embedding(ids, p["model.embed_tokens.weight"])
        if not c.order:
            return x
        ahead = [ids]  # a_d: the token d behind, 0 over an EOS or the start
        alive = torch.ones_like(ids, dtype=torch.bool)
        for d in range(1, c.order):
            back = F.pad(ids, (d, 0))[:, :ids.shape[1]]
            alive = alive & (back != c.eos)
            alive[:, :d] = False
            ahead.append(torch.where(alive, back, 0))
        for i in range(c.tables):
            rows = c.table_rows(i)
            n = i // c.splits + 2
            row = sum(a * pow(c.vocab, d, rows) for d, a in enumerate(ahead[:n])) % rows
            x = x + F.linear(F.embedding(row, p[c.table_name(i, "table")]),
                             p[c.table_name(i, "proj")])
        return x / (1 + c.tables)

    def rotary(self, t):
        if t not in self.cache:
            self.cache[t] = rotary(self.c, t)
        return self.cache[t]

    def scores(self, x, c_q, name):
        """Index scores [B, T, T] of detached inputs."""
        c, p = self.c, self.p
        b, t = x.shape[:2]
        cos, sin = self.rotary(t)
        x, c_q = x.detach(), c_q.detach()
        q = F.linear(c_q, p[f"{name}.wq_b.weight"]).view(b, t, c.index_heads, -1).transpose(1, 2)
        k = rms(F.linear(x, p[f"{name}.wk.weight"]), p[f"{name}.k_norm.weight"], 1e-6)
        turn = lambda y: torch.cat((rotate(y[..., :c.rope], cos, sin), y[..., c.rope:]), -1)
        w = F.linear(x, p[f"{name}.weights_proj.weight"]) * (c.index_heads * c.index_dim) ** -0.5
        heads = F.relu(turn(q) @ turn(k)[:, None].transpose(-1, -2))
        return (heads * w.transpose(1, 2)[..., None]).sum(1)

    def chosen(self, scores):
        """Mask [B, T, T] of the keys that attention sees."""
        c, t = self.c, scores.shape[-1]
        at = torch.arange(t)
        causal = at[None] <= at[:, None]
        if self.index == "warmup" or t <= c.index_topk:
            return causal.expand(scores.shape)
        forced = causal & ((at[None] < c.sink) | (at[None] > at[:, None] - c.window))
        ranked = scores.detach().masked_fill(forced, math.inf).masked_fill(~causal, -math.inf)
        best = ranked.topk(c.index_topk, -1).indices
        return torch.zeros_like(causal.expand(scores.shape)).scatter(-1, best, True) & causal

    def attention(self, x, name, group=None, first=False):
        """group: what an index shares, {"scores", "mask", "kl"}; first: it is made here."""
        c, p = self.c, self.p
        cos, sin = self.rotary(x.shape[1])
        w = [p[f"{name}.{part}.weight"] for part in ("q_a_proj", "q_a_layernorm", "q_b_proj",
                                                     "kv_a_proj_with_mqa", "kv_a_layernorm",
                                                     "kv_b_proj")]
        q, k, v, c_q = self.heads_of(x, w, cos, sin, c.heads, c.nope, c.rope, c.v_dim, c.mla_eps,
                                     (c.hidden / c.q_rank) ** 0.5, (c.hidden / c.kv_rank) ** 0.5)
        if self.index:
            if first:
                group["scores"] = self.scores(x, c_q / (c.hidden / c.q_rank) ** 0.5,
                                              f"{name}.indexer")
                group["mask"] = self.chosen(group["scores"])
            t = x.shape[1]
            mask, scores = group["mask"][:, :t, :t], group["scores"][:, :t, :t]
            a = (q @ k.transpose(-1, -2) * c.softmax_scale).masked_fill(~mask[:, None], -math.inf)
            a = a.softmax(-1)
            target = a.detach().mean(1)
            guess = scores.masked_fill(~mask, -math.inf).log_softmax(-1).masked_fill(~mask, 0)
            group["kl"] = group["kl"] + (torch.xlogy(target, target) - target * guess).sum()
            out = a @ v
        else:  # the flash kernel wants heads of one width
            wide = F.pad(v, (0, q.shape[-1] - c.v_dim)) if v.shape[-1] < q.shape[-1] else v
            out = F.scaled_dot_product_attention(q, k, wide, is_causal=True,
                                                 scale=c.softmax_scale)[..., :c.v_dim]
        return F.linear(out.transpose(1, 2).flatten(2), p[f"{name}.o_proj.weight"])

    def ffn(self, x, name):
        p = self.p
        return self.swiglu(x, p[f"{name}.gate_proj.weight"], p[f"{name}.up_proj.weight"],
                           p[f"{name}.down_proj.weight"])

    def moe(self, x, name, out):
        c, p = self.c, self.p
        u = x.flatten(0, 1)
        with torch.autocast("cpu", enabled=False):
            logits = F.linear(u.float(), p[f"{name}.router.classifier.weight"])
            prob = logits.softmax(-1)
            ids = (prob.detach() + p[f"{name}.router.e_score_correction_bias"]).topk(c.topk).indices
            weight = prob.gather(1, ids) * c.scale
        counts = torch.bincount(ids.flatten(), minlength=c.experts + c.zero)
        out["counts"].append(counts)
        share = counts / len(u)
        mean, k = prob.mean(0), self.target_topk
        out["balance"] = (out["balance"]
                          + (share[:c.experts] * mean[:c.experts]).sum() * c.experts / k)
        if c.zero:
            out["balance"] = (out["balance"] + share[c.experts:].mean() * c.zero / (c.topk - k)
                              * mean[c.experts:].sum())
        out["router_z"] = out["router_z"] + logits.logsumexp(-1).square().mean()
        sizes = counts[:c.experts].tolist()
        order = ids.flatten().argsort(stable=True)[:sum(sizes)]
        token = order // c.topk
        done = [self.expert(rows, f"{name}.experts.{e}")
                for e, rows in enumerate(u[token].split(sizes)) if len(rows)]
        identity = (weight * (ids >= c.experts)).sum(-1, keepdim=True)
        y = torch.cat(done) * weight.flatten()[order, None] if done else u[:0]
        return (u * identity).index_add(0, token, y).view(x.shape)

    def expert(self, rows, name):
        p = self.p
        return swiglu(rows, p[f"{name}.gate_proj.weight"], p[f"{name}.up_proj.weight"],
                      p[f"{name}.down_proj.weight"])

    def layer(self, h, i, out):
        c, p, at = self.c, self.p, f"model.layers.{i}"
        norm = lambda x, name: self.rms(x, p[f"{at}.{name}.weight"], c.eps, self.low)
        group = {"kl": 0}
        h = h + self.attention(norm(h, "input_layernorm.0"), f"{at}.self_attn.0", group, True)
        u = norm(h, "post_attention_layernorm.0")
        s = self.moe(u, f"{at}.mlp", out)
        h = h + self.ffn(u, f"{at}.mlps.0")
        h = h + self.attention(norm(h, "input_layernorm.1"), f"{at}.self_attn.1", group)
        h = h + self.ffn(norm(h, "post_attention_layernorm.1"), f"{at}.mlps.1") + s
        out["kl"] = out["kl"] + group["kl"]
        return h

    def draft(self, ids, hidden, group, k):
        """Step k: rows 0 .. T-1-k."""
        c, p, at = self.c, self.p, "model.mtp.layers.0"
        norm = lambda x, name: self.rms(x, p[f"{at}.{name}.weight"], c.eps, self.low)
        e = norm(F.embedding(ids[:, k:], p["model.mtp.embed_tokens.weight"]), "enorm.m")
        g = norm(hidden[:, :ids.shape[1] - k], "hnorm.m")
        z = F.linear(torch.cat((e, g), -1), p[f"{at}.eh_proj.weight"]).float()
        z = z + self.attention(norm(z, "input_layernorm"), f"{at}.self_attn", group, k == 1)
        z = z + self.ffn(norm(z, "post_attention_layernorm"), f"{at}.transformer_layer.mlp")
        return self.rms(z, p["model.mtp.norm.weight"], c.eps, self.low)

    # ---- losses ----

    def entropy(self, hidden, ids, mask, ahead):
        """Mean cross entropy of the tokens `ahead` rows behind that are learned."""
        rows = hidden[:, :ids.shape[1] - ahead].flatten(0, 1)
        target = ids[:, ahead:].flatten()
        if mask is not None:
            target = target.masked_fill(mask[:, ahead:].flatten() == 0, -100)
        total = F.cross_entropy(F.linear(rows, self.p["lm_head.weight"]).float(), target,
                                reduction="sum")
        return total / ((target != -100).sum() + 1e-10)

    def losses(self, ids, mask=None, hidden_z=True):
        """Every term by its name in train.json, and the counts of chosen entries by layer."""
        c, p = self.c, self.p
        out = {"balance": 0, "router_z": 0, "kl": 0, "counts": []}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            h = self.embed(ids).float()
            for i in range(c.layers):
                h = self.layer(h, i, out)
            if hidden_z:
                out["hidden_z"] = h.abs().logsumexp(-1).square().mean()
            hidden = self.rms(h, p["model.norm.weight"], c.eps, self.low)
            out["lm"] = self.entropy(hidden, ids, mask, 1)
            group = {"kl": 0}
            for k in range(1, c.mtp + 1):
                hidden = self.draft(ids, hidden, group, k)
                out[f"mtp.{k}"] = self.entropy(hidden, ids, mask, k + 1)
        out["kl"] = (out["kl"] + group["kl"]) / ids.numel()
        return out

    def objective(self, out, by):
        total = by.get("lm", 1) * out["lm"] + by.get("balance", 0) * out["balance"]
        total = total + by.get("router_z", 0) * out["router_z"]
        for k in range(1, self.c.mtp + 1):
            total = total + by.get("mtp", 0) / self.c.mtp * out[f"mtp.{k}"]
        if self.index:
            total = total + by.get("kl", 0) * out["kl"]
        reported = total
        if by.get("hidden_z", 0):
            total = total + by["hidden_z"] * out["hidden_z"]
        return total, reported

    # ---- steps ----

    def optimizer(self, rate=1e-3, decay=0.1, eps=1e-16):
        learns = [p for p in self.p.values() if p.requires_grad]
        return torch.optim.AdamW([{"params": [p for p in learns if p.dim() > 1]},
                                  {"params": [p for p in learns if p.dim() == 1],
                                   "weight_decay": 0}],
                                 lr=rate, betas=(0.9, 0.95), eps=eps, weight_decay=decay,
                                 fused=True)

    def step(self, optimizer, ids, mask, by, bias_rate=0.1, clip=1.0, rest=True):
        """One step; the losses as numbers. rest: an expert that no token chose is left alone, as
        PyTorch does; else it has gradient zero, and decays."""
        optimizer.zero_grad(set_to_none=True)
        out = self.losses(ids, mask, by.get("hidden_z", 0) != 0)
        total, reported = self.objective(out, by)
        total.backward()
        learns = [p for p in self.p.values() if p.requires_grad]
        for p in learns:
            if p.grad is None and not rest:
                p.grad = torch.zeros_like(p)
        norm = torch.nn.utils.clip_grad_norm_(learns, clip, foreach=True)
        optimizer.step()
        c = self.c
        with torch.no_grad():
            for i, counts in enumerate(out["counts"]):
                bias = self.p[f"model.layers.{i}.mlp.router.e_score_correction_bias"]
                share = counts[:c.experts] / counts.sum()
                bias[:c.experts] += bias_rate * (self.target_topk / c.topk / c.experts - share)
        del out["counts"]
        numbers = {k: float(v.detach()) if torch.is_tensor(v) else v for k, v in out.items()}
        return numbers | {"objective": float(total.detach()), "reported": float(reported.detach()),
                          "grad_norm": float(norm)}
