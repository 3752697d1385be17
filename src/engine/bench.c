/* bench.c: measured runs; see bench.h. Sampling is not part of them. */
#include "engine/bench.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/rng.h"

#include <math.h>
#include <stdatomic.h>

enum { TOKEN_STREAM = 1, CACHE_STREAM = 2 };
static const float SQRT3 = 1.7320508f; /* half the width of a uniform law of deviation 1 */

const char *lc_stage_name(lc_stage stage) {
    static const char *const names[LC_STAGE_COUNT] = {
        [LC_STAGE_EMBED] = "embedding",
        [LC_STAGE_NORM] = "norms, sums",
        [LC_STAGE_PROJECT] = "attention projections",
        [LC_STAGE_ATTEND] = "attention",
        [LC_STAGE_INDEX] = "choice of keys",
        [LC_STAGE_ROUTE] = "router",
        [LC_STAGE_EXPERTS] = "routed experts",
        [LC_STAGE_DENSE] = "dense FFNs",
        [LC_STAGE_HEAD] = "head",
    };
    return stage < LC_STAGE_COUNT ? names[stage] : "unknown";
}

/* ---- state ---- */

typedef struct warm_task {
    const lc_tensors *tensors;
    atomic_uint sum; /* keeps the reads alive */
} warm_task;

static void warm_tensors(void *ctx, size_t begin, size_t end, int thread) {
    enum { PAGE = 4096 };
    warm_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const lc_tensor *tensor = lc_tensors_at(t->tensors, i);
        unsigned sum = 0;
        for (size_t at = 0; at < tensor->size; at += PAGE)
            sum += ((const volatile unsigned char *)tensor->data)[at];
        atomic_fetch_add_explicit(&t->sum, sum, memory_order_relaxed);
    }
}

void lc_bench_warm(lc_engine *e) {
    warm_task t = {.tensors = e->model->tensors};
    if (lc_tensors_bytes(t.tensors) > lc_cpu_memory()) return;
    lc_pool_for(e->pool, lc_tensors_count(t.tensors), 1, warm_tensors, &t);
}

/* A token of a sequence; never an end of text, which would cut n-grams. */
static int32_t token_at(const lc_engine *e, size_t sequence, size_t pos) {
    const lc_config *c = &e->model->config;
    uint64_t at = (uint64_t)sequence << 32 | pos;
    int32_t token = (int32_t)(lc_rng(0, TOKEN_STREAM, at).word[0] % c->vocab);
    return token == c->eos ? (token + 1) % (int32_t)c->vocab : token;
}

/* Makes a list of a sequence's tokens at least n long. */
static int extend_tokens(const lc_engine *e, size_t sequence, size_t n, lc_ids *ids, lc_err *err) {
    while (ids->len < n && lc_ids_push(ids, token_at(e, sequence, ids->len))) {
    }
    return ids->failed ? lc_fail(err, LC_ENOMEM, "token list: out of memory") : LC_OK;
}

typedef struct fill_task {
    lc_session *s;
    size_t first; /* block */
} fill_task;

/* Writes n values of standard deviation `scale` in the cache's type. row: of the cache, for the
 * random numbers. */
static void random_row(const lc_op *op, size_t element, size_t n, uint64_t row, float scale,
                       char *out) {
    for (size_t at = 0; at < n; at += 8) {
        lc_rng_block block = lc_rng(0, CACHE_STREAM, row << 16 | at / 8);
        uint16_t halves[8];
        float values[8];
        memcpy(halves, &block, sizeof halves);
        for (int i = 0; i < 8; i++)
            values[i] = ((float)halves[i] - 32767.5f) * (SQRT3 / 32767.5f) * scale;
        lc_kv_store(op, element, n - at < 8 ? n - at : 8, values, out + at * element);
    }
}

static void fill_blocks(void *ctx, size_t begin, size_t end, int thread) {
    const fill_task *t = ctx;
    const lc_op *op = &t->s->engine->work->op;
    const lc_kv *kv = &t->s->kv;
    const lc_kv_layout *l = &kv->layout;
    float scale = t->s->engine->model->mla.kv_scale;
    (void)thread;
    for (size_t block = t->first + begin; block < t->first + end; block++)
        for (size_t pos = block * LC_KV_BLOCK; pos < (block + 1) * LC_KV_BLOCK; pos++) {
            uint64_t row = (uint64_t)pos * (l->slots + l->indexers);
            for (size_t slot = 0; slot < l->slots; slot++)
                random_row(op, l->element, l->width, row++, scale, lc_kv_latent(kv, slot, pos));
            for (size_t i = 0; i < l->indexers; i++)
                random_row(op, l->element, l->index_dim, row++, 1.0f, lc_kv_index(kv, i, pos));
        }
}

static int fill_session(lc_session *s, size_t sequence, size_t n, lc_err *err) {
    size_t first = s->length / LC_KV_BLOCK;
    if (n > s->engine->context)
        return lc_fail(err, LC_ELIMIT, "%zu tokens are more than the context of %zu", n,
                       s->engine->context);
    if (s->tokens.len > n) s->tokens.len = n;
    int status = extend_tokens(s->engine, sequence, n, &s->tokens, err);
    if (status == LC_OK) status = lc_kv_reserve(&s->kv, 0, n, err);
    if (status != LC_OK) return status;
    fill_task t = {s, first};
    if (n > s->length) lc_pool_for(s->engine->pool, s->kv.n_blocks - first, 1, fill_blocks, &t);
    s->length = n;
    s->has_logits = false;
    s->has_hidden = false;
    return LC_OK;
}

