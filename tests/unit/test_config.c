/*
 * test_config.c: config.json of the four published members against the tables of the spec (1.2),
 * the rules for missing and double keys, ranges, switches, generation_config.json.
 */
#include "test.h"

#include "base/json.h"
#include "base/mem.h"
#include "format/config.h"

#include <math.h>

static const char *const members[] = {"flash", "lite", "sparse", "two"};

static void load_member(const char *name, lc_config *c) {
    char path[128];
    lc_err err = {0};
    snprintf(path, sizeof path, "tests/data/configs/%s.json", name);
    assert_ok(lc_config_load(path, c, &err), err);
}

/* Spec 1.2, one column per member. */
static const struct published {
    lc_member member;
    uint64_t attention, dense, experts, routers, norms, embedding, tables, projections, indexers,
        total, mtp, mtp_ngram;
    const char *active[3];
    size_t kv, index_kv; /* bytes per token in bf16 */
} published[4] = {
    {LC_MEMBER_FLASH,
     5072076800,
     12683575296,
     541165879296,
     132142080,
     694272,
     805306368,
     0,
     0,
     0,
     560664980480,
     0, /* not in the table */
     0,
     {"18.69B", "27.15B", "31.38B"},
     56 * 576 * 2,
     0},
    {LC_MEMBER_LITE,
     915726336,
     1585446912,
     33822867456,
     16520448,
     175104,
     402653184,
     31406985216,
     9437184,
     0,
     68562465024,
     510870528,
     0,
     {"2.93B", "3.99B", "4.52B"},
     28 * 576 * 2,
     0},
    {LC_MEMBER_SPARSE,
     915726336,
     1585446912,
     33822867456,
     16520448,
     175104,
     402653184,
     31406985216,
     9437184,
     50235136,
     68612700160,
     514458752,
     0,
     {"2.98B", "4.04B", "4.57B"},
     28 * 576 * 2,
     14 * 128 * 2},
    {LC_MEMBER_TWO,
     8487329792,
     22951231488,
     1468878815232,
     278955264,
     1253376,
     1342177280,
     134978871296,
     67108864,
     288887552,
     1638616807424,
     1897703552,
     135045980160,
     {"33.42B", "48.72B", "56.37B"},
     87552,
     9728},
};

static void test_published_counts(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        const struct published *p = &published[i];
        lc_config c;
        lc_param_counts n;
        char text[32];
        load_member(members[i], &c);
        lc_config_count(&c, &n);
        assert_int_equal(c.member, p->member);
        assert_int_equal(n.attention, p->attention);
        assert_int_equal(n.dense_ffn, p->dense);
        assert_int_equal(n.experts, p->experts);
        assert_int_equal(n.routers, p->routers);
        assert_int_equal(n.norms, p->norms);
        assert_int_equal(n.embedding, p->embedding);
        assert_int_equal(n.head, p->embedding);
        assert_int_equal(n.ngram_tables, p->tables);
        assert_int_equal(n.ngram_projections, p->projections);
        assert_int_equal(n.indexers, p->indexers);
        assert_int_equal(n.total, p->total);
        if (p->mtp) assert_int_equal(n.mtp, p->mtp);
        assert_int_equal(n.mtp_ngram, p->mtp_ngram);
        assert_true(n.average_experts == 8);
        uint64_t active[3] = {n.active_zero, n.active_average, n.active_all};
        for (int k = 0; k < 3; k++) {
            snprintf(text, sizeof text, "%.2fB", (double)active[k] / 1e9);
            assert_string_equal(text, p->active[k]);
        }
        assert_int_equal(lc_config_kv_bytes(&c, 2), p->kv + p->index_kv);
        assert_int_equal(lc_config_kv_bytes(&c, 4), 2 * (p->kv + p->index_kv));
    }
    lc_config c;
    lc_param_counts n;
    load_member("two", &c);
    lc_config_count(&c, &n);
    assert_int_equal(n.total + n.mtp + n.mtp_ngram, 1775560491136); /* the hub's total for 2.0 */
    c.experts = 6; /* never more on average than there are: 12 * 6 / (6 + 128) */
    lc_config_count(&c, &n);
    assert_true(n.average_experts == 12.0 * 6 / 134);
    assert_true(n.active_average < n.active_all);
}

