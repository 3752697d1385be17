/* inspect_print.c: the report of `longcat inspect` as a table for a person, and as JSON. */
#include "cli/inspect.h"

#include <math.h>
#include <string.h>

enum { SHOWN_NAMES = 20, LABEL = 30, NUMBER = 22 };

/* Texts by value, so that several can stand in one printf. */
typedef struct text {
    char s[40];
} text;

static text grouped(uint64_t n) {
    char digits[24];
    text out;
    int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), used = 0;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0) out.s[used++] = ',';
        out.s[used++] = digits[i];
    }
    out.s[used] = 0;
    return out;
}

/* "1,234.50 GiB"; two decimals from KiB on. */
static text bytes(uint64_t n) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB"};
    text out, whole;
    if (n < 1024) {
        snprintf(out.s, sizeof out.s, "%d B", (int)n);
        return out;
    }
    int unit = 0;
    double value = (double)n;
    while (value >= 1024 && unit < 3) {
        value /= 1024;
        unit++;
    }
    uint64_t hundredths = (uint64_t)llround(value * 100);
    whole = grouped(hundredths / 100);
    snprintf(out.s, sizeof out.s, "%.28s.%02d %s", whole.s, (int)(hundredths % 100), units[unit]);
    return out;
}

/* "18.69B", "12.17M" */
static text billions(uint64_t n) {
    text out;
    if (n >= 1000000000)
        snprintf(out.s, sizeof out.s, "%.2fB", (double)n / 1e9);
    else
        snprintf(out.s, sizeof out.s, "%.2fM", (double)n / 1e6);
    return out;
}

static void row(FILE *out, const char *label, uint64_t value, const char *note) {
    fprintf(out, "  %-*s%*s%s%s\n", LABEL, label, NUMBER, grouped(value).s, *note ? "   " : "",
            note);
}

static void print_dimensions(const lc_report *r, FILE *out) {
    const lc_config *c = &r->config;
    char note[160];
    fprintf(out, "\nDimensions\n");
    row(out, "vocabulary", c->vocab, "");
    row(out, "hidden size", c->hidden, "");
    row(out, "layers", c->layers, "two attention sublayers and two dense FFNs each");
    snprintf(note, sizeof note, "query rank %s, latent %s; head %zu + %zu rotary, value %zu",
             grouped(c->q_rank).s, grouped(c->kv_rank).s, c->nope_dim, c->rope_dim, c->v_dim);
    row(out, "attention heads", c->heads, note);
    row(out, "dense FFN width", c->ffn, "");
    snprintf(note, sizeof note, "plus %zu identity; %zu chosen, width %s, scale %g",
             c->zero_experts, c->topk, grouped(c->expert_ffn).s, c->routed_scale);
    row(out, "routed experts", c->experts, note);
    if (c->ngram_order) {
        snprintf(note, sizeof note, "orders 2 to %zu, %zu each, about %s rows a table",
                 c->ngram_order, c->ngram_splits, grouped(lc_config_ngram_rows(c, 0)).s);
        row(out, "n-gram tables", lc_config_ngram_tables(c), note);
    }
    if (c->index_heads) {
        snprintf(note, sizeof note, "of %zu; %s keys chosen, %zu first and %s last always",
                 c->index_dim, grouped(c->index_topk).s, c->index_sink, grouped(c->index_window).s);
        row(out, "index heads", c->index_heads, note);
    }
    if (c->mtp_steps) row(out, "draft steps", c->mtp_steps, "");
    if (c->rope.yarn)
        snprintf(note, sizeof note, "rotary base %.10g, yarn x%g over %s", c->rope.theta,
                 c->rope.factor, grouped((uint64_t)c->rope.original_positions).s);
    else
        snprintf(note, sizeof note, "rotary base %.10g", c->rope.theta);
    row(out, "positions", c->max_positions, note);
}

