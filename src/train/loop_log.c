/*
 * loop_log.c: log.jsonl, a line a step. A run that goes on from a checkpoint first cuts the lines
 * behind it, so that every step has one line. A log that can't be written stops nothing.
 */
#include "train/loop_parts.h"

#include "base/buf.h"
#include "base/err.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Bytes of the whole lines up to that step. */
static size_t kept(const lc_buf *text, uint64_t step) {
    size_t at = 0;
    while (at < text->len) {
        unsigned long long n;
        const char *line = text->data + at, *end = memchr(line, '\n', text->len - at);
        if (!end || sscanf(line, "{\"step\": %llu,", &n) != 1 || n > step) break;
        at = (size_t)(end - text->data) + 1;
    }
    return at;
}

int lc_log_open(lc_run *run) {
    lc_buf path = {0}, text = {0};
    if (!lc_buf_printf(&path, "%s/log.jsonl", run->r->out))
        return lc_fail(run->err, LC_ENOMEM, "log.jsonl: out of memory");
    int status = LC_OK;
    run->log = open(path.data, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (run->log < 0) status = lc_fail_errno(run->err, LC_EIO, "%s", path.data);
    if (status == LC_OK) status = lc_file_read(path.data, 0, &text, run->err);
    if (status == LC_OK && ftruncate(run->log, (off_t)kept(&text, run->at.total)))
        status = lc_fail_errno(run->err, LC_EIO, "%s", path.data);
    lc_buf_free(&path);
    lc_buf_free(&text);
    return status;
}

double lc_stage_routed(const lc_run *run, const lc_stage *x, double *load) {
    const lc_config *c = &run->params->config;
    size_t entries = c->experts + c->zero_experts;
    double tokens = (double)x->s->batch * (double)x->s->context, most = 0, all = 0;
    for (size_t l = 0; l < c->layers; l++) {
        double sum = 0, top = 0;
        for (size_t e = 0; e < c->experts; e++) {
            double n = (double)x->experts[l * entries + e];
            sum += n;
            if (n > top) top = n;
        }
        if (sum > 0 && top * (double)c->experts / sum > most) most = top * (double)c->experts / sum;
        all += sum;
    }
    *load = most;
    return all / tokens / (double)c->layers;
}

void lc_log_step(lc_run *run, const lc_stage *x, const lc_train_progress *p, const lc_losses *l,
                 double seconds) {
    lc_buf line = {0};
    double tokens = (double)l->counts.tokens, load;
    lc_stage_routed(run, x, &load);
    lc_buf_printf(&line,
                  "{\"step\": %llu, \"stage\": \"%s\", \"tokens\": %llu, \"lr\": %.9g, "
                  "\"loss\": %.9g, \"lm\": %.9g",
                  (unsigned long long)p->step, p->stage, (unsigned long long)p->tokens, p->lr,
                  p->loss, l->lm / ((double)l->counts.lm + 1e-10));
    for (size_t k = 0; k < x->mtp_steps; k++)
        lc_buf_printf(&line, "%s%.9g%s", k ? ", " : ", \"mtp\": [",
                      l->mtp[k] / ((double)l->counts.mtp[k] + 1e-10),
                      k + 1 < x->mtp_steps ? "" : "]");
    lc_buf_printf(&line,
                  ", \"balance\": %.9g, \"router_z\": %.9g, \"hidden_z\": %.9g, \"kl\": %.9g, "
                  "\"grad_norm\": %.9g, \"routed\": %.6g, \"load\": %.6g, \"seconds\": %.4g}\n",
                  l->balance / tokens, l->router_z / tokens, l->hidden_z / tokens, l->kl / tokens,
                  p->norm, p->routed, load, seconds);
    bool written = !line.failed && write(run->log, line.data, line.len) == (ssize_t)line.len;
    if (!written && !run->log_failed) lc_run_note(run, "log.jsonl can't be written; going on");
    run->log_failed = !written;
    lc_buf_free(&line);
}