static void test_ngram_rows(void **state) {
    (void)state;
    lc_config c;
    load_member("lite", &c);
    assert_int_equal(lc_config_ngram_tables(&c), 12);
    assert_int_equal(lc_config_ngram_rows(&c, 0), 10223617);
    assert_int_equal(lc_config_ngram_rows(&c, 11), 10223639);
    assert_false(c.ngram_oe_names);
    load_member("two", &c);
    assert_int_equal(lc_config_ngram_tables(&c), 16);
    assert_int_equal(lc_config_ngram_rows(&c, 0), 16476898);
    assert_int_equal(lc_config_ngram_rows(&c, 15), 16476928);
    assert_true(c.ngram_oe_names);
    load_member("flash", &c);
    assert_int_equal(lc_config_ngram_tables(&c), 0);
}

static void test_published_values(void **state) {
    (void)state;
    lc_config c;
    load_member("two", &c);
    assert_int_equal(c.vocab, 163840);
    assert_int_equal(c.hidden, 8192);
    assert_int_equal(c.layers, 38); /* the file has num_hidden_layers only */
    assert_int_equal(c.topk, 12);
    assert_true(c.routed_scale == 9 && c.norm_eps == 1e-5 && c.ngram_ratio == 100.567);
    assert_int_equal(c.index_heads, 32);
    assert_int_equal(c.index_topk, 2048);
    assert_int_equal(c.index_sink, 16);
    assert_int_equal(c.index_window, 1024);
    assert_int_equal(c.mtp_steps, 3);
    assert_int_equal(c.max_positions, 262144);
    assert_true(c.rope.yarn && c.rope.theta == 1e6 && c.rope.factor == 120);
    assert_true(c.rope.original_positions == 8192 && c.rope.beta_fast == 32);
    assert_int_equal(c.bos, 1);
    assert_int_equal(c.eos, 2);
    assert_int_equal(c.pad, -1);
    assert_int_equal(c.n_eos, 1);
    assert_string_equal(c.model_type, "");
    assert_true(c.mla_scale_q && c.mla_scale_kv && !c.tie_embeddings);
    assert_true(c.switches.mla_eps == 1e-5 && c.switches.k_norm_eps == 1e-6);
    assert_true(c.switches.identity_scaled && c.switches.ngram_eos_reset);
    load_member("flash", &c); /* num_layers only */
    assert_int_equal(c.layers, 28);
    assert_false(c.rope.yarn);
    assert_true(c.rope.factor == 1 && c.switches.mla_eps == 1e-6);
    assert_string_equal(c.model_type, "longcat_flash");
    load_member("lite", &c);
    assert_true(c.rope.yarn && c.rope.factor == 10 && c.rope.original_positions == 32768);
    assert_true(c.switches.mla_eps == 1e-6);
}

/* The config of a member with one key replaced; value NULL removes the key. */
static int parse_with(const char *member, const char *key, const char *value, lc_config *c,
                      lc_err *err) {
    char path[128];
    struct json_object *o, *v = NULL;
    lc_err e = {0};
    snprintf(path, sizeof path, "tests/data/configs/%s.json", member);
    assert_ok(lc_json_load(path, 0, &o, &e), e);
    json_object_object_del(o, key);
    if (value) {
        assert_ok(lc_json_parse(value, strlen(value), key, &v, &e), e);
        json_object_object_add(o, key, v);
    }
    const char *text = json_object_to_json_string(o);
    int status = lc_config_parse(text, strlen(text), "changed.json", c, err);
    json_object_put(o);
    return status;
}

static void refuse(const char *member, const char *key, const char *value, int want,
                   const char *words) {
    lc_config c;
    lc_err err = {0};
    int got = parse_with(member, key, value, &c, &err);
    if (got != want || !strstr(err.text, words) || !strstr(err.text, "changed.json"))
        fail_msg("%s = %s: status %d, text \"%s\", expected %d and \"%s\"", key,
                 value ? value : "(absent)", got, err.text, want, words);
}