static void print_part(FILE *out, const char *label, lc_part_sum sum, uint64_t total) {
    char share[16] = "";
    if (total) snprintf(share, sizeof share, "%.2f %%", 100 * (double)sum.elements / (double)total);
    fprintf(out, "  %-*s%*s%11s%18s\n", LABEL, label, NUMBER, grouped(sum.elements).s, share,
            bytes(sum.bytes).s);
}

static void print_parts(const lc_report *r, FILE *out) {
    lc_part_sum all = {0}, main_sum = {0};
    for (int p = 0; p < LC_PART_COUNT; p++) {
        all.elements += r->parts[p].elements;
        all.bytes += r->parts[p].bytes;
        if (p < LC_PART_MTP) main_sum = all;
    }
    fprintf(out, "\n%-*s%*s%11s%18s\n", LABEL + 2, "Parts", NUMBER, "parameters", "share",
            r->checkpoint ? "as stored" : "in BF16");
    for (int p = 0; p < LC_PART_COUNT; p++) {
        if (p == LC_PART_MTP) print_part(out, "main model", main_sum, main_sum.elements);
        if (r->parts[p].elements)
            print_part(out, lc_part_name((lc_part)p), r->parts[p],
                       p < LC_PART_MTP ? main_sum.elements : 0);
    }
    if (all.elements != main_sum.elements) print_part(out, "all", all, 0);
}

static void print_active(const lc_report *r, FILE *out) {
    const lc_param_counts *n = &r->counts;
    char label[64];
    fprintf(out, "\nActive parameters of a token\n");
    fprintf(out, "  %-*s%*s\n", LABEL, "no routed expert", NUMBER, billions(n->active_zero).s);
    snprintf(label, sizeof label, "%.4g experts (average)", n->average_experts);
    fprintf(out, "  %-*s%*s\n", LABEL, label, NUMBER, billions(n->active_average).s);
    snprintf(label, sizeof label, "%zu experts (all chosen)", r->config.topk);
    fprintf(out, "  %-*s%*s\n", LABEL, label, NUMBER, billions(n->active_all).s);
}

static void print_kv(FILE *out, const lc_report *r, uint64_t tokens) {
    uint64_t k = tokens / 1024;
    char label[64], note[64] = "";
    if (tokens % 1024)
        snprintf(label, sizeof label, "%s tokens", grouped(tokens).s);
    else if (k % 1024)
        snprintf(label, sizeof label, "%lluK tokens", (unsigned long long)k);
    else
        snprintf(label, sizeof label, "%lluM tokens", (unsigned long long)k / 1024);
    if (tokens > r->config.max_positions) snprintf(note, sizeof note, "   beyond its positions");
    fprintf(out, "  %-*s%*s%18s%s\n", LABEL, label, NUMBER, bytes(tokens * r->kv[0]).s,
            bytes(tokens * r->kv[1]).s, note);
}

static void print_context(const lc_report *r, FILE *out) {
    bool listed = false;
    fprintf(out, "\n%-*s%*s%18s\n", LABEL + 2, "Context (latent cache)", NUMBER, "BF16", "F32");
    for (int i = 0; i < 2; i++) {
        const uint64_t *kv = i ? r->kv_mtp : r->kv;
        if (!kv[0]) continue;
        fprintf(out, "  %-*s%*s B%16s B\n", LABEL, i ? "draft module, a token" : "a token",
                NUMBER - 2, grouped(kv[0]).s, grouped(kv[1]).s);
    }
    for (int i = 0; i < LC_REPORT_CONTEXTS; i++) {
        print_kv(out, r, lc_report_contexts[i]);
        listed = listed || lc_report_contexts[i] == r->context;
    }
    if (!listed) print_kv(out, r, r->context);
}

