/*
 * synthetic_shapes.c: the published config.json of each member, as one table: a key a line, its
 * values in JSON for Flash, Flash-Lite, Flash-Lite-Sparse and 2.0; NULL where the key is absent.
 */
#include "engine/synthetic.h"

#include "base/err.h"

#include <string.h>

enum { MEMBERS = 4 };
static const char *const names[MEMBERS] = {"flash", "lite", "sparse", "2.0"};

/* clang-format off */
#define YARN_REST "\"beta_fast\":32,\"beta_slow\":1,\"mscale\":1,\"mscale_all_dim\":1}"
#define YARN_LITE "{\"rope_type\":\"yarn\",\"factor\":10,\"original_max_position_embeddings\":32768," YARN_REST
#define YARN_LSA "{\"type\":\"deepseek_yarn\",\"factor\":120,\"original_max_position_embeddings\":8192," YARN_REST
#define ALL(value) {value, value, value, value}
static const struct {
    const char *key, *value[MEMBERS];
} keys[] = {
    {"architectures",
     {"[\"LongcatFlashForCausalLM\"]",
      "[\"LongcatFlashNgramForCausalLM\"]",
      "[\"LongcatCausalLM\"]",
      "[\"LongcatCausalLM\"]"}},
    {"model_type", {"\"longcat_flash\"", "\"longcat_flash_ngram\"", NULL, "null"}},
    {"attention_method", {"\"MLA\"", "\"MLA\"", "\"LSA\"", "\"MLA\""}},
    {"vocab_size", {"131072", "131072", "131072", "163840"}},
    {"hidden_size", {"6144", "3072", "3072", "8192"}},
    {"num_layers", {"28", "14", "14", NULL}},
    {"num_attention_heads", {"64", "32", "32", "64"}},
    {"num_key_value_heads", {"64", "32", "32", "64"}},
    {"q_lora_rank", ALL("1536")},
    {"kv_lora_rank", ALL("512")},
    {"qk_nope_head_dim", ALL("128")},
    {"qk_rope_head_dim", ALL("64")},
    {"v_head_dim", ALL("128")},
    {"head_dim", ALL("64")},
    {"ffn_hidden_size", {"12288", "6144", "6144", "12288"}},
    {"expert_ffn_hidden_size", {"2048", "1024", "1024", "2048"}},
    {"n_routed_experts", {"512", "256", "256", "768"}},
    {"zero_expert_num", {"256", "128", "128", "128"}},
    {"zero_expert_type", ALL("\"identity\"")},
    {"moe_topk", ALL("12")},
    {"routed_scaling_factor", {"6.0", "6.0", "6.0", "9.0"}},
    {"router_bias", ALL("false")},
    {"norm_topk_prob", ALL("false")},
    {"attention_bias", ALL("false")},
    {"attention_dropout", ALL("0.0")},
    {"mla_scale_q_lora", ALL("true")},
    {"mla_scale_kv_lora", ALL("true")},
    {"hidden_act", ALL("\"silu\"")},
    {"rms_norm_eps", ALL("1e-05")},
    {"rope_theta", {"10000000.0", "5000000.0", "1000000.0", "1000000.0"}},
    {"max_position_embeddings", {"131072", "327680", "983040", "262144"}},
    {"tie_word_embeddings", ALL("false")},
    {"bos_token_id", ALL("1")},
    {"eos_token_id", ALL("2")},
    {"initializer_range", ALL("0.02")},
    {"use_cache", ALL("true")},
    {"torch_dtype", ALL("\"bfloat16\"")},
    {"mtp_num_layers", {"1", "1", "1", "3"}},
    {"num_hidden_layers", {NULL, "28", "28", "76"}},
    {"rope_scaling", {NULL, YARN_LITE, YARN_LSA, YARN_LSA}},
    {"emb_neighbor_num", {NULL, "4", NULL, NULL}},
    {"emb_split_num", {NULL, "4", NULL, NULL}},
    {"ngram_vocab_size_ratio", {NULL, "78", NULL, NULL}},
    {"oe_neighbor_num", {NULL, NULL, "4", "5"}},
    {"oe_split_num", {NULL, NULL, "4", "4"}},
    {"oe_vocab_size_ratio", {NULL, NULL, "78", "100.567"}},
    {"index_n_heads", {NULL, NULL, "16", "32"}},
    {"index_head_dim", {NULL, NULL, "128", "128"}},
    {"index_topk", {NULL, NULL, "2048", "2048"}},
    {"index_init_tokens", {NULL, NULL, "16", "16"}},
    {"index_local_tokens", {NULL, NULL, "1024", "1024"}},
    {"index_k_norm_type", {NULL, NULL, "\"rms\"", "\"rms\""}},
    {"cli_factor", {NULL, NULL, "2", "2"}},
    {"mtp_replicate_modules", {NULL, NULL, "true", "true"}},
    {"mtp_disable_over_tokenizer", {NULL, NULL, "true", "true"}},
    {"dsa_mtp_cli", {NULL, NULL, "true", "true"}},
    {"moe_impl", {NULL, NULL, NULL, "\"mix\""}},
    {"moe_switch_token_num", {NULL, NULL, NULL, "1024"}},
};
/* clang-format on */

int lc_synthetic_shape(const char *name, lc_buf *out, lc_err *err) {
    size_t member = 0;
    while (member < MEMBERS && strcmp(name, names[member])) member++;
    if (member == MEMBERS)
        return lc_fail(err, LC_ENOTFOUND, "shape \"%s\" is unknown: flash, lite, sparse or 2.0",
                       name);
    const char *separator = "{";
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!keys[i].value[member]) continue;
        lc_buf_printf(out, "%s\"%s\":%s", separator, keys[i].key, keys[i].value[member]);
        separator = ",";
    }
    lc_buf_putc(out, '}');
    return out->failed ? lc_fail(err, LC_ENOMEM, "shape %s: out of memory", name) : LC_OK;
}
