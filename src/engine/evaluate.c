/*
 * evaluate.c: runs [B][T] sequences in steps of (sequences together) x (chunk) rows and collects
 * results by name. The engine's step memory must hold together * chunk rows.
 */
#include "engine/evaluate.h"

#include "base/err.h"

#include <math.h>
#include <stdio.h>

typedef struct run {
    lc_engine *e;
    const lc_eval_input *in;
    lc_eval_result *out;
    lc_kv *kv;     /* [B] */
    size_t *start; /* [B][T] first visible position, NULL without documents */
    float *hidden; /* [B][T][H] main model, then the draft step before; NULL without mtp */
    int32_t *sets; /* [B][T][topk] step 1's keys, with counts; NULL without mtp and LSA */
    size_t *set_counts;
    float *scores; /* [step rows][T] for probes */
    bool activations;
    int failed; /* allocation failure inside a probe */
    /* the present step: row i is position (b, t) */
    size_t rows, first_b, first_t, chunk, seqs;
    size_t length; /* positions of this pass: T, or T - k for draft step k */
    int draft;     /* 0 main, k draft step */
} run;

static lc_eval_entry *entry(run *r, const char *name, lc_dtype type, size_t rows, size_t cols) {
    lc_eval_result *out = r->out;
    for (size_t i = 0; i < out->count; i++)
        if (!strcmp(out->entries[i].name, name)) return &out->entries[i];
    if (out->count == out->cap) {
        size_t cap = out->cap ? 2 * out->cap : 32;
        lc_eval_entry *grown = lc_realloc(out->entries, cap, sizeof *grown);
        if (!grown) return NULL;
        out->entries = grown;
        out->cap = cap;
    }
    size_t count, bytes;
    if (!lc_size_mul(r->in->batch * rows, cols, &count) ||
        !lc_size_mul(count, lc_dtype_size(type), &bytes))
        return NULL;
    void *data = lc_calloc(bytes ? bytes : 1, 1);
    if (!data) return NULL;
    lc_eval_entry *e = &out->entries[out->count++];
    *e = (lc_eval_entry){.type = type, .rows = rows, .cols = cols, .data = data};
    snprintf(e->name, sizeof e->name, "%s", name);
    return e;
}

/* Copies the step's rows [rows][stride] to their (b, t) places. */
static void collect(void *ctx, const char *name, lc_dtype type, size_t rows, size_t cols,
                    size_t stride, const void *data) {
    run *r = ctx;
    size_t element = lc_dtype_size(type);
    lc_eval_entry *e = entry(r, name, type, r->length, cols);
    if (!e) {
        r->failed = 1;
        return;
    }
    for (size_t i = 0; i < rows; i++) {
        size_t b = r->first_b + i / r->chunk, t = r->first_t + i % r->chunk;
        memcpy((char *)e->data + (b * e->rows + t) * cols * element,
               (const char *)data + i * stride * element, cols * element);
    }
}

static size_t row_start(const run *r, size_t b, size_t t) {
    return r->start ? r->start[b * r->in->length + t] : 0;
}

/* One step of the main model over positions [first_t, first_t + chunk) of sequences [first_b,
 * first_b + seqs). */
static int main_step(run *r, lc_err *err) {
    lc_engine *e = r->e;
    size_t vocab = e->model->config.vocab, hidden = e->model->config.hidden, length = r->in->length;
    for (size_t i = 0; i < r->rows; i++) {
        size_t b = r->first_b + i / r->chunk, t = r->first_t + i % r->chunk;
        e->rows[i] = (lc_row){&r->kv[b], t, row_start(r, b, t), r->in->tokens + b * length, t};
        e->logit_rows[i] = i;
    }
    lc_probe probe = {collect, r, r->scores, length};
    lc_step step = {e->rows, r->rows,   e->logit_rows,
                    r->rows, e->logits, r->activations ? &probe : NULL};
    int status = lc_forward(e->model, e->work, &step, err);
    if (status != LC_OK) return status;
    collect(r, "logits", LC_F32, r->rows, vocab, vocab, e->logits);
    for (size_t i = 0; r->hidden && i < r->rows; i++)
        memcpy(r->hidden +
                   ((r->first_b + i / r->chunk) * length + r->first_t + i % r->chunk) * hidden,
               e->work->hidden + i * hidden, hidden * sizeof(float));
    return LC_OK;
}

/* One step of draft step r->draft: row t takes token t + k and the hidden of row t from the step
 * before. */
