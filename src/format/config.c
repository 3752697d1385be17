/*
 * config.c: config.json and generation_config.json as an lc_config.
 *
 * Every key that is read stands in a table with its spellings and range; keys that are not read are
 * ignored. A key whose value would change the arithmetic in a way that this program doesn't know
 * (another activation, biases, other rotary scalings, other blocks of FP8 scales) is refused, never
 * ignored. null counts as absent. The ranges also guarantee that no product of dimensions here or
 * in config_count.c overflows 64 bits: see LIMITS.
 */
#include "format/config.h"

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/*
 * LIMITS. Parameters of the experts are at most 3 * 2^(10 layers + 16 hidden + 18 width + 14
 * experts) < 2^60, of the n-gram tables 2^(17 ratio + 24 vocabulary + 16 hidden) + a little, of
 * everything else less, so the sum stays below 2^62.
 */
enum {
    MAX_VOCAB = 1 << 24,
    MAX_HIDDEN = 1 << 16,
    MAX_LAYERS = 1 << 10,
    MAX_HEADS = 1 << 12,
    MAX_HEAD_DIM = 1 << 13,
    MAX_FFN = 1 << 20,
    MAX_EXPERT_FFN = 1 << 18,
    MAX_EXPERTS = 1 << 14,
    MAX_TOPK = 1 << 10,
    MAX_INDEX = 1 << 20,
    MAX_POSITIONS = 1 << 30,
    MAX_RATIO = 100000,
    MAX_FILE = 16 << 20,
};

typedef struct parse {
    struct json_object *root;
    const char *name; /* of the file, for messages */
    lc_config *c;
    lc_err *err;
} parse;

typedef enum kind { SIZE, REAL, BOOL, TOKEN } kind;

typedef struct field {
    const char *keys[3]; /* synonyms */
    kind kind;
    size_t offset; /* in lc_config */
    double min, max;
    enum { OPTIONAL, REQUIRED } need; /* an optional one keeps the value that is there */
} field;

#define AT(member) offsetof(lc_config, member)
#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

static const field dims[] = {
    {{"vocab_size"}, SIZE, AT(vocab), 1, MAX_VOCAB, REQUIRED},
    {{"hidden_size"}, SIZE, AT(hidden), 1, MAX_HIDDEN, REQUIRED},
    {{"num_attention_heads"}, SIZE, AT(heads), 1, MAX_HEADS, REQUIRED},
    {{"q_lora_rank"}, SIZE, AT(q_rank), 1, MAX_HIDDEN, REQUIRED},
    {{"kv_lora_rank"}, SIZE, AT(kv_rank), 1, MAX_HIDDEN, REQUIRED},
    {{"qk_nope_head_dim"}, SIZE, AT(nope_dim), 1, MAX_HEAD_DIM, REQUIRED},
    {{"qk_rope_head_dim"}, SIZE, AT(rope_dim), 2, MAX_HEAD_DIM, REQUIRED},
    {{"v_head_dim"}, SIZE, AT(v_dim), 1, MAX_HEAD_DIM, REQUIRED},
    {{"ffn_hidden_size"}, SIZE, AT(ffn), 1, MAX_FFN, REQUIRED},
    {{"expert_ffn_hidden_size"}, SIZE, AT(expert_ffn), 1, MAX_EXPERT_FFN, REQUIRED},
    {{"n_routed_experts"}, SIZE, AT(experts), 1, MAX_EXPERTS, REQUIRED},
    {{"zero_expert_num"}, SIZE, AT(zero_experts), 0, MAX_EXPERTS, OPTIONAL},
    {{"moe_topk"}, SIZE, AT(topk), 1, MAX_TOPK, REQUIRED},
    {{"routed_scaling_factor"}, REAL, AT(routed_scale), 1e-6, 1e6, REQUIRED},
    {{"router_bias"}, BOOL, AT(router_bias), 0, 1, OPTIONAL},
    {{"norm_topk_prob"}, BOOL, AT(norm_topk_prob), 0, 1, OPTIONAL},
    {{"mla_scale_q_lora"}, BOOL, AT(mla_scale_q), 0, 1, OPTIONAL},
    {{"mla_scale_kv_lora"}, BOOL, AT(mla_scale_kv), 0, 1, OPTIONAL},
    {{"rms_norm_eps"}, REAL, AT(norm_eps), 1e-12, 1, OPTIONAL},
    {{"max_position_embeddings"}, SIZE, AT(max_positions), 1, MAX_POSITIONS, REQUIRED},
    {{"tie_word_embeddings"}, BOOL, AT(tie_embeddings), 0, 1, OPTIONAL},
    {{"mtp_num_layers", "num_nextn_predict_layers"}, SIZE, AT(mtp_steps), 0, 64, OPTIONAL},
};

