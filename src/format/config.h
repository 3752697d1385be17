/*
 * config.h: config.json and generation_config.json of all four family members (docs/model.md 1.1),
 * with both key spellings and the rules for missing keys. Every number has a range; what is out of
 * range is refused by name.
 *
 * lc_switches holds the open questions of spec 6: the values here are set from the config where it
 * can tell, else to the documented default; --set NAME=VALUE overrides one.
 */
#ifndef LC_FORMAT_CONFIG_H
#define LC_FORMAT_CONFIG_H

#include "format/quant.h"

typedef enum lc_member {
    LC_MEMBER_FLASH,  /* dense attention, no n-gram embedding */
    LC_MEMBER_LITE,   /* n-gram embedding, dense attention */
    LC_MEMBER_SPARSE, /* n-gram embedding of order 4 and LSA */
    LC_MEMBER_TWO,    /* the same with order 5: LongCat-2.0 */
} lc_member;

typedef struct lc_switches {
    bool identity_scaled;   /* identity experts get routed_scaling_factor too (true) */
    bool ngram_full_word;   /* ngram_fusion=mean|full_word: E + sum/(1+T) instead of (E + sum)/(1+T)
                               (mean) */
    bool ngram_eos_reset;   /* an EOS cuts the n-gram look-back (true) */
    double mla_eps;         /* eps of q_a and kv_a norms (1e-6 for Flash and Lite, 1e-5 with LSA) */
    double k_norm_eps;      /* eps of the indexer's key norm (1e-6) */
    bool index_scaled_cq;   /* the indexer sees c_q times sqrt(H/q_lora_rank) (false) */
    bool mtp_concat_he;     /* mtp_concat=eh|he: order of embedding and hidden in eh_proj (eh) */
    bool mtp_ngram;         /* the draft module uses its own n-gram tables (false) */
    bool rope_exact_angles; /* rope_angles=fp32|exact: angles in fp32 or float64 (fp32) */
    bool rope_frequency_rounded_once; /* exact frequency rounded once instead of fp32 steps (false)
                                       */
    bool dense_attention;             /* ignore the indexer, attend to every key (false) */
    bool dequantised_to_bf16; /* FP8 and I8 weights are rounded to BF16 after decoding, in f32 too
                                 (false) */
} lc_switches;

typedef struct lc_rope_config {
    double theta;
    bool yarn;                 /* types yarn and deepseek_yarn */
    double factor;             /* 1 without yarn */
    double original_positions; /* original_max_position_embeddings */
    double beta_fast, beta_slow, mscale, mscale_all_dim;
} lc_rope_config;

typedef struct lc_config {
    lc_member member;
    char model_type[64];              /* "" if absent */
    size_t vocab;                     /* V */
    size_t hidden;                    /* H */
    size_t layers;                    /* L; each has two attention sublayers */
    size_t heads;                     /* N */
    size_t q_rank, kv_rank;           /* R = kv_rank */
    size_t nope_dim, rope_dim, v_dim; /* a head's dims */
    size_t ffn, expert_ffn;
    size_t experts, zero_experts, topk; /* E routed, Z identity, K */
    double routed_scale;
    bool router_bias;    /* true is refused: no published weights use it */
    bool norm_topk_prob; /* refused when true */
    bool mla_scale_q, mla_scale_kv;
    double norm_eps;
    lc_rope_config rope;
    size_t max_positions;
    bool tie_embeddings;   /* lm_head is embed_tokens */
    int32_t bos, eos, pad; /* -1 if absent */
    int32_t eos_ids[8];    /* generation_config's eos_token_id may be a list; includes eos */
    size_t n_eos;
    /* n-gram embedding; ngram_order 0 = none */
    size_t ngram_order, ngram_splits; /* N and K of spec 2.1; tables = K * (N - 1) */
    double ngram_ratio;
    bool ngram_oe_names; /* tensors are oe_embed_tokens{i} (Sparse, 2.0), not
                            ngram_embeddings.embedders.i (Lite) */
    /* LSA; index_heads 0 = dense attention */
    size_t index_heads, index_dim, index_topk, index_sink, index_window;
    /* draft module; mtp_steps 0 = none declared */
    size_t mtp_steps;
    /* generation_config.json */
    double gen_temperature, gen_top_p; /* 0 = absent */
    int64_t gen_top_k;                 /* 0 = absent */
    bool gen_do_sample;
    lc_quant quant; /* for lc_tensors_set_quant */
    lc_switches switches;
} lc_config;

/* path: a config.json or a model folder; generation_config.json beside it is read when it exists.
 */
int lc_config_load(const char *path, lc_config *out, lc_err *err);
/* LC_EINVAL for a file where a model folder is needed. */
int lc_config_want_folder(const char *path, lc_err *err);
/* config.json alone, from memory. name is used in messages. */
int lc_config_parse(const char *json, size_t len, const char *name, lc_config *out, lc_err *err);
/* Adds generation_config.json to a parsed config. */
int lc_config_parse_generation(const char *json, size_t len, const char *name, lc_config *config,
                               lc_err *err);

/* Overrides one switch by its name in lc_switches' comments ("identity_scaled=false",
 * "ngram_fusion=full_word", "mla_eps=1e-2"). LC_EINVAL lists the known names. */
int lc_config_set(lc_config *config, const char *assignment, lc_err *err);

/* Sets every switch to what the config implies; lc_config_parse does so. */
void lc_switches_default(lc_config *config);
/* Name and present value of switch i, 0 <= i < lc_switch_count(), as --set takes them. */
size_t lc_switch_count(void);
const char *lc_switch_text(const lc_config *config, size_t i, char value[32]);

const char *lc_member_name(lc_member member); /* "LongCat-Flash", ... */

static inline size_t lc_config_ngram_tables(const lc_config *c) {
    return c->ngram_order ? c->ngram_splits * (c->ngram_order - 1) : 0;
}
/* Rows (= modulus) of table i: floor(ratio * V + 2i + 1), spec 2.1. */
size_t lc_config_ngram_rows(const lc_config *c, size_t table);

/* Parameter counts by part, spec 1.2. Exact, in elements. */
typedef struct lc_param_counts {
    uint64_t attention, dense_ffn, experts, routers, norms, embedding, head, ngram_tables,
        ngram_projections, indexers;
    uint64_t total; /* sum of the above: the main model */
    uint64_t mtp; /* draft module's compute tensors with its embedding table; 0 if mtp_steps is 0 */
    uint64_t
        mtp_ngram; /* its own n-gram tables and projections (2.0's checkpoint holds them; unused) */
    uint64_t active_zero, active_average,
        active_all;         /* a token's, for 0, the design average and all K routed experts */
    double average_experts; /* K_e of spec 5.1: as published 8 for K 12, else K * E / (E + Z) */
} lc_param_counts;
void lc_config_count(const lc_config *c, lc_param_counts *out);

/* Bytes a token of context takes in the cache: latent + rope key of 2L sublayers, indexer keys of L
 * layers, for elements of `element` bytes (2 in bf16, 4 in f32). */
size_t lc_config_kv_bytes(const lc_config *c, size_t element);

#endif
