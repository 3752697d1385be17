/* eval_greedy.c: the greedy answer to a prompt, with what a draft module would have said to each of
 * its tokens. eval_needle.c and eval_complete.c score the answers. */
#include "base/clock.h"
#include "cli/eval.h"

#include <string.h>

void lc_eval_answer_free(lc_eval_answer *a) {
    lc_ids_free(&a->ids);
    lc_buf_free(&a->text);
    lc_free(a->drafts);
    *a = (lc_eval_answer){0};
}

static bool ends(const lc_config *c, int32_t token) {
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos_ids[i] == token) return true;
    return false;
}

/* Compares drafts with what came: of step k at each place where all steps before it were right. */
static void count_drafts(const lc_eval_answer *a, size_t steps, lc_eval_drafts *total) {
    for (size_t i = 0; i < a->ids.len; i++)
        for (size_t k = 0; k < steps && i + k + 1 < a->ids.len; k++) {
            total->asked[k]++;
            if (a->drafts[i * steps + k] != a->ids.data[i + k + 1]) break;
            total->right[k]++;
        }
}

static int grow(lc_session *s, lc_ids *list, const lc_eval_greedy *how, lc_eval_answer *a,
                lc_err *err) {
    const lc_engine *e = s->engine;
    lc_decode_stream stream = {.skip_special = true};
    while (a->ids.len < how->max_tokens && list->len <= e->context) {
        int status = lc_session_sync(s, list->data, list->len, err);
        if (status != LC_OK) return status;
        if (!a->ids.len) a->prefilled = lc_clock_ns();
        int32_t token = lc_argmax(lc_session_logits(s), lc_engine_vocab(e));
        if (ends(&e->model->config, token)) {
            a->ended = true;
            break;
        }
        size_t n = a->ids.len;
        if (!lc_ids_push(&a->ids, token) || !lc_ids_push(list, token))
            return lc_fail(err, LC_ENOMEM, "answer: out of memory");
        if (how->drafts && list->len + how->drafts < e->context)
            status = lc_session_draft(s, token, how->drafts, a->drafts + n * how->drafts, err);
        if (status != LC_OK) return status;
        if (lc_tokenizer_content(e->tokenizer, token)) /* a model may have more ids */
            status = lc_decode_push(e->tokenizer, &stream, token, &a->text, err);
        if (status != LC_OK) return status;
        if (how->one_line && a->text.len && memchr(a->text.data, '\n', a->text.len)) break;
    }
    if (!lc_decode_finish(&stream, &a->text))
        return lc_fail(err, LC_ENOMEM, "answer: out of memory");
    return LC_OK;
}

int lc_eval_greedy_answer(lc_session *session, const lc_ids *prompt, const lc_eval_greedy *how,
                          lc_eval_answer *a, lc_err *err) {
    lc_ids list = {0};
    *a = (lc_eval_answer){0};
    int status = LC_OK;
    if (!prompt->len) status = lc_fail(err, LC_EINVAL, "the prompt is empty");
    if (status == LC_OK && !lc_ids_append(&list, prompt->data, prompt->len))
        status = lc_fail(err, LC_ENOMEM, "prompt: out of memory");
    if (status == LC_OK && how->drafts) {
        a->drafts = lc_calloc(how->max_tokens * how->drafts, sizeof *a->drafts);
        if (!a->drafts) status = lc_fail(err, LC_ENOMEM, "drafts: out of memory");
        for (size_t i = 0; a->drafts && i < how->max_tokens * how->drafts; i++) a->drafts[i] = -1;
    }
    uint64_t start = lc_clock_ns();
    if (status == LC_OK) status = grow(session, &list, how, a, err);
    a->seconds = (double)(lc_clock_ns() - start) * 1e-9;
    a->first_seconds = a->prefilled ? (double)(a->prefilled - start) * 1e-9 : a->seconds;
    if (status == LC_OK && how->drafts && how->counts) count_drafts(a, how->drafts, how->counts);
    lc_ids_free(&list);
    return status;
}