static const field ngram[] = {
    {{"emb_neighbor_num", "oe_neighbor_num", "ngram_neighbor_num"},
     SIZE,
     AT(ngram_order),
     2,
     16,
     REQUIRED},
    {{"emb_split_num", "oe_split_num", "ngram_split_num"}, SIZE, AT(ngram_splits), 1, 64, REQUIRED},
    {{"ngram_vocab_size_ratio", "oe_vocab_size_ratio", "emb_vocab_size_ratio"},
     REAL,
     AT(ngram_ratio),
     1e-3,
     MAX_RATIO,
     REQUIRED},
};

static const field lsa[] = {
    {{"index_n_heads"}, SIZE, AT(index_heads), 1, MAX_HEADS, REQUIRED},
    {{"index_head_dim"}, SIZE, AT(index_dim), 2, MAX_HEAD_DIM, REQUIRED},
    {{"index_topk"}, SIZE, AT(index_topk), 1, MAX_INDEX, REQUIRED},
    {{"index_init_tokens"}, SIZE, AT(index_sink), 0, MAX_INDEX, REQUIRED},
    {{"index_local_tokens"}, SIZE, AT(index_window), 0, MAX_INDEX, REQUIRED},
};

static const field yarn[] = {
    {{"factor"}, REAL, AT(rope.factor), 1, 1e6, REQUIRED},
    {{"original_max_position_embeddings"},
     REAL,
     AT(rope.original_positions),
     1,
     MAX_POSITIONS,
     OPTIONAL},
    {{"beta_fast"}, REAL, AT(rope.beta_fast), 1e-6, 1e6, OPTIONAL},
    {{"beta_slow"}, REAL, AT(rope.beta_slow), 1e-6, 1e6, OPTIONAL},
    {{"mscale"}, REAL, AT(rope.mscale), 0, 100, OPTIONAL},
    {{"mscale_all_dim"}, REAL, AT(rope.mscale_all_dim), 0, 100, OPTIONAL},
};

static const field theta = {{"rope_theta"}, REAL, AT(rope.theta), 1.001, 1e12, REQUIRED};

static const field sampling[] = {
    {{"temperature"}, REAL, AT(gen_temperature), 0, 1000, OPTIONAL},
    {{"top_p"}, REAL, AT(gen_top_p), 0, 1, OPTIONAL},
    {{"do_sample"}, BOOL, AT(gen_do_sample), 0, 1, OPTIONAL},
};

/* The value of a key; NULL if it is absent or null. */
static struct json_object *get(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    return json_object_object_get_ex(object, key, &value) ? value : NULL;
}

/* A value as it stands in the file, cut to what fits a message. */
static const char *shown(struct json_object *value, char out[64]) {
    const char *text = json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN);
    size_t len = 0;
    for (; text && text[len] && len < 60; len++)
        out[len] = text[len] >= 0x20 && text[len] < 0x7f ? text[len] : '?';
    out[len] = 0;
    return out;
}