static void accept(const char *member, const char *key, const char *value, lc_config *c) {
    lc_err err = {0};
    if (parse_with(member, key, value, c, &err) != LC_OK)
        fail_msg("%s = %s: %s", key, value ? value : "(absent)", err.text);
}

static void test_ranges(void **state) {
    (void)state;
    static const struct {
        const char *key;
        double min, max;
        bool real;
    } ranges[] = {
        {"vocab_size", 1, 1 << 24, 0},
        {"hidden_size", 1, 1 << 16, 0},
        {"num_hidden_layers", 2, 2048, 0},
        {"num_attention_heads", 1, 4096, 0},
        {"q_lora_rank", 1, 1 << 16, 0},
        {"kv_lora_rank", 1, 1 << 16, 0},
        {"qk_nope_head_dim", 1, 8192, 0},
        {"qk_rope_head_dim", 2, 8192, 0},
        {"v_head_dim", 1, 8192, 0},
        {"ffn_hidden_size", 1, 1 << 20, 0},
        {"expert_ffn_hidden_size", 1, 1 << 18, 0},
        {"n_routed_experts", 1, 1 << 14, 0},
        {"zero_expert_num", 0, 1 << 14, 0},
        {"moe_topk", 1, 1024, 0},
        {"routed_scaling_factor", 1e-6, 1e6, 1},
        {"rms_norm_eps", 1e-12, 1, 1},
        {"rope_theta", 1.001, 1e12, 1},
        {"max_position_embeddings", 1, 1 << 30, 0},
        {"bos_token_id", -1, (1 << 24) - 1, 0},
        {"eos_token_id", 0, (1 << 24) - 1, 0},
        {"pad_token_id", -1, (1 << 24) - 1, 0},
        {"oe_neighbor_num", 2, 16, 0},
        {"oe_split_num", 1, 64, 0},
        {"oe_vocab_size_ratio", 1e-3, 1e5, 1},
        {"index_n_heads", 1, 4096, 0},
        {"index_head_dim", 2, 8192, 0},
        {"index_topk", 1, 1 << 20, 0},
        {"index_init_tokens", 0, 1 << 20, 0},
        {"index_local_tokens", 0, 1 << 20, 0},
        {"mtp_num_layers", 0, 64, 0},
    };
    int checks = 0;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const char *key = ranges[i].key;
        double low = ranges[i].min, high = ranges[i].max;
        char below[64], above[64], words[64];
        snprintf(below, sizeof below, "%.17g", ranges[i].real ? low * 0.99 : low - 1);
        snprintf(above, sizeof above, "%.17g", ranges[i].real ? high * 1.01 : high + 1);
        const char *bad[] = {below,
                             above,
                             "\"12\"",
                             "[12]",
                             "{}",
                             "true",
                             "1e300",
                             "-1e300",
                             "-2",
                             "18446744073709551616",
                             "99999999999999999999999999999"};
        snprintf(words, sizeof words, "%s is ", key);
        for (size_t k = 0; k < sizeof bad / sizeof *bad; k++, checks++) {
            if (!strcmp(key, "eos_token_id") && !strcmp(bad[k], "[12]"))
                continue; /* a list is fine */
            refuse("two", key, bad[k], LC_EFORMAT, words);
        }
        if (!ranges[i].real) refuse("two", key, "2.5", LC_EFORMAT, words);
    }
    print_message("# %d values out of range refused by key\n", checks);
    refuse("two", "vocab_size", "70000000", LC_EFORMAT,
           "vocab_size is 70000000, must be a whole number from 1 to 16777216");
}

