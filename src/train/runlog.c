/* runlog.c: the run's log; see runlog.h. */
#include "train/runlog.h"

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct lc_runlog {
    FILE *file;
    char *path;
    bool failed;
};

static int64_t step_of(const char *line, size_t len) {
    struct json_object *json = NULL, *step;
    int64_t out = -1;
    if (lc_json_parse(line, len, LC_RUNLOG_NAME, &json, NULL) == LC_OK &&
        json_object_is_type(json, json_type_object) &&
        json_object_object_get_ex(json, "step", &step))
        out = json_object_get_int64(step);
    json_object_put(json);
    return out;
}

/* False at the end. */
static bool next_line(FILE *file, lc_buf *line) {
    char piece[4096];
    lc_buf_clear(line);
    while (!line->failed && fgets(piece, sizeof piece, file) && lc_buf_puts(line, piece))
        if (line->data[line->len - 1] == '\n') break;
    return line->len > 0;
}

/* Copies the whole lines up to `step`; *dropped: there were others. */
static int copy_lines(FILE *from, FILE *to, int64_t step, bool *dropped, const char *path,
                      lc_err *err) {
    lc_buf line = {0};
    bool ok = true;
    while (ok && next_line(from, &line)) {
        bool whole = line.data[line.len - 1] == '\n'; /* else a kill has cut it */
        int64_t of = whole ? step_of(line.data, line.len - 1) : -1;
        if (of >= 0 && of <= step)
            ok = fwrite(line.data, 1, line.len, to) == line.len;
        else
            *dropped = true;
        ok = ok && !line.failed;
    }
    ok = ok && !ferror(from) && !fflush(to) && !fsync(fileno(to));
    lc_buf_free(&line);
    return ok ? LC_OK : lc_fail_errno(err, LC_EIO, "%s", path);
}

/* Leaves the whole lines up to `step` in the file. */
static int cut(const char *path, int64_t step, lc_err *err) {
    lc_buf part = {0};
    FILE *from = fopen(path, "re");
    if (!from) return errno == ENOENT ? LC_OK : lc_fail_errno(err, LC_EIO, "%s", path);
    bool dropped = false;
    FILE *to = lc_buf_printf(&part, "%s.part", path) ? fopen(part.data, "we") : NULL;
    int status = to ? copy_lines(from, to, step, &dropped, part.data, err)
                    : lc_fail_errno(err, LC_EIO, "%s.part", path);
    fclose(from);
    if (to) fclose(to);
    if (status == LC_OK && dropped && rename(part.data, path))
        status = lc_fail_errno(err, LC_EIO, "%s", path);
    if (to && (status != LC_OK || !dropped)) unlink(part.data);
    lc_buf_free(&part);
    return status;
}

int lc_runlog_open(const char *run, int64_t step, lc_runlog **out, lc_err *err) {
    lc_runlog *log = *out = lc_calloc(1, sizeof *log);
    lc_buf path = {0};
    if (!log || !lc_buf_printf(&path, "%s/" LC_RUNLOG_NAME, run)) {
        lc_free(log);
        *out = NULL;
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", run);
    }
    log->path = path.data;
    int status = cut(path.data, step, err);
    if (status == LC_OK && !(log->file = fopen(path.data, "ae")))
        status = lc_fail_errno(err, LC_EIO, "%s", path.data);
    if (status != LC_OK) {
        lc_runlog_close(log);
        *out = NULL;
    }
    return status;
}

void lc_runlog_close(lc_runlog *log) {
    if (!log) return;
    if (log->file) fclose(log->file);
    lc_free(log->path);
    lc_free(log);
}

/* JSON has no infinities. */
static void put(lc_buf *out, const char *name, double value) {
    lc_buf_printf(out, isfinite(value) ? ", \"%s\": %.7g" : ", \"%s\": null", name, value);
}

static void put_line(lc_runlog *log, lc_buf *line) {
    bool ok = !line->failed && fwrite(line->data, 1, line->len, log->file) == line->len &&
              fflush(log->file) == 0;
    if (!ok && !log->failed)
        lc_log(LC_LOG_WARN, "%s: can't be written; steps will be missing in it", log->path);
    log->failed = !ok;
    clearerr(log->file);
    lc_buf_free(line);
}

void lc_runlog_step(lc_runlog *log, const lc_step_report *r) {
    lc_buf line = {0};
    lc_buf_printf(&line, "{\"step\": %lld, \"stage\": \"%s\", \"tokens\": %lld", (long long)r->step,
                  r->stage, (long long)r->tokens);
    put(&line, "rate", r->rate);
    put(&line, "objective", r->objective);
    put(&line, "reported", r->reported);
    put(&line, "lm", r->lm);
    for (size_t k = 0; k < r->mtp_steps; k++) {
        char name[32];
        snprintf(name, sizeof name, "mtp.%zu", k + 1);
        put(&line, name, r->mtp[k]);
    }
    put(&line, "balance", r->balance);
    put(&line, "router_z", r->router_z);
    put(&line, "hidden_z", r->hidden_z);
    put(&line, "kl", r->kl);
    put(&line, "grad_norm", r->norm);
    put(&line, "routed", r->load.routed);
    put(&line, "load_high", r->load.highest);
    put(&line, "load_low", r->load.lowest);
    put(&line, "active", r->active);
    put(&line, "seconds", r->seconds);
    put(&line, "tokens_s", r->seconds > 0 ? r->step_tokens / r->seconds : 0);
    put(&line, "flop_s", r->seconds > 0 ? r->operations / r->seconds : 0);
    if (r->step % LC_RUNLOG_LOADS == 0) {
        lc_buf_puts(&line, ", \"loads\": [");
        for (size_t i = 0; i < r->layers; i++)
            for (size_t e = 0; e < r->entries; e++)
                lc_buf_printf(&line, "%s%lld",
                              e   ? ", "
                              : i ? "], ["
                                  : "[",
                              (long long)r->experts[i * r->entries + e]);
        lc_buf_puts(&line, "]]");
    }
    lc_buf_puts(&line, "}\n");
    put_line(log, &line);
}

void lc_runlog_eval(lc_runlog *log, int64_t step, double loss) {
    lc_buf line = {0};
    lc_buf_printf(&line, "{\"step\": %lld, \"eval\": true", (long long)step);
    put(&line, "held_out", loss);
    lc_buf_puts(&line, "}\n");
    put_line(log, &line);
}