static int wrong(const parse *p, const char *key, struct json_object *value, const char *must) {
    char text[64];
    return lc_fail(p->err, LC_EFORMAT, "%s: %s is %s, must be %s", p->name, key, shown(value, text),
                   must);
}

static int missing(const parse *p, const char *key) {
    return lc_fail(p->err, LC_EFORMAT, "%s: %s is missing", p->name, key);
}

/* "emb_split_num (or oe_split_num) is missing" */
static int missing_field(const parse *p, const field *f) {
    char text[128];
    int used = snprintf(text, sizeof text, "%s", f->keys[0]);
    for (size_t i = 1; i < COUNT_OF(f->keys) && f->keys[i]; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "%s%s", i == 1 ? " (or " : ", ",
                         f->keys[i]);
    if (f->keys[1]) snprintf(text + used, sizeof text - (size_t)used, ")");
    return missing(p, text);
}

static int wrong_range(const parse *p, const field *f, const char *key, struct json_object *value) {
    char must[96];
    snprintf(must, sizeof must,
             f->kind == REAL ? "a number from %.10g to %.10g" : "a whole number from %.0f to %.0f",
             f->min, f->max);
    return wrong(p, key, value, must);
}

/* Reads one value of a field as a double (every SIZE is below 2^53). */
static int read_value(const parse *p, const field *f, const char *key, struct json_object *value,
                      double *out) {
    json_type type = json_object_get_type(value);
    if (f->kind == BOOL) {
        if (type != json_type_boolean) return wrong(p, key, value, "true or false");
        *out = json_object_get_boolean(value);
        return LC_OK;
    }
    if (type != json_type_int && (f->kind != REAL || type != json_type_double))
        return wrong_range(p, f, key, value);
    double number = json_object_get_double(value);
    if (!(number >= f->min && number <= f->max)) return wrong_range(p, f, key, value);
    *out = number;
    return LC_OK;
}

static void store(const field *f, lc_config *c, double value) {
    void *at = (char *)c + f->offset; /* the field is of the kind's type */
    switch (f->kind) {
    case SIZE: *(size_t *)at = (size_t)value; break;
    case REAL: *(double *)at = value; break;
    case BOOL: *(bool *)at = value != 0; break;
    case TOKEN: *(int32_t *)at = (int32_t)value; break;
    }
}

static int read_field(const parse *p, struct json_object *object, const field *f) {
    const char *first = NULL;
    double value = 0, other = 0;
    for (size_t i = 0; i < COUNT_OF(f->keys) && f->keys[i]; i++) {
        struct json_object *found = get(object, f->keys[i]);
        if (!found) continue;
        int status = read_value(p, f, f->keys[i], found, &other);
        if (status != LC_OK) return status;
        if (first && other != value)
            return lc_fail(p->err, LC_EFORMAT, "%s: %s is %.10g, but %s is %.10g", p->name, first,
                           value, f->keys[i], other);
        first = f->keys[i];
        value = other;
    }
    if (first)
        store(f, p->c, value);
    else if (f->need == REQUIRED)
        return missing_field(p, f);
    return LC_OK;
}

static int read_fields(const parse *p, struct json_object *object, const field *f, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int status = read_field(p, object, &f[i]);
        if (status != LC_OK) return status;
    }
    return LC_OK;
}

static bool any_present(struct json_object *object, const field *f, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < COUNT_OF(f->keys) && f[i].keys[k]; k++)
            if (get(object, f[i].keys[k])) return true;
    return false;
}

/* The string at key, or `absent` if the key is absent. */
static int read_text(const parse *p, struct json_object *object, const char *key,
                     const char *absent, const char **out) {
    struct json_object *value = get(object, key);
    *out = absent;
    if (!value) return LC_OK;
    if (json_object_get_type(value) != json_type_string) return wrong(p, key, value, "a string");
    *out = json_object_get_string(value);
    return LC_OK;
}