static void test_required(void **state) {
    (void)state;
    static const char *const keys[] = {"vocab_size",
                                       "hidden_size",
                                       "num_attention_heads",
                                       "q_lora_rank",
                                       "kv_lora_rank",
                                       "qk_nope_head_dim",
                                       "qk_rope_head_dim",
                                       "v_head_dim",
                                       "ffn_hidden_size",
                                       "expert_ffn_hidden_size",
                                       "n_routed_experts",
                                       "moe_topk",
                                       "routed_scaling_factor",
                                       "rope_theta",
                                       "max_position_embeddings",
                                       "oe_split_num",
                                       "oe_vocab_size_ratio",
                                       "index_n_heads",
                                       "index_head_dim",
                                       "index_topk",
                                       "index_init_tokens",
                                       "index_local_tokens"};
    char words[64];
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        bool synonyms = !strncmp(keys[i], "oe_", 3);
        snprintf(words, sizeof words, synonyms ? "%s, " : "%s is missing", keys[i]);
        refuse("two", keys[i], NULL, LC_EFORMAT, words);
        refuse("two", keys[i], "null", LC_EFORMAT, "is missing");
    }
    refuse("two", "num_hidden_layers", NULL, LC_EFORMAT, "num_layers (or num_hidden_layers)");
    refuse("two", "num_hidden_layers", "75", LC_EFORMAT, "even");
}

static void test_missing_keys(void **state) {
    (void)state;
    lc_config c;
    accept("flash", "num_key_value_heads", NULL, &c);
    accept("flash", "mla_scale_q_lora", NULL, &c);
    assert_true(c.mla_scale_q);
    accept("flash", "mla_scale_kv_lora", "false", &c);
    assert_true(c.mla_scale_q && !c.mla_scale_kv);
    accept("flash", "rms_norm_eps", NULL, &c);
    assert_true(c.norm_eps == 1e-5);
    accept("flash", "zero_expert_num", NULL, &c);
    assert_int_equal(c.zero_experts, 0);
    accept("flash", "eos_token_id", NULL, &c);
    assert_int_equal(c.eos, -1);
    assert_int_equal(c.n_eos, 0);
    accept("flash", "mtp_num_layers", NULL, &c);
    assert_int_equal(c.mtp_steps, 0);
    lc_param_counts n;
    lc_config_count(&c, &n);
    assert_int_equal(n.mtp, 0);
    accept("flash", "head_dim", "77", &c); /* ignored */
    accept("two", "model_type", "\"longcat\"", &c);
    assert_string_equal(c.model_type, "longcat");
    accept("two", "rope_scaling",
           "{\"type\":\"deepseek_yarn\",\"factor\":120,"
           "\"original_max_position_embeddings\":8192}",
           &c);
    assert_true(c.rope.mscale == 1 && c.rope.mscale_all_dim == 1 && c.rope.beta_fast == 32 &&
                c.rope.beta_slow == 1);
    accept("lite", "rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":10}", &c);
    assert_true(c.rope.original_positions == 32768); /* 327680 / 10 */
    accept("lite", "rope_scaling", "null", &c);
    assert_false(c.rope.yarn);
}

static void test_spellings(void **state) {
    (void)state;
    lc_config c, d;
    accept("flash", "num_nextn_predict_layers", "1", &c);
    assert_int_equal(c.mtp_steps, 1);
    refuse("flash", "num_nextn_predict_layers", "2", LC_EFORMAT, "mtp_num_layers is 1, but");
    accept("lite", "oe_neighbor_num", "4", &c); /* both, equal */
    refuse("lite", "oe_neighbor_num", "5", LC_EFORMAT, "emb_neighbor_num is 4, but");
    refuse("lite", "oe_vocab_size_ratio", "78.5", LC_EFORMAT, "but oe_vocab_size_ratio is 78.5");
    load_member("lite", &d);
    assert_int_equal(d.ngram_order, 4);
    /* the newer spelling of rotary scaling, theta inside wins over none outside */
    accept("lite", "rope_parameters",
           "{\"rope_type\":\"yarn\",\"rope_theta\":123456.0,\"factor\":7,"
           "\"original_max_position_embeddings\":100,\"mscale\":0.8,\"mscale_all_dim\":0.5}",
           &c);
    assert_true(c.rope.theta == 123456 && c.rope.factor == 7 && c.rope.original_positions == 100);
    assert_true(c.rope.mscale == 0.8 && c.rope.mscale_all_dim == 0.5);
    accept("flash", "rope_parameters", "{\"rope_type\":\"default\",\"rope_theta\":5}", &c);
    assert_true(c.rope.theta == 5 && !c.rope.yarn);
    accept("sparse", "attention_method", "\"MLA\"", &c); /* index keys decide */
    assert_int_equal(c.member, LC_MEMBER_SPARSE);
    accept("sparse", "attention_method", NULL, &c);
    assert_int_equal(c.member, LC_MEMBER_SPARSE);
    accept("flash", "eos_token_id", "[7, 2, 7]", &c);
    assert_int_equal(c.eos, 7);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos_ids[1], 2);
}

