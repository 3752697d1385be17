/*
 * aliases.c: checkpoints of mlx-lm under the names of all others. mlx-lm stacks a layer's experts
 * in one tensor, splits kv_b_proj (stored.h) and, with n-gram tables, keeps the word table among
 * them. What it can be told by is the name's tail; the bytes stay where they are.
 */
#include "format/tensors.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdio.h>

enum { MAX_STACK = 1 << 14, MAX_ALIASES = 1 << 20 };

typedef enum naming { KEPT, STACKED, FLAT, WORDS } naming;

static const char stack[] = ".mlp.switch_mlp.", words[] = "model.ngram_embeddings.word_embeddings.",
                  plain_words[] = "model.embed_tokens.";

static naming naming_of(const lc_tensor *t) {
    if (!strncmp(t->name, words, sizeof words - 1)) return WORDS;
    if (t->rank != 3 || !t->count || t->dtype == LC_DTYPE_COUNT) return KEPT;
    if (strstr(t->name, stack)) return STACKED;
    return strstr(t->name, ".embed_q.") || strstr(t->name, ".unembed_out.") ? FLAT : KEPT;
}

/* How many tensors t becomes, and the bytes of their names. */
static int measure(const lc_tensor *t, size_t *count, size_t *bytes, lc_err *err) {
    naming how = naming_of(t);
    *count = how == STACKED ? t->shape[0] : 1;
    *bytes = how == STACKED ? *count * (strlen(t->name) + 16)
             : how == WORDS ? strlen(t->name) + 1
                            : 0;
    if (*count > MAX_STACK)
        return lc_fail(err, LC_ELIMIT,
                       "%s: tensor %s: %zu matrices in a stack; at most %d are read", t->file,
                       t->name, *count, MAX_STACK);
    return LC_OK;
}

/* t as one matrix of its stack, or all of them below one another. */
static void cut(lc_tensor *out, const lc_tensor *t, size_t first, size_t n) {
    size_t each = t->count / t->shape[0];
    *out = *t;
    out->rank = 2;
    out->shape[0] = n * t->shape[1];
    out->shape[1] = t->shape[2];
    out->count = n * each;
    out->size = out->count * lc_dtype_size(t->dtype);
    out->data = (const char *)t->data + first * each * lc_dtype_size(t->dtype);
}

/* Writes what t becomes to out[0..]; names go to *name, which advances. */
static size_t rename_one(const lc_tensor *t, lc_tensor *out, char **name) {
    switch (naming_of(t)) {
    case KEPT: out[0] = *t; return 1;
    case FLAT:
        out[0] = *t;
        cut(out, t, 0, t->shape[0]);
        return 1;
    case WORDS:
        out[0] = *t;
        out[0].name = *name;
        *name +=
            snprintf(*name, strlen(t->name) + 1, "%s%s", plain_words, t->name + sizeof words - 1) +
            1;
        return 1;
    case STACKED: break;
    }
    const char *at = strstr(t->name, stack), *rest = at + sizeof stack - 1;
    for (size_t e = 0; e < t->shape[0]; e++) {
        cut(&out[e], t, e, 1);
        out[e].name = *name;
        *name += snprintf(*name, strlen(t->name) + 16, "%.*s.mlp.experts.%zu.%s",
                          (int)(at - t->name), t->name, e, rest) +
                 1;
    }
    return t->shape[0];
}

int lc_tensors_alias(lc_tensors *tensors, lc_err *err) {
    size_t total = 0, bytes = 0, count, length;
    bool any = false;
    for (size_t i = 0; i < tensors->count; i++) {
        int status = measure(&tensors->items[i], &count, &length, err);
        if (status != LC_OK) return status;
        any = any || naming_of(&tensors->items[i]) != KEPT;
        total += count;
        bytes += length;
        if (total > tensors->count && total > MAX_ALIASES)
            return lc_fail(err, LC_ELIMIT, "%s: more than %d stacked matrices",
                           tensors->items[i].file, MAX_ALIASES);
    }
    if (!any) return LC_OK;
    lc_tensor *items = lc_alloc(total * sizeof *items);
    char *names = lc_alloc(bytes + 1), *name = names;
    if (!items || !names) {
        lc_free(items);
        lc_free(names);
        return lc_fail(err, LC_ENOMEM, "checkpoint: out of memory");
    }
    size_t used = 0;
    for (size_t i = 0; i < tensors->count; i++)
        used += rename_one(&tensors->items[i], items + used, &name);
    lc_free(tensors->items);
    tensors->items = items;
    tensors->count = tensors->cap = used;
    tensors->aliases = names;
    return lc_tensors_finish(tensors, err);
}