static int draft_step(run *r, lc_err *err) {
    lc_engine *e = r->e;
    const lc_model *m = e->model;
    size_t vocab = m->config.vocab, hidden = m->config.hidden, length = r->in->length,
           topk = m->index.topk;
    size_t k = (size_t)r->draft;
    for (size_t i = 0; i < r->rows; i++) {
        size_t b = r->first_b + i / r->chunk, t = r->first_t + i % r->chunk;
        e->rows[i] = (lc_row){&r->kv[b], t, row_start(r, b, t), r->in->tokens + b * length, t + k};
        e->logit_rows[i] = i;
        memcpy(e->previous + i * hidden, r->hidden + (b * length + t) * hidden,
               hidden * sizeof(float));
        for (size_t j = 0; k > 1 && r->sets && j < topk; j++)
            e->work->index.list[i * topk + j] = r->sets[(b * length + t) * topk + j];
        if (k > 1 && r->sets) e->work->index.count[i] = r->set_counts[b * length + t];
    }
    lc_probe probe = {r->activations ? collect : NULL, r, r->scores, r->length};
    lc_step step = {e->rows, r->rows, e->logit_rows, r->rows, e->logits, &probe};
    lc_keys keys = {r->sets ? e->work->index.list : NULL, topk, e->work->index.count};
    lc_draft draft = {e->previous, k > 1 ? &keys : NULL};
    int status = lc_mtp_forward(m, e->work, &step, &draft, err);
    if (status != LC_OK) return status;
    char name[32];
    snprintf(name, sizeof name, "mtp.%d.logits", r->draft);
    collect(r, name, LC_F32, r->rows, vocab, vocab, e->logits);
    snprintf(name, sizeof name, "mtp.%d.hidden", r->draft);
    collect(r, name, LC_F32, r->rows, hidden, hidden, e->work->hidden);
    for (size_t i = 0; i < r->rows; i++) {
        size_t at = (r->first_b + i / r->chunk) * length + r->first_t + i % r->chunk;
        memcpy(r->hidden + at * hidden, e->work->hidden + i * hidden, hidden * sizeof(float));
        if (k > 1 || !r->sets) continue;
        memcpy(r->sets + at * topk, e->work->index.list + i * topk, topk * sizeof *r->sets);
        r->set_counts[at] = e->work->index.count[i];
    }
    return LC_OK;
}

/* All steps of one pass: the main model (k = 0) or draft step k. */
static int run_pass(run *r, int k, lc_err *err) {
    const lc_eval_input *in = r->in;
    lc_engine *e = r->e;
    r->draft = k;
    r->length = in->length - (size_t)k;
    lc_kv_layout layout =
        k ? lc_model_mtp_layout(e->model, e->bf16) : lc_model_kv_layout(e->model, e->bf16);
    for (size_t b0 = 0; b0 < in->batch; b0 += r->seqs) {
        r->first_b = b0;
        r->seqs = in->batch - b0 < in->together ? in->batch - b0 : in->together;
        int status = LC_OK;
        for (size_t b = b0; b < b0 + r->seqs; b++) {
            lc_kv_init(&r->kv[b], &layout);
            if (status == LC_OK) status = lc_kv_reserve(&r->kv[b], 0, r->length, err);
        }
        for (size_t t = 0; t < r->length && status == LC_OK; t += r->chunk) {
            r->first_t = t;
            r->chunk = r->length - t < in->chunk ? r->length - t : in->chunk;
            r->rows = r->seqs * r->chunk;
            status = k ? draft_step(r, err) : main_step(r, err);
            if (status == LC_OK && r->failed)
                status = lc_fail(err, LC_ENOMEM, "activations: out of memory");
        }
        for (size_t b = b0; b < b0 + r->seqs; b++) lc_kv_free(&r->kv[b]);
        if (status != LC_OK) return status;
    }
    return LC_OK;
}

static int check_input(const lc_engine *e, const lc_eval_input *in, bool mtp, lc_err *err) {
    if (!in->batch || !in->length) return lc_fail(err, LC_EINVAL, "no tokens");
    if (in->length > e->context)
        return lc_fail(err, LC_ELIMIT, "%zu tokens are more than the context of %zu", in->length,
                       e->context);
    for (size_t i = 0; i < in->batch * in->length; i++)
        if (in->tokens[i] < 0 || (size_t)in->tokens[i] >= e->model->config.vocab)
            return lc_fail(err, LC_EINVAL, "token %d is outside the vocabulary of %zu",
                           in->tokens[i], e->model->config.vocab);
    if (!in->chunk || !in->together || in->chunk * in->together > e->chunk)
        return lc_fail(err, LC_EINVAL,
                       "%zu sequences x %zu positions: the engine's step holds %zu rows",
                       in->together, in->chunk, e->chunk);
    if (mtp && !e->drafts) return lc_fail(err, LC_EINVAL, "the engine was opened without drafts");
    return LC_OK;
}

static int fill_starts(run *r, lc_err *err) {
    const lc_eval_input *in = r->in;
    if (!in->document) return LC_OK;
    r->start = lc_calloc(in->batch * in->length, sizeof *r->start);
    if (!r->start) return lc_fail(err, LC_ENOMEM, "documents: out of memory");
    for (size_t b = 0; b < in->batch; b++)
        for (size_t t = 1; t < in->length; t++) {
            size_t at = b * in->length + t;
            r->start[at] = in->document[at] == in->document[at - 1] ? r->start[at - 1] : t;
        }
    return LC_OK;
}