static void test_unsupported(void **state) {
    (void)state;
    static const struct {
        const char *member, *key, *value;
        int status;
        const char *words;
    } cases[] = {
        {"flash", "hidden_act", "\"gelu\"", LC_EUNSUPPORTED, "hidden_act"},
        {"flash", "hidden_act", "3", LC_EFORMAT, "hidden_act is 3, must be a string"},
        {"flash", "zero_expert_type", "\"drop\"", LC_EUNSUPPORTED, "zero_expert_type"},
        {"two", "index_k_norm_type", "\"layer\"", LC_EUNSUPPORTED, "index_k_norm_type"},
        {"flash", "router_bias", "true", LC_EUNSUPPORTED, "router_bias"},
        {"flash", "router_bias", "0", LC_EFORMAT, "router_bias is 0, must be true or false"},
        {"flash", "norm_topk_prob", "true", LC_EUNSUPPORTED, "norm_topk_prob"},
        {"flash", "attention_bias", "true", LC_EUNSUPPORTED, "attention_bias"},
        {"flash", "num_key_value_heads", "8", LC_EFORMAT, "num_key_value_heads is 8"},
        {"flash", "attention_method", "\"GQA\"", LC_EUNSUPPORTED, "attention_method"},
        {"flash", "attention_method", "\"LSA\"", LC_EFORMAT, "index_n_heads is missing"},
        {"two", "cli_factor", "4", LC_EFORMAT, "cli_factor is 4"},
        {"flash", "rope_scaling", "{\"rope_type\":\"linear\",\"factor\":2}", LC_EUNSUPPORTED,
         "linear"},
        {"flash", "rope_scaling", "{\"factor\":2}", LC_EFORMAT, "rope_type (or type) is missing"},
        {"flash", "rope_scaling", "{\"type\":\"yarn\"}", LC_EFORMAT, "factor is missing"},
        {"flash", "rope_scaling", "{\"type\":\"yarn\",\"rope_type\":\"default\",\"factor\":2}",
         LC_EUNSUPPORTED, "rotary"},
        {"flash", "rope_scaling", "[]", LC_EFORMAT, "rope_scaling is []"},
        {"flash", "rope_scaling", "{\"type\":\"yarn\",\"factor\":0.5}", LC_EFORMAT,
         "factor is 0.5"},
        {"flash", "rope_scaling", "{\"type\":\"yarn\",\"factor\":2,\"attention_factor\":1}",
         LC_EUNSUPPORTED, "attention_factor"},
        {"two", "quantization_config", "{\"weight_block_size\":[64,128]}", LC_EFORMAT,
         "weight_block_size"},
        {"two", "quantization_config", "7", LC_EFORMAT, "quantization_config"},
        {"flash", "moe_topk", "769", LC_EFORMAT, "moe_topk 769"},
        {"flash", "qk_rope_head_dim", "63", LC_EFORMAT, "must be even"},
        {"two", "index_head_dim", "32", LC_EFORMAT, "index_head_dim 32"},
        {"two", "index_topk", "1039", LC_EFORMAT, "more than index_topk 1039"},
        {"two", "hidden_size", "8200", LC_EFORMAT, "multiple of the 16"},
        {"two", "eos_token_id", "163840", LC_EFORMAT, "outside of the vocabulary"},
        {"two", "pad_token_id", "163840", LC_EFORMAT, "outside of the vocabulary"},
        {"two", "eos_token_id", "[1,2,3,4,5,6,7,8,9]", LC_ELIMIT, "more than 8"},
        {"two", "eos_token_id", "[1,\"2\"]", LC_EFORMAT, "eos_token_id"},
        {"two", "model_type", "12", LC_EFORMAT, "model_type"},
        {"two", "model_type",
         "\"0123456789012345678901234567890123456789012345678901234567890123456789\"", LC_EFORMAT,
         "model_type"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(cases[i].member, cases[i].key, cases[i].value, cases[i].status, cases[i].words);
    lc_config c;
    accept("two", "quantization_config", "{\"weight_block_size\":[128,128]}", &c);
    accept("two", "index_topk", "1040", &c);
    accept("flash", "moe_topk", "768", &c);
}

/* Everything at its upper limit must not overflow the counts, or be refused. */
static void test_extremes(void **state) {
    (void)state;
    char json[2048];
    lc_config c;
    lc_err err = {0};
    lc_param_counts n;
    static const char *const form =
        "{\"vocab_size\":16777216,\"hidden_size\":65536,\"num_layers\":1024,"
        "\"num_attention_heads\":4096,\"q_lora_rank\":65536,\"kv_lora_rank\":65536,"
        "\"qk_nope_head_dim\":8192,\"qk_rope_head_dim\":8192,\"v_head_dim\":8192,"
        "\"ffn_hidden_size\":1048576,\"expert_ffn_hidden_size\":262144,"
        "\"n_routed_experts\":16384,\"zero_expert_num\":16384,\"moe_topk\":1024,"
        "\"routed_scaling_factor\":1,\"rope_theta\":1e4,\"max_position_embeddings\":1073741824,"
        "\"index_n_heads\":4096,\"index_head_dim\":8192,\"index_topk\":1048576,"
        "\"index_init_tokens\":0,\"index_local_tokens\":1,\"mtp_num_layers\":64,"
        "\"emb_neighbor_num\":%d,\"emb_split_num\":64,\"ngram_vocab_size_ratio\":%g}";
    snprintf(json, sizeof json, form, 5, 1000.0);
    assert_ok(lc_config_parse(json, strlen(json), "big.json", &c, &err), err);
    lc_config_count(&c, &n);
    long double experts = 3.0L * 1024 * 16384 * 65536 * 262144;
    assert_true((long double)n.experts == experts);
    assert_true((long double)n.total > experts && (long double)n.total < 0x1p62L);
    assert_true(n.active_all < n.total);
    snprintf(json, sizeof json, form, 5, 1e5);
    assert_int_equal(lc_config_parse(json, strlen(json), "big.json", &c, &err), LC_EFORMAT);
    assert_non_null(strstr(err.text, "ngram_vocab_size_ratio"));
}

static void test_not_json(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        "null",
                                        "[]",
                                        "3",
                                        "\"x\"",
                                        "{",
                                        "{}x",
                                        "{\"a\":}",
                                        "{\"vocab_size\":NaN}",
                                        "\xff",
                                        "{\"\xc3\x28\":1}"};
    lc_config c;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        lc_err err = {0};
        assert_int_equal(lc_config_parse(texts[i], strlen(texts[i]), "bad.json", &c, &err),
                         LC_EFORMAT);
        assert_non_null(strstr(err.text, "bad.json"));
    }
    char deep[2000];
    memset(deep, '[', sizeof deep);
    lc_err err = {0};
    assert_int_equal(lc_config_parse(deep, sizeof deep, "deep.json", &c, &err), LC_ELIMIT);
    assert_int_equal(lc_config_load("tests/data/absent", &c, &err), LC_ENOTFOUND);
    assert_non_null(strstr(err.text, "tests/data/absent"));
}