static void print_memory(const lc_report *r, FILE *out) {
    fprintf(out, "\nMemory: %s %s; context of %s tokens in BF16 %s, a step's buffers %s\n",
            r->memory_given ? "asked for" : "this machine has", bytes(r->memory).s,
            grouped(r->context).s, bytes((r->kv[0] + r->kv_mtp[0]) * r->context).s,
            bytes(r->step).s);
    fprintf(out, "Kernels on this machine: %s, BF16 products: %s\n", lc_isa_name(r->kernels->isa),
            r->kernels->bf16.name);
    fprintf(out, "  %-*s%16s%16s%16s\n", 12, "", "weights", "all together", "token reads");
    for (int i = 0; i < r->n_fits; i++) {
        const lc_fit *f = &r->fits[i];
        fprintf(out, "  %-*s%16s%16s%16s   ", 12, f->name, bytes(f->weights).s,
                bytes(f->together).s, bytes(f->token).s);
        if (f->fits)
            fprintf(out, "fits, room for %s tokens%s\n", grouped(f->room).s,
                    f->room == r->config.max_positions ? " (all positions)" : "");
        else
            fprintf(out, "%s short\n", bytes(f->together - r->memory).s);
    }
    if (r->checkpoint) {
        uint64_t mapped = r->fits[0].weights - r->fits[0].copied;
        fprintf(out,
                "  %s mapped from the files, %s copied to RAM (misaligned), %s packed (kv_b)\n",
                bytes(mapped).s, bytes(r->fits[0].copied).s, bytes(r->fits[0].packed).s);
        return;
    }
    fprintf(out, "  FP8: projections and FFNs, a scale per 128 x 128; INT8: FFNs, a scale per row; "
                 "INT4: projections\n  and FFNs, a scale per 64. Tables, embeddings and head stay "
                 "BF16.\n");
}

static void print_list(FILE *out, const char *title, const lc_buf *texts, uint64_t count) {
    if (!count) return;
    fprintf(out, "  %s: %s\n", title, grouped(count).s);
    uint64_t shown = 0;
    for (size_t at = 0; at < texts->len && shown < SHOWN_NAMES; at += strlen(texts->data + at) + 1)
        fprintf(out, "    %s\n", texts->data + (shown++, at));
    if (shown < count) fprintf(out, "    and %s more\n", grouped(count - shown).s);
}

static void print_tensors(const lc_report *r, FILE *out) {
    const lc_inventory *v = &r->inventory;
    if (!r->checkpoint) return;
    int used = 0;
    fprintf(out, "\nTensors: %s;", grouped(r->n_tensors).s);
    for (int d = 0; d <= LC_DTYPE_COUNT; d++)
        if (v->dtype_bytes[d])
            fprintf(out, "%s %s %s", used++ ? "," : "", lc_dtype_name((lc_dtype)d),
                    bytes(v->dtype_bytes[d]).s);
    fprintf(out, "\n");
    const lc_quant *q = &r->config.quant;
    if (q->method[0]) fprintf(out, "  quantised: %s\n", q->method);
    if (q->strips) fprintf(out, "  in strips of 16 rows (longcat pack)\n");
    if (!v->n_missing && !v->n_wrong && !v->n_unknown)
        fprintf(out, "  all that the config asks for, and no others\n");
    print_list(out, "missing", &v->missing, v->n_missing);
    print_list(out, "wrong", &v->wrong, v->n_wrong);
    print_list(out, "unknown (not used)", &v->unknown, v->n_unknown);
    if (r->config.mtp_steps && !v->parts[LC_PART_MTP].tensors)
        fprintf(out, "  the config declares a draft module; the checkpoint has none\n");
    if (!r->config.mtp_steps && v->parts[LC_PART_MTP].tensors)
        fprintf(out, "  a draft module that the config doesn't declare\n");
}

void lc_report_print(const lc_report *r, FILE *out) {
    char value[32];
    fprintf(out, "%s: %s%s\n", r->path, lc_member_name(r->config.member),
            r->checkpoint ? "" : " (no weights here: sizes are computed)");
    print_dimensions(r, out);
    print_parts(r, out);
    print_active(r, out);
    print_context(r, out);
    print_memory(r, out);
    print_tensors(r, out);
    fprintf(out, "\nSwitches (--set NAME=VALUE)\n");
    for (size_t i = 0; i < lc_switch_count(); i++) {
        const char *name = lc_switch_text(&r->config, i, value);
        fprintf(out, "  %-*s%s\n", LABEL, name, value);
    }
}