static int allocate(run *r, bool mtp, lc_err *err) {
    const lc_eval_input *in = r->in;
    const lc_model *m = r->e->model;
    size_t positions = in->batch * in->length;
    bool ok = (r->kv = lc_calloc(in->batch, sizeof *r->kv)) != NULL;
    if (mtp) ok = ok && (r->hidden = lc_calloc(positions * m->config.hidden, sizeof *r->hidden));
    if (mtp && m->sparse) {
        ok = ok && (r->sets = lc_calloc(positions * m->index.topk, sizeof *r->sets));
        ok = ok && (r->set_counts = lc_calloc(positions, sizeof *r->set_counts));
    }
    if (r->activations && m->sparse)
        ok =
            ok && (r->scores = lc_calloc(in->chunk * in->together * in->length, sizeof *r->scores));
    if (!ok) return lc_fail(err, LC_ENOMEM, "evaluation: out of memory");
    int status = lc_engine_logits(r->e, in->chunk * in->together, err);
    return status == LC_OK ? fill_starts(r, err) : status;
}

int lc_eval_logits(lc_engine *engine, const lc_eval_input *input, bool activations, bool mtp,
                   lc_eval_result *out, lc_err *err) {
    *out = (lc_eval_result){0};
    int status = check_input(engine, input, mtp, err);
    if (status != LC_OK) return status;
    run r = {.e = engine, .in = input, .out = out, .activations = activations};
    status = allocate(&r, mtp, err);
    if (status == LC_OK) status = run_pass(&r, 0, err);
    size_t steps = !mtp ? 0 : engine->model->config.mtp_steps ? engine->model->config.mtp_steps : 1;
    for (size_t k = 1; k <= steps && k < input->length && status == LC_OK; k++)
        status = run_pass(&r, (int)k, err);
    lc_free(r.kv);
    lc_free(r.start);
    lc_free(r.hidden);
    lc_free(r.sets);
    lc_free(r.set_counts);
    lc_free(r.scores);
    return status;
}

void lc_eval_free(lc_eval_result *result) {
    for (size_t i = 0; i < result->count; i++) lc_free(result->entries[i].data);
    lc_free(result->entries);
    *result = (lc_eval_result){0};
}

double lc_eval_nll_row(const lc_kernels *k, size_t vocab, float *logits, int32_t target) {
    float max = k->max(vocab, logits), wanted = logits[target] - max;
    return log((double)k->exp_sum(vocab, logits, max, logits)) - (double)wanted;
}

static int nll_window(lc_engine *e, lc_kv *kv, const int32_t *tokens, size_t n, lc_eval_nll *out,
                      lc_err *err) {
    size_t vocab = e->model->config.vocab;
    int status = lc_kv_reserve(kv, 0, n, err);
    for (size_t t = 0; t < n && status == LC_OK;) {
        size_t m = n - t < e->chunk ? n - t : e->chunk;
        for (size_t i = 0; i < m; i++) {
            e->rows[i] = (lc_row){kv, t + i, 0, tokens, t + i};
            e->logit_rows[i] = i;
        }
        lc_step step = {e->rows, m, e->logit_rows, m, e->logits, NULL};
        status = lc_forward(e->model, e->work, &step, err);
        uint64_t fp = lc_fp_enter();
        for (size_t i = 0; i < m && t + i + 1 < n && status == LC_OK; i++) {
            out->nats +=
                lc_eval_nll_row(e->kernels, vocab, e->logits + i * vocab, tokens[t + i + 1]);
            out->predicted++;
        }
        lc_fp_leave(fp);
        t += m;
    }
    out->tokens += n;
    return status;
}

int lc_eval_nll_windows(lc_engine *e, const int32_t *tokens, size_t count, size_t window,
                        void (*progress)(void *ctx, const lc_eval_nll *so_far), void *ctx,
                        lc_eval_nll *out, lc_err *err) {
    *out = (lc_eval_nll){0};
    lc_eval_input in = {.tokens = tokens, .batch = 1, .length = count, .chunk = 1, .together = 1};
    if (window > e->context || window < 2)
        return lc_fail(err, LC_ELIMIT, "window of %zu tokens: 2 to %zu are possible", window,
                       e->context);
    in.length = count < window ? count : window;
    int status = check_input(e, &in, false, err);
    for (size_t i = 0; i < count && status == LC_OK; i++)
        if (tokens[i] < 0 || (size_t)tokens[i] >= e->model->config.vocab)
            status = lc_fail(err, LC_EINVAL, "token %d is outside the vocabulary", tokens[i]);
    if (status == LC_OK) status = lc_engine_logits(e, e->chunk, err);
    lc_kv kv;
    lc_kv_layout layout = lc_model_kv_layout(e->model, e->bf16);
    lc_kv_init(&kv, &layout);
    for (size_t at = 0; at < count && status == LC_OK; at += window) {
        status =
            nll_window(e, &kv, tokens + at, count - at < window ? count - at : window, out, err);
        if (progress) progress(ctx, out);
    }
    lc_kv_free(&kv);
    return status;
}