/* num_layers counts pairs of sublayers, num_hidden_layers the sublayers. */
static int read_layers(const parse *p) {
    static const field pairs = {{"num_layers"}, SIZE, AT(layers), 1, MAX_LAYERS, REQUIRED};
    static const field sublayers = {{"num_hidden_layers"}, SIZE,    AT(layers), 2,
                                    2 * MAX_LAYERS,        REQUIRED};
    if (get(p->root, "num_layers")) return read_field(p, p->root, &pairs);
    struct json_object *value = get(p->root, "num_hidden_layers");
    if (!value) return missing(p, "num_layers (or num_hidden_layers)");
    int status = read_field(p, p->root, &sublayers);
    if (status != LC_OK) return status;
    if (p->c->layers % 2)
        return wrong(p, "num_hidden_layers", value, "even (two sublayers per layer)");
    p->c->layers /= 2;
    return LC_OK;
}

/* What this program computes in one way only. */
static int check_fixed(const parse *p) {
    static const struct {
        const char *key, *value;
    } texts[] = {
        {"hidden_act", "silu"}, {"zero_expert_type", "identity"}, {"index_k_norm_type", "rms"}};
    static const char *const falses[] = {"router_bias", "norm_topk_prob", "attention_bias"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        const char *text, *key = texts[i].key;
        int status = read_text(p, p->root, key, texts[i].value, &text);
        if (status != LC_OK) return status;
        if (strcmp(text, texts[i].value))
            return lc_fail(p->err, LC_EUNSUPPORTED, "%s: %s is \"%.40s\"; only \"%s\" is supported",
                           p->name, key, text, texts[i].value);
    }
    for (size_t i = 0; i < COUNT_OF(falses); i++) {
        struct json_object *value = get(p->root, falses[i]);
        if (!value) continue;
        if (json_object_get_type(value) != json_type_boolean)
            return wrong(p, falses[i], value, "true or false");
        if (json_object_get_boolean(value))
            return lc_fail(p->err, LC_EUNSUPPORTED, "%s: %s is true, which is not supported",
                           p->name, falses[i]);
    }
    struct json_object *kv = get(p->root, "num_key_value_heads");
    if (kv && (json_object_get_type(kv) != json_type_int ||
               json_object_get_int64(kv) != (int64_t)p->c->heads))
        return wrong(p, "num_key_value_heads", kv, "equal to num_attention_heads (MLA)");
    return LC_OK;
}

static bool is_yarn(const char *type) {
    return !strcmp(type, "yarn") || !strcmp(type, "deepseek_yarn");
}

/* rope_parameters (newer, holds rope_theta) or rope_scaling. */
static int read_rope(const parse *p) {
    lc_rope_config *rope = &p->c->rope;
    const char *key = "rope_parameters", *type, *old;
    struct json_object *r = get(p->root, key);
    if (!r) r = get(p->root, key = "rope_scaling");
    if (r && json_object_get_type(r) != json_type_object) return wrong(p, key, r, "an object");
    *rope = (lc_rope_config){
        .factor = 1, .beta_fast = 32, .beta_slow = 1, .mscale = 1, .mscale_all_dim = 1};
    rope->original_positions = (double)p->c->max_positions;
    int status = read_field(p, r && get(r, "rope_theta") ? r : p->root, &theta);
    if (status != LC_OK || !r) return status;
    status = read_text(p, r, "type", NULL, &old);
    if (status == LC_OK) status = read_text(p, r, "rope_type", old, &type);
    if (status != LC_OK) return status;
    if (!type) return missing(p, "rope_type (or type)");
    rope->yarn = is_yarn(type);
    if ((!rope->yarn && strcmp(type, "default")) || (old && is_yarn(old) != rope->yarn))
        return lc_fail(
            p->err, LC_EUNSUPPORTED,
            "%s: rotary scaling \"%.40s\"; default, yarn and deepseek_yarn are supported", p->name,
            type);
    if (!rope->yarn) return LC_OK;
    static const char *const others[] = {"attention_factor", "truncate"};
    for (size_t i = 0; i < COUNT_OF(others); i++)
        if (get(r, others[i]))
            return lc_fail(p->err, LC_EUNSUPPORTED, "%s: %s in %s is not supported", p->name,
                           others[i], key);
    status = read_fields(p, r, yarn, COUNT_OF(yarn));
    if (status != LC_OK) return status;
    if (!get(r, "original_max_position_embeddings")) {
        rope->original_positions = (double)p->c->max_positions / rope->factor;
        if (rope->original_positions < 1)
            return missing(p, "original_max_position_embeddings in the rotary scaling");
    }
    return LC_OK;
}

