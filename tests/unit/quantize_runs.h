/*
 * quantize_runs.h: runs of lc_quantize and of its commands, in a folder of the program's own, for
 * the tests of `longcat quantize` and `longcat pack`.
 */
#ifndef LC_TESTS_QUANTIZE_RUNS_H
#define LC_TESTS_QUANTIZE_RUNS_H

#include "test.h"

#include "base/buf.h"
#include "base/file.h"
#include "format/quantize_internal.h"

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char scratch[64]; /* a new folder for the program */

static inline char *in_scratch(const char *name) {
    static char text[64][128];
    static int next;
    char *out = text[next++ % 64];
    snprintf(out, 128, "%s/%s", scratch, name);
    return out;
}

static inline void remove_folder(const char *path) {
    DIR *dir = opendir(path);
    char file[512];
    if (!dir) return;
    for (struct dirent *e; (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        unlink(file);
    }
    closedir(dir);
    rmdir(path);
}

static inline bool exists(const char *folder, const char *name) {
    char path[512];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return !stat(path, &st);
}

static inline lc_quantize_options options_of(lc_quantize_type type, size_t group) {
    return (lc_quantize_options){
        .type = type, .group = group, .kernels = lc_kernels_of(LC_ISA_SCALAR)};
}

static inline lc_quantize_result quantize(const char *model, const char *out,
                                          lc_quantize_options o) {
    lc_quantize_result r;
    lc_err err = {0};
    assert_ok(lc_quantize(model, out, &o, &r, &err), err);
    return r;
}

static inline void refuse(const char *model, const char *out, lc_quantize_options o, int want,
                          const char *words) {
    lc_quantize_result r;
    lc_err err = {0};
    size_t before = lc_mem_current();
    int got = lc_quantize(model, out, &o, &r, &err);
    if (got != want || !strstr(err.text, words))
        fail_msg("status %d, \"%s\"; expected %d, \"%s\"", got, err.text, want, words);
    assert_int_equal(lc_mem_current(), before);
}

/* ---- ended early ---- */

static inline bool stop(void *ctx, const lc_quantize_progress *p) {
    (void)ctx;
    return p->shards_done < 1;
}

typedef struct killing {
    uint64_t at; /* bytes */
    size_t shards;
} killing;

static inline bool die(void *ctx, const lc_quantize_progress *p) {
    const killing *k = ctx;
    if (p->shards_done >= k->shards && p->done >= k->at) kill(getpid(), SIGKILL);
    return true;
}

/* Runs in a child that is killed; the folder is left as it is then. */
static inline void run_and_die(const char *model, const char *out, lc_quantize_options o,
                               killing k) {
    pid_t child = fork();
    if (child == 0) {
        lc_quantize_result r;
        lc_err err;
        o.progress = die;
        o.ctx = &k;
        lc_quantize(model, out, &o, &r, &err);
        _exit(0);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
}

/* ---- the commands ---- */

static inline int run_command(const char *arguments) {
    char line[512];
    snprintf(line, sizeof line, "%s %s >%s 2>%s", test_program(), arguments, in_scratch("stdout"),
             in_scratch("stderr"));
    int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline bool says(const char *file, const char *words) {
    lc_buf text = {0};
    lc_err err = {0};
    assert_ok(lc_file_read(in_scratch(file), 0, &text, &err), err);
    bool found = strstr(text.data, words) != NULL;
    if (!found) print_message("# %s: %s\n", file, text.data);
    lc_buf_free(&text);
    return found;
}

static inline void said(const char *file, const char *words) {
    if (!says(file, words)) fail_msg("%s: no \"%s\"", file, words);
}

/* ---- the folder ---- */

static inline int make_scratch(void **unused) {
    (void)unused;
    snprintf(scratch, sizeof scratch, "/tmp/longcat-quantize-XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static inline int drop_scratch(void **unused) {
    (void)unused;
    remove_folder(scratch);
    return 0;
}

#endif
