/* config_switch.c: the switches for what the published sources leave open: defaults and names. */
#include "format/config.h"

#include "base/err.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct lc_switch {
    const char *name;
    size_t offset; /* in lc_switches; a double if eps, else a bool */
    bool eps;
    const char *off, *on; /* how false and true are spelled */
} lc_switch;

#define FLAG(name)                                                                                 \
    { #name, offsetof(lc_switches, name), false, "false", "true" }
#define EPS(name)                                                                                  \
    { #name, offsetof(lc_switches, name), true, NULL, NULL }
#define CHOICE(name, member, off, on)                                                              \
    { name, offsetof(lc_switches, member), false, off, on }

static const lc_switch switches[] = {
    FLAG(identity_scaled),
    CHOICE("ngram_fusion", ngram_full_word, "mean", "full_word"),
    FLAG(ngram_eos_reset),
    EPS(mla_eps),
    EPS(k_norm_eps),
    FLAG(index_scaled_cq),
    CHOICE("mtp_concat", mtp_concat_he, "eh", "he"),
    FLAG(mtp_ngram),
    CHOICE("rope_angles", rope_exact_angles, "fp32", "exact"),
    FLAG(rope_frequency_rounded_once),
    FLAG(dense_attention),
    FLAG(dequantised_to_bf16),
};
enum { N_SWITCHES = sizeof switches / sizeof *switches };

void lc_switches_default(lc_config *c) {
    c->switches = (lc_switches){
        .identity_scaled = true,
        .ngram_eos_reset = true,
        .mla_eps = c->index_heads ? 1e-5 : 1e-6,
        .k_norm_eps = 1e-6,
    };
}

size_t lc_switch_count(void) { return N_SWITCHES; }

const char *lc_switch_text(const lc_config *c, size_t i, char value[32]) {
    const lc_switch *s = &switches[i];
    const void *at = (const char *)&c->switches + s->offset;
    if (s->eps)
        snprintf(value, 32, "%g", *(const double *)at);
    else
        snprintf(value, 32, "%s", *(const bool *)at ? s->on : s->off);
    return s->name;
}

static int unknown(const char *assignment, lc_err *err) {
    char list[320];
    size_t used = 0;
    for (int i = 0; i < N_SWITCHES && used < sizeof list; i++) {
        const lc_switch *s = &switches[i];
        int n = snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", s->name);
        used += n > 0 ? (size_t)n : 0;
    }
    return lc_fail(err, LC_EINVAL, "switch \"%.60s\" is not NAME=VALUE with one of the names %s",
                   assignment, list);
}

int lc_config_set(lc_config *config, const char *assignment, lc_err *err) {
    const char *equals = strchr(assignment, '=');
    size_t len = equals ? (size_t)(equals - assignment) : 0;
    const lc_switch *s = NULL;
    for (int i = 0; i < N_SWITCHES; i++)
        if (strlen(switches[i].name) == len && !memcmp(switches[i].name, assignment, len))
            s = &switches[i];
    if (!len || !s) return unknown(assignment, err);
    void *at = (char *)&config->switches + s->offset;
    char *end;
    const char *value = equals + 1;
    if (s->eps) {
        errno = 0;
        double number = strtod(value, &end);
        if (errno || end == value || *end || !(number > 0 && number <= 1000))
            return lc_fail(err, LC_EINVAL,
                           "switch %s: \"%.60s\" is not a number above 0, at most "
                           "1000",
                           s->name, value);
        *(double *)at = number;
        return LC_OK;
    }
    bool on = !strcmp(value, s->on);
    if (!on && strcmp(value, s->off))
        return lc_fail(err, LC_EINVAL, "switch %s: \"%.60s\" is neither %s nor %s", s->name, value,
                       s->off, s->on);
    *(bool *)at = on;
    return LC_OK;
}