static void test_golden_configs(void **state) {
    (void)state;
    static const struct {
        const char *name;
        lc_member member;
        size_t layers, tables, index_heads, mtp;
        double theta, factor;
    } cases[] = {
        {"flash-tiny", LC_MEMBER_FLASH, 2, 0, 0, 0, 1e7, 1},
        {"flash-yarn", LC_MEMBER_FLASH, 3, 0, 0, 1, 1e4, 8},
        {"lite-tiny", LC_MEMBER_LITE, 2, 12, 0, 1, 5e6, 10},
        {"lite-odd", LC_MEMBER_LITE, 2, 2, 0, 1, 5e6, 10},
        {"sparse-tiny", LC_MEMBER_SPARSE, 2, 12, 8, 1, 1e6, 120},
        {"two-tiny", LC_MEMBER_TWO, 2, 16, 8, 3, 1e6, 120},
        {"two-fp8", LC_MEMBER_TWO, 2, 8, 8, 3, 1e6, 120},
        {"int8", LC_MEMBER_TWO, 2, 8, 8, 3, 1e6, 120},
        {"long", LC_MEMBER_TWO, 2, 8, 4, 3, 1e4, 120},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[128];
        lc_config c;
        lc_err err = {0};
        snprintf(path, sizeof path, "tests/golden/model/%s", cases[i].name);
        assert_ok(lc_config_load(path, &c, &err), err);
        assert_int_equal(c.member, cases[i].member);
        assert_int_equal(c.layers, cases[i].layers);
        assert_int_equal(lc_config_ngram_tables(&c), cases[i].tables);
        assert_int_equal(c.index_heads, cases[i].index_heads);
        assert_int_equal(c.mtp_steps, cases[i].mtp);
        assert_true(c.rope.theta == cases[i].theta && c.rope.factor == cases[i].factor);
    }
    lc_config c;
    lc_err err = {0};
    assert_ok(lc_config_load("tests/golden/model/flash-yarn", &c, &err), err);
    assert_true(c.rope.mscale == 0.8 && c.rope.mscale_all_dim == 0.5);
}