static int read_ngram(const parse *p) {
    lc_config *c = p->c;
    if (!any_present(p->root, ngram, COUNT_OF(ngram))) return LC_OK;
    int status = read_fields(p, p->root, ngram, COUNT_OF(ngram));
    if (status != LC_OK) return status;
    struct json_object *list = get(p->root, "architectures");
    const char *architecture = NULL;
    if (list && json_object_get_type(list) == json_type_array)
        architecture = json_object_get_string(json_object_array_get_idx(list, 0));
    if (!strcmp(c->model_type, "longcat_flash_ngram"))
        c->ngram_oe_names = false;
    else if (architecture && !strcmp(architecture, "LongcatCausalLM"))
        c->ngram_oe_names = true;
    else
        c->ngram_oe_names = get(p->root, "oe_neighbor_num") != NULL;
    return LC_OK;
}

static int read_lsa(const parse *p) {
    const char *method;
    int status = read_text(p, p->root, "attention_method", "MLA", &method);
    if (status != LC_OK) return status;
    if (strcmp(method, "MLA") && strcmp(method, "LSA"))
        return lc_fail(p->err, LC_EUNSUPPORTED,
                       "%s: attention_method \"%.40s\"; MLA and LSA are supported", p->name,
                       method);
    /* 2.0 says MLA and means LSA: the index keys decide. */
    if (strcmp(method, "LSA") && !any_present(p->root, lsa, COUNT_OF(lsa))) return LC_OK;
    status = read_fields(p, p->root, lsa, COUNT_OF(lsa));
    if (status != LC_OK) return status;
    struct json_object *cli = get(p->root, "cli_factor");
    if (cli && (json_object_get_type(cli) != json_type_int || json_object_get_int64(cli) != 2))
        return wrong(p, "cli_factor", cli, "2 (sublayers that share an index)");
    return LC_OK;
}

/* bos, eos and pad; a list of several eos ids is merged into eos_ids. */
static int add_eos(const parse *p, struct json_object *value) {
    static const field token = {{"eos_token_id"}, TOKEN, AT(eos), 0, MAX_VOCAB - 1, OPTIONAL};
    lc_config *c = p->c;
    double id;
    int status = read_value(p, &token, "eos_token_id", value, &id);
    if (status != LC_OK) return status;
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos_ids[i] == (int32_t)id) return LC_OK;
    if (c->n_eos == COUNT_OF(c->eos_ids))
        return lc_fail(p->err, LC_ELIMIT, "%s: more than %zu eos_token_id", p->name,
                       COUNT_OF(c->eos_ids));
    c->eos_ids[c->n_eos++] = (int32_t)id;
    if (c->eos < 0) c->eos = (int32_t)id;
    return LC_OK;
}

static int read_tokens(const parse *p) {
    static const field bos = {{"bos_token_id"}, TOKEN, AT(bos), -1, MAX_VOCAB - 1, OPTIONAL},
                       pad = {{"pad_token_id"}, TOKEN, AT(pad), -1, MAX_VOCAB - 1, OPTIONAL};
    int status = read_field(p, p->root, &bos);
    if (status == LC_OK) status = read_field(p, p->root, &pad);
    struct json_object *eos = get(p->root, "eos_token_id");
    if (status != LC_OK || !eos) return status;
    if (json_object_get_type(eos) != json_type_array) return add_eos(p, eos);
    for (size_t i = 0; i < json_object_array_length(eos) && status == LC_OK; i++)
        status = add_eos(p, json_object_array_get_idx(eos, i));
    return status;
}

