/*
 * fuzz_config.c: the input is config.json, or config.json, a NUL, and generation_config.json. What
 * is accepted must keep the promises that later code builds on.
 */
#include "base/mem.h"
#include "format/names.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok) {
    if (!ok) abort();
}

static int check_name(void *ctx, const lc_name *name) {
    size_t *left = ctx;
    require(strlen(name->name) > 4 && name->shape[0] > 0);
    return (*left)-- ? LC_OK : LC_ECANCELED; /* a config may ask for 50 million tensors */
}

static void check_config(const lc_config *c) {
    lc_param_counts n;
    size_t left = 5000;
    lc_config_count(c, &n);
    require(n.total < (uint64_t)1 << 62 && n.active_all <= n.total + n.embedding);
    require(n.active_zero <= n.active_average && n.active_average <= n.active_all);
    require(c->topk <= c->experts + c->zero_experts && c->rope_dim % 2 == 0);
    require(c->index_sink + c->index_window <= c->index_topk);
    require(c->index_heads == 0 || c->index_dim >= c->rope_dim);
    require(lc_config_kv_bytes(c, 4) < (uint64_t)1 << 40);
    require(c->n_eos <= sizeof c->eos_ids / sizeof *c->eos_ids);
    for (size_t i = 0; i < c->n_eos; i++)
        require(c->eos_ids[i] >= 0 && (size_t)c->eos_ids[i] < c->vocab);
    size_t tables = lc_config_ngram_tables(c);
    require(!tables || c->hidden % tables == 0);
    require(!tables || lc_config_ngram_rows(c, tables - 1) < INT64_MAX / c->vocab);
    lc_names_expected(c, check_name, &left);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *copy = malloc(size ? size : 1);
    if (!copy) return 0;
    memcpy(copy, data, size);
    const char *nul = memchr(copy, 0, size);
    size_t len = nul ? (size_t)(nul - copy) : size;
    lc_config c;
    lc_err err;
    if (lc_config_parse(copy, len, "fuzz", &c, &err) == LC_OK) {
        check_config(&c);
        if (nul && lc_config_parse_generation(nul + 1, size - len - 1, "fuzz", &c, &err) == LC_OK)
            check_config(&c);
    } else {
        require(err.text[0]);
    }
    free(copy);
    require(lc_mem_current() == 0);
    return 0;
}