/* The values that expected.json of each case names are the defaults. */
static void test_golden_switches(void **state) {
    (void)state;
    static const char *const cases[] = {"flash-tiny", "flash-yarn",  "lite-tiny",
                                        "lite-odd",   "sparse-tiny", "two-tiny",
                                        "two-fp8",    "int8",        "long"};
    int checks = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[128], text[64], value[32];
        struct json_object *o, *switches;
        lc_config c;
        lc_err err = {0};
        snprintf(path, sizeof path, "tests/golden/model/%s/expected.json", cases[i]);
        assert_ok(lc_json_load(path, 0, &o, &err), err);
        snprintf(path, sizeof path, "tests/golden/model/%s", cases[i]);
        assert_ok(lc_config_load(path, &c, &err), err);
        assert_true(json_object_object_get_ex(o, "switches", &switches));
        json_object_object_foreach(switches, key, v) {
            lc_config set = c;
            snprintf(text, sizeof text, "%s=%s", key, json_object_get_string(v));
            assert_ok(lc_config_set(&set, text, &err), err);
            for (size_t k = 0; k < lc_switch_count(); k++) {
                char before[32];
                lc_switch_text(&c, k, before);
                lc_switch_text(&set, k, value);
                assert_string_equal(before, value);
            }
            checks++;
        }
        json_object_put(o);
    }
    print_message("# %d switches of expected.json are the defaults\n", checks);
}