static int check_tokens(const parse *p) {
    const lc_config *c = p->c;
    int32_t high = c->bos > c->pad ? c->bos : c->pad;
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos_ids[i] > high) high = c->eos_ids[i];
    if (high >= 0 && (size_t)high >= c->vocab)
        return lc_fail(p->err, LC_EFORMAT,
                       "%s: bos, eos or pad token id %d is outside of the vocabulary of %zu",
                       p->name, high, c->vocab);
    return LC_OK;
}

static int check_ngram(const parse *p) {
    const lc_config *c = p->c;
    size_t tables = lc_config_ngram_tables(c);
    if (!tables) return LC_OK;
    if (c->hidden % tables)
        return lc_fail(p->err, LC_EFORMAT, "%s: hidden_size %zu is not a multiple of the %zu %s",
                       p->name, c->hidden, tables,
                       "n-gram tables (emb_split_num x (emb_neighbor_num - 1))");
    /* the hash sums `order` products below rows * vocab in signed 64 bits (spec 2.1) */
    double largest = (double)lc_config_ngram_rows(c, tables - 1) * (double)c->vocab;
    if (largest * (double)c->ngram_order >= 0x1p63)
        return lc_fail(p->err, LC_EFORMAT,
                       "%s: ngram_vocab_size_ratio %g makes n-gram tables too large to address",
                       p->name, c->ngram_ratio);
    return LC_OK;
}

static int check_cross(const parse *p) {
    const lc_config *c = p->c;
    if (c->topk > c->experts + c->zero_experts)
        return lc_fail(p->err, LC_EFORMAT,
                       "%s: moe_topk %zu is more than n_routed_experts + zero_expert_num = %zu",
                       p->name, c->topk, c->experts + c->zero_experts);
    if (c->rope_dim % 2)
        return lc_fail(p->err, LC_EFORMAT, "%s: qk_rope_head_dim %zu must be even", p->name,
                       c->rope_dim);
    if (c->index_heads && c->index_dim < c->rope_dim)
        return lc_fail(p->err, LC_EFORMAT,
                       "%s: index_head_dim %zu is less than qk_rope_head_dim %zu", p->name,
                       c->index_dim, c->rope_dim);
    if (c->index_heads && c->index_sink + c->index_window > c->index_topk)
        return lc_fail(p->err, LC_EFORMAT,
                       "%s: index_init_tokens %zu + index_local_tokens %zu is more than "
                       "index_topk %zu",
                       p->name, c->index_sink, c->index_window, c->index_topk);
    int status = check_ngram(p);
    return status == LC_OK ? check_tokens(p) : status;
}

static lc_member member_of(const lc_config *c) {
    if (c->index_heads) return c->ngram_order > 4 ? LC_MEMBER_TWO : LC_MEMBER_SPARSE;
    return c->ngram_order ? LC_MEMBER_LITE : LC_MEMBER_FLASH;
}

static int read_all(const parse *p) {
    lc_config *c = p->c;
    const char *type;
    int status = read_text(p, p->root, "model_type", "", &type);
    if (status != LC_OK) return status;
    if (strlen(type) >= sizeof c->model_type)
        return wrong(p, "model_type", get(p->root, "model_type"), "shorter than 64 bytes");
    memcpy(c->model_type, type, strlen(type) + 1);
    if ((status = read_fields(p, p->root, dims, COUNT_OF(dims))) != LC_OK ||
        (status = read_layers(p)) != LC_OK || (status = check_fixed(p)) != LC_OK ||
        (status = lc_quant_read(p->root, p->name, &c->quant, p->err)) != LC_OK ||
        (status = read_rope(p)) != LC_OK || (status = read_ngram(p)) != LC_OK ||
        (status = read_lsa(p)) != LC_OK || (status = read_tokens(p)) != LC_OK ||
        (status = check_cross(p)) != LC_OK)
        return status;
    c->member = member_of(c);
    lc_switches_default(c);
    return LC_OK;
}