/* JSON. json-c's own allocation failures show as NULL objects and end in NULL at the end. */
static void put(struct json_object *o, const char *key, struct json_object *value) {
    json_object_object_add(o, key, value);
}

static void put_n(struct json_object *o, const char *key, uint64_t n) {
    put(o, key, json_object_new_uint64(n));
}

/* A double with the digits that tell it apart, never "0.10000000000000001". */
static void put_real(struct json_object *o, const char *key, double value) {
    char shortest[32];
    snprintf(shortest, sizeof shortest, "%.15g", value);
    put(o, key, json_object_new_double_s(value, shortest));
}

static struct json_object *json_dimensions(const lc_config *c) {
    struct json_object *o = json_object_new_object(), *rope = json_object_new_object();
    put_n(o, "vocab", c->vocab);
    put_n(o, "hidden", c->hidden);
    put_n(o, "layers", c->layers);
    put_n(o, "heads", c->heads);
    put_n(o, "q_rank", c->q_rank);
    put_n(o, "kv_rank", c->kv_rank);
    put_n(o, "nope_dim", c->nope_dim);
    put_n(o, "rope_dim", c->rope_dim);
    put_n(o, "v_dim", c->v_dim);
    put_n(o, "ffn", c->ffn);
    put_n(o, "expert_ffn", c->expert_ffn);
    put_n(o, "experts", c->experts);
    put_n(o, "zero_experts", c->zero_experts);
    put_n(o, "topk", c->topk);
    put_real(o, "routed_scale", c->routed_scale);
    put_n(o, "ngram_order", c->ngram_order);
    put_n(o, "ngram_splits", c->ngram_splits);
    put_real(o, "ngram_ratio", c->ngram_ratio);
    put_n(o, "index_heads", c->index_heads);
    put_n(o, "index_dim", c->index_dim);
    put_n(o, "index_topk", c->index_topk);
    put_n(o, "index_sink", c->index_sink);
    put_n(o, "index_window", c->index_window);
    put_n(o, "mtp_steps", c->mtp_steps);
    put_n(o, "max_positions", c->max_positions);
    put_real(rope, "theta", c->rope.theta);
    put(rope, "yarn", json_object_new_boolean(c->rope.yarn));
    put_real(rope, "factor", c->rope.factor);
    put_real(rope, "original_positions", c->rope.original_positions);
    put(o, "rope", rope);
    return o;
}

static struct json_object *json_parameters(const lc_report *r) {
    struct json_object *o = json_object_new_object(), *parts = json_object_new_object(),
                       *active = json_object_new_object();
    for (int p = 0; p < LC_PART_COUNT; p++) {
        struct json_object *part = json_object_new_object();
        put_n(part, "tensors", r->parts[p].tensors);
        put_n(part, "parameters", r->parts[p].elements);
        put_n(part, "bytes", r->parts[p].bytes);
        put(parts, lc_part_key((lc_part)p), part);
    }
    put_n(o, "total", r->counts.total);
    put_n(o, "mtp", r->counts.mtp);
    put_n(o, "mtp_ngram", r->counts.mtp_ngram);
    put_n(active, "none", r->counts.active_zero);
    put_n(active, "average", r->counts.active_average);
    put_n(active, "all", r->counts.active_all);
    put_real(active, "average_experts", r->counts.average_experts);
    put(o, "active", active);
    put(o, "parts", parts);
    return o;
}

static struct json_object *json_context(const lc_report *r) {
    struct json_object *o = json_object_new_object(), *at = json_object_new_array();
    put_n(o, "bytes_per_token_bf16", r->kv[0]);
    put_n(o, "bytes_per_token_f32", r->kv[1]);
    put_n(o, "mtp_bytes_per_token_bf16", r->kv_mtp[0]);
    put_n(o, "mtp_bytes_per_token_f32", r->kv_mtp[1]);
    for (int i = 0; i <= LC_REPORT_CONTEXTS; i++) {
        uint64_t tokens = i < LC_REPORT_CONTEXTS ? lc_report_contexts[i] : r->context;
        struct json_object *entry = json_object_new_object();
        put_n(entry, "tokens", tokens);
        put_n(entry, "bytes_bf16", tokens * r->kv[0]);
        put_n(entry, "bytes_f32", tokens * r->kv[1]);
        json_object_array_add(at, entry);
    }
    put(o, "at", at);
    return o;
}