static void test_switches(void **state) {
    (void)state;
    lc_config c;
    lc_err err = {0};
    load_member("two", &c);
    static const char *const sets[] = {"identity_scaled=false", "ngram_fusion=full_word",
                                       "ngram_eos_reset=false", "mla_eps=1e-2",
                                       "k_norm_eps=1",          "index_scaled_cq=true",
                                       "mtp_concat=he",         "mtp_ngram=true",
                                       "rope_angles=exact",     "rope_frequency_rounded_once=true",
                                       "dense_attention=true",  "dequantised_to_bf16=true"};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        assert_ok(lc_config_set(&c, sets[i], &err), err);
    const lc_switches *s = &c.switches;
    assert_true(!s->identity_scaled && s->ngram_full_word && !s->ngram_eos_reset);
    assert_true(s->mla_eps == 1e-2 && s->k_norm_eps == 1 && s->index_scaled_cq);
    assert_true(s->mtp_concat_he && s->mtp_ngram && s->rope_exact_angles);
    assert_true(s->rope_frequency_rounded_once && s->dense_attention && s->dequantised_to_bf16);
    static const char *const backs[] = {"identity_scaled=true", "ngram_fusion=mean",
                                        "mtp_concat=eh", "rope_angles=fp32",
                                        "dense_attention=false"};
    for (size_t i = 0; i < sizeof backs / sizeof *backs; i++)
        assert_ok(lc_config_set(&c, backs[i], &err), err);
    assert_true(s->identity_scaled && !s->ngram_full_word && !s->mtp_concat_he &&
                !s->rope_exact_angles && !s->dense_attention);
    static const char *const bad[] = {"",
                                      "=",
                                      "mla_eps",
                                      "mla_eps=",
                                      "mla_eps=0",
                                      "mla_eps=-1",
                                      "mla_eps=nan",
                                      "mla_eps=1x",
                                      "ngram_fusion=true",
                                      "identity_scaled=yes",
                                      "nothing=true",
                                      "mla_ep=1",
                                      "dense_attention =true"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(lc_config_set(&c, bad[i], &err), LC_EINVAL);
    lc_config_set(&c, "nothing=true", &err);
    for (size_t i = 0; i < lc_switch_count(); i++) {
        char value[32];
        assert_non_null(strstr(err.text, lc_switch_text(&c, i, value)));
    }
}

static void test_generation(void **state) {
    (void)state;
    lc_config c;
    lc_err err = {0};
    load_member("two", &c);
    const char *text = "{\"bos_token_id\":1,\"eos_token_id\":[2,5],\"pad_token_id\":3,"
                       "\"temperature\":0.7,\"top_p\":0.95,\"top_k\":40,\"do_sample\":true}";
    assert_ok(lc_config_parse_generation(text, strlen(text), "g.json", &c, &err), err);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos, 2);
    assert_int_equal(c.eos_ids[1], 5);
    assert_int_equal(c.pad, 3);
    assert_true(c.gen_temperature == 0.7 && c.gen_top_p == 0.95 && c.gen_do_sample);
    assert_int_equal(c.gen_top_k, 40);
    static const char *const bad[] = {"[]",
                                      "{\"temperature\":-1}",
                                      "{\"top_p\":1.5}",
                                      "{\"top_k\":1.5}",
                                      "{\"do_sample\":1}",
                                      "{\"eos_token_id\":163840}",
                                      "{\"pad_token_id\":-5}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(lc_config_parse_generation(bad[i], strlen(bad[i]), "g.json", &c, &err),
                         LC_EFORMAT);
    assert_ok(lc_config_load("tests/golden/tiny-code", &c, &err),
              err); /* has generation_config.json */
    assert_int_equal(c.pad, 3);
}

static void test_allocation_failures(void **state) {
    (void)state;
    lc_config c;
    size_t before = lc_mem_current();
    int failures = 0;
    for (long n = 0;; n++) {
        lc_err err = {0};
        lc_mem_fail_after(n);
        int status = lc_config_load("tests/golden/tiny-code", &c, &err);
        lc_mem_fail_after(-1);
        assert_int_equal(lc_mem_current(), before);
        if (status == LC_OK) break;
        assert_int_equal(status, LC_ENOMEM);
        failures++;
    }
    assert_true(failures > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_counts),
        cmocka_unit_test(test_ngram_rows),
        cmocka_unit_test(test_published_values),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_required),
        cmocka_unit_test(test_missing_keys),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_golden_configs),
        cmocka_unit_test(test_golden_switches),
        cmocka_unit_test(test_switches),
        cmocka_unit_test(test_generation),
        cmocka_unit_test(test_allocation_failures),
    };
    return test_main(tests);
}