int lc_bench_fill(lc_session *s, size_t n, lc_err *err) { return fill_session(s, 0, n, err); }

/* ---- runs ---- */

static void begin_run(lc_engine *e, lc_bench_run *run, uint64_t *begin) {
    e->work->op.times = &run->times;
    *begin = lc_clock_ns();
}

static void end_run(lc_engine *e, lc_bench_run *run, uint64_t begin) {
    run->seconds += (double)(lc_clock_ns() - begin) / 1e9;
    e->work->op.times = NULL;
}

static size_t element_of(const lc_session *s) { return s->kv.layout.element; }

/* Adds the cost of the experts that were hit since `before`, and sets run->logits. */
static int finish_run(lc_session *const *sessions, size_t n, const lc_op_times *before,
                      lc_bench_run *run, lc_err *err) {
    const lc_model *m = sessions[0]->engine->model;
    lc_op_times hit = {.expert_bytes = run->times.expert_bytes - before->expert_bytes,
                       .expert_rows = run->times.expert_rows - before->expert_rows};
    lc_cost_experts(m, element_of(sessions[0]), &hit, &run->cost);
    lc_hash *hash = lc_hash_new(LC_HASH_XXH128);
    char hex[65];
    if (!hash) return lc_fail(err, LC_ENOMEM, "hash of logits: out of memory");
    for (size_t i = 0; i < n; i++)
        lc_hash_update(hash, lc_session_logits(sessions[i]), m->config.vocab * sizeof(float));
    lc_hash_finish(hash, hex);
    memcpy(run->logits, hex, sizeof run->logits);
    return LC_OK;
}

int lc_bench_prefill(lc_engine *e, size_t n, lc_bench_run *run, lc_err *err) {
    lc_session *s = NULL;
    lc_ids ids = {0};
    uint64_t begin;
    const lc_op_times before = run->times;
    int status = lc_session_open(e, &s, err);
    if (status == LC_OK) status = extend_tokens(e, 0, n, &ids, err);
    if (status == LC_OK) {
        begin_run(e, run, &begin);
        status = lc_session_sync(s, ids.data, n, err);
        end_run(e, run, begin);
    }
    for (size_t at = 0; at < n && status == LC_OK; at += e->chunk) {
        lc_cost_rows rows = {at, n - at < e->chunk ? n - at : e->chunk};
        lc_cost_step(e->model, element_of(s), &rows, 1, at + rows.rows == n, &run->cost);
    }
    if (status == LC_OK) status = finish_run(&s, 1, &before, run, err);
    run->tokens += n;
    lc_session_close(s);
    lc_ids_free(&ids);
    return status;
}

/* One step: every session takes its next token. */
static int decode_step(const lc_ids *lists, size_t depth, lc_prompt *prompts, size_t n,
                       lc_err *err) {
    for (size_t i = 0; i < n; i++) {
        prompts[i].tokens = lists[i].data;
        prompts[i].count = depth + 1;
    }
    return lc_sync_batch(prompts[0].session->engine, prompts, n, err);
}

static int decode_steps(lc_session *const *sessions, size_t n, size_t depth, size_t steps,
                        lc_bench_run *run, lc_err *err) {
    lc_engine *e = sessions[0]->engine;
    lc_prompt *prompts = lc_calloc(n, sizeof *prompts);
    lc_ids *lists = lc_calloc(n, sizeof *lists);
    lc_cost_rows *rows = lc_calloc(n, sizeof *rows);
    int status =
        prompts && lists && rows ? LC_OK : lc_fail(err, LC_ENOMEM, "decode: out of memory");
    for (size_t i = 0; i < n && status == LC_OK; i++) {
        prompts[i].session = sessions[i];
        status = extend_tokens(e, i, depth + steps, &lists[i], err);
    }
    uint64_t begin;
    begin_run(e, run, &begin);
    for (size_t t = 0; t < steps && status == LC_OK; t++)
        status = decode_step(lists, depth + t, prompts, n, err);
    end_run(e, run, begin);
    for (size_t t = 0; t < steps && status == LC_OK; t++) {
        for (size_t i = 0; i < n; i++) rows[i] = (lc_cost_rows){depth + t, 1};
        lc_cost_step(e->model, element_of(sessions[0]), rows, n, n, &run->cost);
    }
    for (size_t i = 0; lists && i < n; i++) lc_ids_free(&lists[i]);
    lc_free(prompts);
    lc_free(lists);
    lc_free(rows);
    return status;
}

int lc_bench_decode(lc_session *const *sessions, size_t n, size_t depth, size_t steps,
                    lc_bench_run *run, lc_err *err) {
    const lc_op_times before = run->times;
    int status = LC_OK;
    for (size_t i = 0; i < n && status == LC_OK; i++)
        status = fill_session(sessions[i], i, depth, err);
    if (status == LC_OK) status = decode_steps(sessions, n, depth, steps, run, err);
    if (status == LC_OK) status = finish_run(sessions, n, &before, run, err);
    /* What the steps have stored is no random entry: the next fill must not keep it. */
    for (size_t i = 0; i < n; i++)
        if (sessions[i]->length > depth) sessions[i]->length = depth;
    run->tokens += n * steps;
    return status;
}
