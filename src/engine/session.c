/*
 * session.c: one timeline. A sync keeps the longest common prefix of old and new token list, then
 * runs the rest through common steps of all sessions in the batch, at most `chunk` rows each.
 * Nobody else reasons about reuse.
 */
#include "engine/engine.h"

#include "base/clock.h"
#include "base/err.h"

int lc_session_open(lc_engine *engine, lc_session **out, lc_err *err) {
    const lc_config *c = &engine->model->config;
    *out = NULL;
    lc_session *s = lc_calloc(1, sizeof *s);
    if (!s) return lc_fail(err, LC_ENOMEM, "session: out of memory");
    s->engine = engine;
    lc_kv_layout layout = lc_model_kv_layout(engine->model, engine->bf16);
    lc_kv_init(&s->kv, &layout);
    layout = lc_model_mtp_layout(engine->model, engine->bf16);
    lc_kv_init(&s->mtp_kv, &layout);
    s->logits = lc_calloc(c->vocab, sizeof *s->logits);
    s->probs = lc_calloc(c->vocab, sizeof *s->probs);
    s->heap = lc_calloc(c->vocab, sizeof *s->heap);
    s->last_hidden = lc_calloc(c->hidden, sizeof *s->last_hidden);
    if (!s->logits || !s->probs || !s->heap || !s->last_hidden) {
        lc_session_close(s);
        return lc_fail(err, LC_ENOMEM, "session: out of memory");
    }
    *out = s;
    return LC_OK;
}

void lc_session_close(lc_session *s) {
    if (!s) return;
    lc_kv_free(&s->kv);
    lc_kv_free(&s->mtp_kv);
    lc_ids_free(&s->tokens);
    lc_free(s->logits);
    lc_free(s->probs);
    lc_free(s->heap);
    lc_free(s->last_hidden);
    lc_free(s);
}

const float *lc_session_logits(const lc_session *s) { return s->has_logits ? s->logits : NULL; }
size_t lc_session_reused(const lc_session *s) { return s->reused; }
const int32_t *lc_session_tokens(const lc_session *s, size_t *count) {
    *count = s->tokens.len;
    return s->tokens.data;
}

static int check_prompt(const lc_engine *e, const lc_prompt *p, lc_err *err) {
    if (p->session->engine != e) return lc_fail(err, LC_EINVAL, "session of another engine");
    if (p->count == 0) return lc_fail(err, LC_EINVAL, "the token list is empty");
    if (p->count > e->context)
        return lc_fail(err, LC_ELIMIT, "%zu tokens are more than the context of %zu", p->count,
                       e->context);
    for (size_t i = 0; i < p->count; i++)
        if (p->tokens[i] < 0 || (size_t)p->tokens[i] >= e->model->config.vocab)
            return lc_fail(err, LC_EINVAL,
                           "token %d at position %zu is outside the vocabulary of %zu",
                           p->tokens[i], i, e->model->config.vocab);
    return LC_OK;
}

/* Sets the list from position `common` on, with memory for all of it. */
static int set_list(lc_session *s, const int32_t *tokens, size_t count, size_t common,
                    lc_err *err) {
    s->length = s->reused = common;
    s->has_logits = false;
    s->tokens.len = common;
    lc_kv_trim(&s->kv, count);
    lc_kv_trim(&s->mtp_kv, count);
    if (!lc_ids_append(&s->tokens, tokens + common, count - common)) {
        s->tokens.failed = false;
        return lc_fail(err, LC_ENOMEM, "session: out of memory");
    }
    int status = lc_kv_reserve(&s->kv, common, count, err);
    if (status == LC_OK && s->engine->drafts)
        status = lc_kv_reserve(&s->mtp_kv, common, count, err);
    return status;
}

/* Sets the session to the new list, with `length` positions of it still valid. */
static int adopt(lc_session *s, const int32_t *tokens, size_t count, lc_err *err) {
    size_t common = 0, most = s->length < count ? s->length : count;
    while (common < most && tokens[common] == s->tokens.data[common]) common++;
    if (common == count && s->has_logits && s->length == count) { /* nothing to do */
        s->reused = count;
        return LC_OK;
    }
    if (common == count) common--; /* its logits are gone: compute the last row */
    if (common < s->length) s->has_hidden = false;
    if (s->engine->drafts && !s->has_hidden && common > 0)
        common--; /* a draft row needs the hidden of the position before: compute it again */
    return set_list(s, tokens, count, common, err);
}

