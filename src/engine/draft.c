/*
 * draft.c: the greedy draft chain (docs/model.md 2.7). Step 1 is the draft module's row of the last
 * token; each later step appends one row that sees step 1's picks with its own sink and window.
 */
#include "engine/engine.h"

#include "base/err.h"

/* Keys of an appended row at `pos`: step 1's set without its sink and window, plus sink and window
 * of pos. */
static size_t refresh_keys(const lc_index_shape *s, const int32_t *first_set, size_t n,
                           size_t first_pos, size_t pos, int32_t *out) {
    size_t count = 0, window = pos + 1 - s->window;
    for (size_t i = 0; i < s->sink; i++) out[count++] = (int32_t)i;
    for (size_t i = 0; i < n; i++) {
        size_t key = (size_t)first_set[i];
        if (key >= s->sink && key + s->window <= first_pos) out[count++] = first_set[i];
    }
    for (size_t i = window; i <= pos; i++) out[count++] = (int32_t)i;
    return count;
}

/* What the chain needs between its steps. */
typedef struct chain {
    lc_session *s;
    int32_t *tokens;    /* the session's list, next, and the drafts */
    float *previous;    /* [H] */
    int32_t *first_set; /* [topk] keys of step 1's row */
    size_t first_count;
    int32_t *keys; /* [topk] */
    size_t count;
} chain;

static int draft_step(chain *c, size_t step_index, int32_t *out, lc_err *err) {
    lc_session *s = c->s;
    lc_engine *e = s->engine;
    const lc_model *m = e->model;
    size_t first_pos = s->length - 1, pos = first_pos + step_index, vocab = m->config.vocab;
    lc_row row = {&s->mtp_kv, pos, 0, c->tokens, pos + 1};
    size_t logit_row = 0;
    lc_keys keys = {0}, *chosen = NULL;
    if (step_index > 0 && m->sparse) {
        if (pos + 1 > m->index.topk) {
            c->count =
                refresh_keys(&m->index, c->first_set, c->first_count, first_pos, pos, c->keys);
            keys = (lc_keys){c->keys, m->index.topk, &c->count};
        } else {
            c->count = pos + 1;
            for (size_t i = 0; i <= pos; i++) c->keys[i] = (int32_t)i;
        }
        chosen = &keys;
    }
    lc_probe fill_lists = {0}; /* step 1's set is needed even where it is every key */
    lc_step step = {.rows = &row,
                    .m = 1,
                    .logit_rows = &logit_row,
                    .n_logits = 1,
                    .logits = e->logits,
                    .probe = &fill_lists};
    lc_draft draft = {c->previous, chosen};
    int status = lc_mtp_forward(m, e->work, &step, &draft, err);
    if (status != LC_OK) return status;
    memcpy(c->previous, e->work->hidden, m->config.hidden * sizeof *c->previous);
    if (step_index == 0 && m->sparse) {
        c->first_count = c->count = e->work->index.count[0];
        memcpy(c->first_set, e->work->index.list, c->first_count * sizeof *c->first_set);
        memcpy(c->keys, c->first_set, c->first_count * sizeof *c->keys);
    }
    *out = lc_argmax(e->logits, vocab);
    return LC_OK;
}

static int run_chain(chain *c, int32_t next, size_t count, int32_t *out,
                     const lc_draft_trace *trace, lc_err *err) {
    lc_session *s = c->s;
    size_t topk = s->engine->model->index.topk, vocab = s->engine->model->config.vocab;
    memcpy(c->tokens, s->tokens.data, s->length * sizeof *c->tokens);
    memcpy(c->previous, s->last_hidden, s->engine->model->config.hidden * sizeof *c->previous);
    c->tokens[s->length] = next;
    for (size_t i = 0; i < count; i++) {
        int status = draft_step(c, i, &out[i], err);
        if (status != LC_OK) return status;
        c->tokens[s->length + 1 + i] = out[i];
        for (size_t j = 0; trace->sets && j < topk; j++)
            trace->sets[i * topk + j] = j < c->count ? c->keys[j] : -1;
        if (trace->logits)
            memcpy(trace->logits + i * vocab, s->engine->logits, vocab * sizeof *trace->logits);
    }
    return LC_OK;
}

int lc_session_draft_traced(lc_session *s, int32_t next, size_t count, int32_t *out,
                            const lc_draft_trace *trace, lc_err *err) {
    lc_engine *e = s->engine;
    const lc_config *config = &e->model->config;
    if (!e->drafts) return lc_fail(err, LC_EINVAL, "the engine was opened without drafts");
    if (!s->has_logits) return lc_fail(err, LC_EINVAL, "nothing is synced yet");
    if (next < 0 || (size_t)next >= config->vocab)
        return lc_fail(err, LC_EINVAL, "token %d is outside the vocabulary of %zu", next,
                       config->vocab);
    if (count > e->context - s->length)
        return lc_fail(err, LC_ELIMIT, "%zu drafts after %zu tokens: the context is %zu", count,
                       s->length, e->context);
    size_t topk = e->model->sparse ? e->model->index.topk : 0;
    chain c = {.s = s};
    c.tokens = lc_calloc(s->length + count + 1, sizeof *c.tokens);
    c.previous = lc_calloc(config->hidden, sizeof *c.previous);
    c.first_set = lc_calloc(topk + 1, sizeof *c.first_set);
    c.keys = lc_calloc(topk + 1, sizeof *c.keys);
    int status = c.tokens && c.previous && c.first_set && c.keys
                     ? LC_OK
                     : lc_fail(err, LC_ENOMEM, "draft: out of memory");
    if (status == LC_OK) status = lc_engine_logits(e, 1, err);
    if (status == LC_OK) status = lc_kv_reserve(&s->mtp_kv, s->length, s->length + count, err);
    if (status == LC_OK) status = run_chain(&c, next, count, out, trace, err);
    lc_free(c.tokens);
    lc_free(c.previous);
    lc_free(c.first_set);
    lc_free(c.keys);
    return status;
}

int lc_session_draft(lc_session *s, int32_t next, size_t count, int32_t *out, lc_err *err) {
    static const lc_draft_trace nothing;
    return lc_session_draft_traced(s, next, count, out, &nothing, err);
}