/* Parses text as a JSON object. */
static int open_object(const char *json, size_t len, parse *p) {
    int status = lc_json_parse(json, len, p->name, &p->root, p->err);
    if (status != LC_OK) return status;
    if (json_object_get_type(p->root) == json_type_object) return LC_OK;
    json_object_put(p->root);
    return lc_fail(p->err, LC_EFORMAT, "%s: not a JSON object", p->name);
}

int lc_config_parse(const char *json, size_t len, const char *name, lc_config *out, lc_err *err) {
    parse p = {.name = name, .c = out, .err = err};
    *out = (lc_config){
        .mla_scale_q = true,
        .mla_scale_kv = true,
        .norm_eps = 1e-5,
        .bos = -1,
        .eos = -1,
        .pad = -1,
    };
    int status = open_object(json, len, &p);
    if (status != LC_OK) return status;
    status = read_all(&p);
    json_object_put(p.root);
    return status;
}

int lc_config_parse_generation(const char *json, size_t len, const char *name, lc_config *config,
                               lc_err *err) {
    static const field top_k = {{"top_k"}, TOKEN, 0, 0, MAX_VOCAB, OPTIONAL};
    parse p = {.name = name, .c = config, .err = err};
    int status = open_object(json, len, &p);
    if (status != LC_OK) return status;
    status = read_fields(&p, p.root, sampling, COUNT_OF(sampling));
    struct json_object *k = get(p.root, "top_k");
    double value = 0;
    if (status == LC_OK && k) status = read_value(&p, &top_k, "top_k", k, &value);
    if (status == LC_OK && k) config->gen_top_k = (int64_t)value;
    if (status == LC_OK) status = read_tokens(&p);
    if (status == LC_OK) status = check_tokens(&p);
    json_object_put(p.root);
    return status;
}

int lc_config_want_folder(const char *path, lc_err *err) {
    struct stat st;
    if (stat(path, &st) || S_ISDIR(st.st_mode)) return LC_OK;
    return lc_fail(err, LC_EINVAL,
                   "%s: not a folder; a model is a folder with config.json and *.safetensors",
                   path);
}

static bool is_json(const char *path) {
    size_t n = strlen(path);
    return n > 5 && !strcmp(path + n - 5, ".json");
}

int lc_config_load(const char *path, lc_config *out, lc_err *err) {
    lc_buf file = {0}, text = {0};
    struct stat st;
    const char *slash = strrchr(path, '/');
    bool folder = !stat(path, &st) && S_ISDIR(st.st_mode), named;
    if (folder)
        named = lc_buf_printf(&file, "%s/config.json", path);
    else
        named = lc_buf_puts(&file, path);
    int status = named ? LC_OK : lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    if (status == LC_OK && !is_json(path)) status = lc_config_want_folder(path, err);
    if (status == LC_OK) status = lc_file_read(file.data, MAX_FILE, &text, err);
    if (status == LC_OK) status = lc_config_parse(text.data, text.len, file.data, out, err);
    if (status == LC_OK) {
        lc_buf_clear(&file);
        lc_buf_clear(&text);
        int prefix = folder ? (int)strlen(path) : slash ? (int)(slash - path) : 1;
        if (!lc_buf_printf(&file, "%.*s/generation_config.json", prefix,
                           folder || slash ? path : "."))
            status = lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
        else if (!stat(file.data, &st))
            status = lc_file_read(file.data, MAX_FILE, &text, err);
        if (status == LC_OK && text.len)
            status = lc_config_parse_generation(text.data, text.len, file.data, out, err);
    }
    lc_buf_free(&file);
    lc_buf_free(&text);
    return status;
}