int lc_session_begin(lc_session *s, const int32_t *tokens, size_t count, lc_err *err) {
    lc_prompt prompt = {s, tokens, count};
    int status = check_prompt(s->engine, &prompt, err);
    return status == LC_OK ? adopt(s, tokens, count, err) : status;
}

int lc_session_adopt_prefix(lc_session *s, const int32_t *tokens, size_t count, size_t loaded,
                            lc_err *err) {
    lc_prompt prompt = {s, tokens, count};
    int status = check_prompt(s->engine, &prompt, err);
    if (status != LC_OK) return status;
    if (s->tokens.len) return lc_fail(err, LC_EINVAL, "the session has tokens already");
    if (s->engine->drafts)
        return lc_fail(err, LC_EINVAL, "a beginning from elsewhere has no draft cache");
    if (loaded >= count || loaded > s->kv.n_blocks * LC_KV_BLOCK)
        return lc_fail(err, LC_EINVAL, "%zu positions loaded for a list of %zu tokens", loaded,
                       count);
    if (!lc_ids_append(&s->tokens, tokens, loaded)) {
        s->tokens.failed = false;
        return lc_fail(err, LC_ENOMEM, "session: out of memory");
    }
    return set_list(s, tokens, count, loaded, err);
}

int lc_session_push(lc_session *s, int32_t token, lc_err *err) {
    lc_engine *e = s->engine;
    if (!s->has_logits || s->length != s->tokens.len)
        return lc_fail(err, LC_EINVAL, "nothing is synced yet");
    if (token < 0 || (size_t)token >= e->model->config.vocab)
        return lc_fail(err, LC_EINVAL, "token %d is outside the vocabulary of %zu", token,
                       e->model->config.vocab);
    size_t count = s->length + 1;
    if (count > e->context)
        return lc_fail(err, LC_ELIMIT, "%zu tokens are more than the context of %zu", count,
                       e->context);
    int status = lc_kv_reserve(&s->kv, s->length, count, err);
    if (status == LC_OK && e->drafts) status = lc_kv_reserve(&s->mtp_kv, s->length, count, err);
    if (status != LC_OK) return status;
    if (!lc_ids_push(&s->tokens, token)) {
        s->tokens.failed = false;
        return lc_fail(err, LC_ENOMEM, "session: out of memory");
    }
    s->reused = s->length;
    s->has_logits = false;
    return LC_OK;
}

/* Draft module rows for what the main model has just computed: row i needs token i + 1. */
static int sync_drafts(lc_engine *e, const lc_step_part *parts, size_t count, lc_err *err) {
    size_t hidden = e->model->config.hidden, m = 0;
    const float *fresh = e->work->hidden; /* of the part's first row */
    for (const lc_step_part *p = parts; p < parts + count; fresh += p->n * hidden, p++) {
        lc_session *s = p->session;
        if (!p->n) continue;
        size_t begin = s->has_hidden ? s->length - 1 : s->length,
               end = s->length + p->n - 1; /* rows [begin, end) */
        for (size_t i = begin; i < end; i++, m++) {
            const float *from = i < s->length ? s->last_hidden : fresh + (i - s->length) * hidden;
            memcpy(e->previous + m * hidden, from, hidden * sizeof *from);
            e->rows[m] = (lc_row){&s->mtp_kv, i, 0, s->tokens.data, i + 1};
        }
        memcpy(s->last_hidden, fresh + (p->n - 1) * hidden, hidden * sizeof *fresh);
        s->has_hidden = true;
    }
    if (!m) return LC_OK;
    lc_step step = {.rows = e->rows, .m = m};
    lc_draft draft = {.previous = e->previous};
    return lc_mtp_forward(e->model, e->work, &step, &draft, err);
}

/* Fills the engine's lists with the parts' rows; returns their number, *n_logits that of rows whose
 * logits are wanted. */
static size_t choose_rows(lc_engine *e, lc_step_part *parts, size_t count, size_t budget,
                          size_t *n_logits) {
    size_t m = 0, most = budget < e->chunk ? budget : e->chunk;
    *n_logits = 0;
    for (lc_step_part *p = parts; p < parts + count; p++) {
        lc_session *s = p->session;
        size_t left = s->tokens.len - s->length, n = left < p->rows ? left : p->rows;
        p->n = n < most - m ? n : most - m;
        p->logits = NULL;
        p->routes = NULL;
        for (size_t j = 0; j < p->n; j++, m++) {
            e->rows[m] = (lc_row){&s->kv, s->length + j, 0, s->tokens.data, s->length + j};
            if (p->all_logits || j + 1 == left) e->logit_rows[(*n_logits)++] = m;
        }
    }
    return m;
}