static struct json_object *json_memory(const lc_report *r) {
    struct json_object *o = json_object_new_object(), *fits = json_object_new_array();
    put_n(o, "ram", r->memory);
    put_n(o, "context", r->context);
    put_n(o, "context_bytes_bf16", (r->kv[0] + r->kv_mtp[0]) * r->context);
    put_n(o, "context_bytes_f32", (r->kv[1] + r->kv_mtp[1]) * r->context);
    put_n(o, "step_bytes", r->step);
    put(o, "kernels", json_object_new_string(lc_isa_name(r->kernels->isa)));
    put(o, "bf16_products", json_object_new_string(r->kernels->bf16.name));
    for (int i = 0; i < r->n_fits; i++) {
        const lc_fit *f = &r->fits[i];
        struct json_object *entry = json_object_new_object();
        put(entry, "storage", json_object_new_string(f->name));
        put_n(entry, "weights", f->weights);
        if (r->checkpoint) {
            put_n(entry, "mapped", f->weights - f->copied);
            put_n(entry, "resident", f->copied);
        }
        put_n(entry, "packed", f->packed);
        put_n(entry, "token_reads", f->token);
        put_n(entry, "together", f->together);
        put(entry, "fits", json_object_new_boolean(f->fits));
        put_n(entry, "room_tokens", f->room);
        json_object_array_add(fits, entry);
    }
    put(o, "fits", fits);
    return o;
}

static struct json_object *json_list(const lc_buf *texts) {
    struct json_object *list = json_object_new_array();
    for (size_t at = 0; at < texts->len; at += strlen(texts->data + at) + 1)
        json_object_array_add(list, json_object_new_string(texts->data + at));
    return list;
}

static struct json_object *json_tensors(const lc_report *r) {
    const lc_inventory *v = &r->inventory;
    struct json_object *o = json_object_new_object(), *types = json_object_new_object();
    put_n(o, "count", r->n_tensors);
    if (r->config.quant.method[0])
        put(o, "quantised", json_object_new_string(r->config.quant.method));
    if (r->config.quant.strips) put(o, "strips", json_object_new_boolean(true));
    for (int d = 0; d <= LC_DTYPE_COUNT; d++)
        if (v->dtype_bytes[d]) put_n(types, lc_dtype_name((lc_dtype)d), v->dtype_bytes[d]);
    put(o, "bytes_by_dtype", types);
    put_n(o, "missing_count", v->n_missing);
    put(o, "missing", json_list(&v->missing));
    put_n(o, "wrong_count", v->n_wrong);
    put(o, "wrong", json_list(&v->wrong));
    put_n(o, "unknown_count", v->n_unknown);
    put(o, "unknown", json_list(&v->unknown));
    return o;
}

struct json_object *lc_report_json(const lc_report *r) {
    char value[32];
    struct json_object *o = json_object_new_object(), *switches = json_object_new_object();
    if (!o || !switches) {
        json_object_put(o);
        json_object_put(switches);
        return NULL;
    }
    put(o, "path", json_object_new_string(r->path));
    put(o, "member", json_object_new_string(lc_member_name(r->config.member)));
    put(o, "checkpoint", json_object_new_boolean(r->checkpoint));
    put(o, "dimensions", json_dimensions(&r->config));
    put(o, "parameters", json_parameters(r));
    put(o, "context", json_context(r));
    put(o, "memory", json_memory(r));
    if (r->checkpoint) put(o, "tensors", json_tensors(r));
    for (size_t i = 0; i < lc_switch_count(); i++) {
        const char *name = lc_switch_text(&r->config, i, value);
        put(switches, name, json_object_new_string(value));
    }
    put(o, "switches", switches);
    return o;
}