/* Hands out what the step computed. */
static void finish_parts(lc_engine *e, lc_step_part *parts, size_t count) {
    const lc_config *c = &e->model->config;
    const float *logits = e->logits;
    const int32_t *routes = e->routes;
    for (lc_step_part *p = parts; p < parts + count; p++) {
        lc_session *s = p->session;
        if (!p->n) continue;
        s->length += p->n;
        bool done = s->length == s->tokens.len;
        size_t n = p->all_logits ? p->n : done;
        if (p->all_logits) p->logits = logits;
        if (n) logits += n * c->vocab; /* without any in the step it is NULL */
        if (routes) {
            p->routes = routes;
            routes += p->n * c->layers * c->topk;
        }
        if (!done) continue;
        memcpy(s->logits, logits - c->vocab, c->vocab * sizeof *logits);
        s->has_logits = true;
    }
}

int lc_step_batch(lc_engine *e, lc_step_part *parts, size_t count, size_t budget, lc_err *err) {
    size_t n_logits, m = choose_rows(e, parts, count, budget, &n_logits);
    if (!m) return LC_OK;
    int status = lc_engine_logits(e, n_logits, err);
    if (status != LC_OK) return status;
    lc_step step = {.rows = e->rows,
                    .m = m,
                    .logit_rows = e->logit_rows,
                    .n_logits = n_logits,
                    .logits = e->logits};
    status = lc_forward(e->model, e->work, &step, err);
    if (status == LC_OK && e->drafts) status = sync_drafts(e, parts, count, err);
    if (status == LC_OK) finish_parts(e, parts, count);
    return status;
}

void lc_session_abandon(lc_session *s) {
    if (s->tokens.len == s->length) return;
    if (s->engine->drafts) s->length = 0; /* the draft module may be ahead of the main model */
    s->tokens.len = s->length;
    s->has_hidden = false;
}

static bool all_done(const lc_prompt *prompts, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (prompts[i].session->length < prompts[i].session->tokens.len) return false;
    return true;
}

int lc_sync_batch(lc_engine *e, const lc_prompt *prompts, size_t count, lc_err *err) {
    int status = LC_OK;
    for (size_t i = 0; i < count && status == LC_OK; i++)
        status = check_prompt(e, &prompts[i], err);
    for (size_t i = 0; i < count && status == LC_OK; i++)
        status = adopt(prompts[i].session, prompts[i].tokens, prompts[i].count, err);
    lc_step_part *parts = status == LC_OK ? lc_calloc(count, sizeof *parts) : NULL;
    if (status == LC_OK && !parts) status = lc_fail(err, LC_ENOMEM, "batch: out of memory");
    for (size_t i = 0; i < count && status == LC_OK; i++)
        parts[i] = (lc_step_part){.session = prompts[i].session, .rows = SIZE_MAX};
    while (status == LC_OK && !all_done(prompts, count))
        status = lc_step_batch(e, parts, count, e->chunk, err);
    for (size_t i = 0; status != LC_OK && i < count; i++)
        if (prompts[i].session->engine == e) lc_session_abandon(prompts[i].session);
    lc_free(parts);
    return status;
}

int lc_session_sync(lc_session *s, const int32_t *tokens, size_t count, lc_err *err) {
    lc_prompt prompt = {s, tokens, count};
    return lc_sync_batch(s->engine, &prompt, 1, err);
}

/* A warm-up goes on with WARM_ROWS tokens if the first one took less than WARM_NS. */
enum { WARM_ROWS = 256, WARM_NS = 50000000 };

int lc_engine_warm_up(lc_engine *e, lc_err *err) {
    static const int32_t tokens[WARM_ROWS];
    lc_session *session = NULL;
    if (lc_tensors_bytes(e->model->tensors) > lc_cpu_memory()) return LC_OK;
    int status = lc_session_open(e, &session, err);
    uint64_t begin = lc_clock_ns();
    if (status == LC_OK) status = lc_session_sync(session, tokens, 1, err);
    size_t more = e->context < WARM_ROWS ? e->context : WARM_ROWS;
    if (status == LC_OK && lc_clock_ns() - begin < WARM_NS)
        status = lc_session_sync(session, tokens, more, err);
    lc_session_close(session);
    return status;
}
