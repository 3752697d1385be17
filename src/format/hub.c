/*
 * hub.c: a whole checkpoint from a hub. The caller's thread asks for the list, then only reports
 * and listens; worker threads take one file after the other (first to check what is here, then to
 * download what is not). Nothing is written before it is known that the disk has room for all.
 *
 * What is used of the hub's interface, as of huggingface_hub 1.x and its documentation:
 *   GET /api/models/OWNER/NAME/revision/REV?blobs=true
 *       object; "sha" = the commit that REV stands for. All later requests name that commit, so
 *       that a push in the middle can't mix two versions. "siblings": [{"rfilename", "size",
 *       "blobId", "lfs": {"sha256", "size"}}], used only if the tree route is missing (404).
 *   GET /api/models/OWNER/NAME/tree/REV?recursive=true
 *       array of {"type": "file"|"directory", "path", "size", "oid", "lfs": {"oid", "size"}}, up to
 *       1,000 a page; the header Link: <URL>; rel="next" leads to the next page. REV is one escaped
 *       path segment. lfs.oid = sha256 of the content; without lfs, oid = git's blob hash, sha1 of
 *       "blob SIZE\0" + content.
 *   GET /OWNER/NAME/resolve/REV/PATH
 *       the content, or a redirect (302, 307, 308; relative or absolute) to a CDN with a signed URL
 *       that expires after about an hour: each attempt starts here again. Ranges are supported
 *       ("Range: bytes=5-9" -> 206 with Content-Range); very large files are only served in ranges.
 *   Authorization: Bearer TOKEN on the hub's own host only. 401 also means "no such repository".
 *   X-Error-Message explains 4xx. 429 and 503 carry Retry-After.
 */
#include "format/hub_internal.h"

#include "base/err.h"
#include "base/file.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

enum {
    DEFAULT_JOBS = 4,
    DEFAULT_RETRIES = 6,
    DEFAULT_STALL = 60,
    DEFAULT_BACKOFF_MS = 1000,
    REPORT_MS = 200,
};
static const uint64_t DEFAULT_REQUEST = (uint64_t)16 << 30;
static const uint64_t DISK_RESERVE = (uint64_t)16 << 20; /* for folders and what others write */

/* ---- options ---- */

static bool only(const char *text, const char *extra) {
    for (const char *c = text; *c; c++) {
        bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z');
        if (!letter && !(*c >= '0' && *c <= '9') && !strchr(extra, *c)) return false;
    }
    return true;
}

static int check_repo(const char *repo, lc_err *err) {
    const char *slash = repo ? strchr(repo, '/') : NULL;
    if (slash && slash > repo && slash[1] && !strchr(slash + 1, '/') && only(repo, "-._/") &&
        strlen(repo) <= 200 && lc_hub_check_path(repo, NULL) == LC_OK)
        return LC_OK;
    return lc_fail(err, LC_EINVAL,
                   "a model is named OWNER/NAME (letters, digits, '-', '.', '_'), not \"%.100s\"",
                   repo ? repo : "");
}

static int check_options(const lc_hub_options *o, lc_err *err) {
    int status = check_repo(o->repo, err);
    if (status != LC_OK) return status;
    if (!o->out || !*o->out) return lc_fail(err, LC_EINVAL, "no folder to write to");
    if (!hub_may_follow("http://", o->endpoint) || strchr(o->endpoint, '@') ||
        strpbrk(o->endpoint, "?# \t\r\n"))
        return lc_fail(err, LC_EINVAL, "endpoint \"%.200s\" is not a plain http or https URL",
                       o->endpoint);
    if (!*o->revision || strlen(o->revision) > 200)
        return lc_fail(err, LC_EINVAL, "revision: must have 1 to 200 characters");
    for (const char *c = o->token ? o->token : ""; *c; c++)
        if (*c <= ' ' || *c >= 127)
            return lc_fail(err, LC_EINVAL, "token: has a space or a character outside ASCII");
    if (o->jobs < 1 || o->jobs > LC_HUB_MAX_JOBS)
        return lc_fail(err, LC_EINVAL, "jobs: %d is not from 1 to %d", o->jobs, LC_HUB_MAX_JOBS);
    return LC_OK;
}

static lc_hub_options with_defaults(const lc_hub_options *given) {
    lc_hub_options o = *given;
    if (!o.endpoint) o.endpoint = "https://huggingface.co";
    if (!o.revision) o.revision = "main";
    if (o.token && !*o.token) o.token = NULL;
    if (!o.jobs) o.jobs = DEFAULT_JOBS;
    if (o.retries <= 0) o.retries = DEFAULT_RETRIES;
    if (o.stall_seconds <= 0) o.stall_seconds = DEFAULT_STALL;
    if (o.backoff_ms <= 0) o.backoff_ms = DEFAULT_BACKOFF_MS;
    if (!o.max_request) o.max_request = DEFAULT_REQUEST;
    return o;
}

/* ---- reports ---- */

typedef struct reporter {
    hub_run *run;
    lc_hub_phase phase;
    uint64_t last; /* ms */
    lc_hub_active active[LC_HUB_MAX_JOBS];
} reporter;

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool tell(reporter *r, const lc_hub_progress *p) {
    const lc_hub_options *o = r->run->options;
    if (!o->progress || o->progress(o->ctx, p)) return true;
    atomic_store(&r->run->cancelled, true);
    atomic_store(&r->run->stop, true);
    return false;
}

static lc_hub_progress snapshot(reporter *r) {
    const hub_list *list = &r->run->list;
    lc_hub_progress p = {.phase = r->phase,
                         .files = list->count,
                         .bytes = list->bytes,
                         .received = atomic_load(&r->run->received),
                         .active = r->active};
    for (size_t i = 0; i < list->count; i++) {
        hub_file *file = &list->files[i];
        uint64_t done = atomic_load(&file->done);
        int state = atomic_load(&file->state);
        p.bytes_done += done;
        p.files_done += state == HUB_DONE;
        if (state == HUB_ACTIVE && p.n_active < LC_HUB_MAX_JOBS)
            r->active[p.n_active++] = (lc_hub_active){file->path, file->size, done};
    }
    return p;
}

/* Tells the caller where things stand, at once if a file has been finished. */
static bool report(reporter *r) {
    hub_run *run = r->run;
    char text[sizeof run->note];
    bool go_on = true;
    r->last = now_ms();
    lc_hub_progress p = snapshot(r);
    for (size_t i = 0; i < run->list.count && r->phase == LC_HUB_LOADING; i++) {
        hub_file *file = &run->list.files[i];
        if (file->reported || atomic_load(&file->state) != HUB_DONE) continue;
        file->reported = true;
        p.finished = file->kept ? NULL : file->path;
        if (p.finished) go_on = tell(r, &p) && go_on;
    }
    p.finished = NULL;
    pthread_mutex_lock(&run->lock);
    if (run->has_note) {
        memcpy(text, run->note, sizeof text);
        p.note = text;
        run->has_note = false;
    }
    pthread_mutex_unlock(&run->lock);
    return tell(r, &p) && go_on && !atomic_load(&run->stop);
}

/* For requests on the caller's thread. */
static bool listing_alive(void *ctx) {
    reporter *r = ctx;
    if (now_ms() - r->last < REPORT_MS) return !atomic_load(&r->run->stop);
    return report(r);
}

/* ---- workers ---- */

typedef struct phase {
    hub_run *run;
    lc_hub_phase phase;
    size_t running;
    pthread_cond_t ended;
} phase;

static bool worker_alive(void *ctx) {
    hub_run *run = ctx;
    return !atomic_load(&run->stop);
}

static void keep_error(hub_run *run, int status, const lc_err *err, bool fatal) {
    pthread_mutex_lock(&run->lock);
    run->failed++;
    if (run->status == LC_OK) {
        run->status = status;
        run->err = *err;
    }
    if (fatal) atomic_store(&run->stop, true);
    pthread_mutex_unlock(&run->lock);
}

static void work_on(hub_client *c, phase *ph, hub_file *file) {
    hub_run *run = ph->run;
    lc_err err = {0};
    bool refused = false;
    atomic_store(&file->state, HUB_ACTIVE);
    int status = ph->phase == LC_HUB_CHECKING ? hub_file_check(c, run, file, &err)
                                              : hub_file_fetch(c, run, file, &refused, &err);
    if (status == LC_OK) return;
    keep_error(run, status, &err,
               refused || status == LC_ENOMEM || status == LC_EIO || status == LC_ECANCELED);
}

static void *worker(void *ctx) {
    phase *ph = ctx;
    hub_run *run = ph->run;
    hub_client client = {.alive = worker_alive, .ctx = run};
    lc_err err;
    int status = hub_client_new(&client, &run->net, &err);
    if (status != LC_OK) keep_error(run, status, &err, true);
    for (size_t i; status == LC_OK && !atomic_load(&run->stop) &&
                   (i = atomic_fetch_add(&run->next, 1)) < run->list.count;)
        if (atomic_load(&run->list.files[i].state) == HUB_WAITING)
            work_on(&client, ph, &run->list.files[i]);
    hub_client_free(&client);
    pthread_mutex_lock(&run->lock);
    ph->running--;
    pthread_cond_signal(&ph->ended);
    pthread_mutex_unlock(&run->lock);
    return NULL;
}

/* Waits for the workers and reports meanwhile. */
static void watch(phase *ph, reporter *r) {
    for (bool running = true; running;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += REPORT_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_mutex_lock(&ph->run->lock);
        if (ph->running) pthread_cond_timedwait(&ph->ended, &ph->run->lock, &until);
        running = ph->running > 0;
        pthread_mutex_unlock(&ph->run->lock);
        report(r);
    }
}

/* Signals are for the caller's thread; a broken connection is no reason to die. */
static int start_worker(pthread_t *thread, phase *ph) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(thread, NULL, worker, ph);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

static int run_phase(hub_run *run, reporter *r, lc_hub_phase what, lc_err *err) {
    phase ph = {.run = run, .phase = what};
    pthread_t threads[LC_HUB_MAX_JOBS];
    int jobs = run->options->jobs, started = 0;
    if ((size_t)jobs > run->list.count) jobs = (int)run->list.count;
    atomic_store(&run->next, 0);
    r->phase = what;
    pthread_cond_init(&ph.ended, NULL);
    ph.running = (size_t)jobs;
    while (started < jobs && start_worker(&threads[started], &ph) == 0) started++;
    pthread_mutex_lock(&run->lock);
    ph.running -= (size_t)(jobs - started);
    pthread_mutex_unlock(&run->lock);
    watch(&ph, r);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    pthread_cond_destroy(&ph.ended);
    if (started == 0) return lc_fail(err, LC_ENOMEM, "can't start a thread");
    if (atomic_load(&run->cancelled)) return lc_fail(err, LC_ECANCELED, "stopped");
    if (run->status == LC_OK) return LC_OK;
    *err = run->err;
    if (run->failed > 1) {
        size_t used = strlen(err->text);
        snprintf(err->text + used, sizeof err->text - used, " (and %zu more files)",
                 run->failed - 1);
    }
    return run->status;
}

/* ---- the whole ---- */

static int check_disk(const hub_run *run, lc_err *err) {
    struct statvfs disk;
    uint64_t need = 0, have;
    int status = lc_make_folders(run->options->out, 0777, err);
    if (status != LC_OK) return status;
    if (statvfs(run->options->out, &disk) != 0)
        return lc_fail_errno(err, LC_EIO, "%s: can't ask for free disk space", run->options->out);
    for (size_t i = 0; i < run->list.count; i++) need += hub_file_missing(run, &run->list.files[i]);
    have = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (need == 0 || need + DISK_RESERVE <= have) return LC_OK;
    return lc_fail(
        err, LC_ELIMIT,
        "%s: too little disk: %.2f GB are missing, %.2f GB are free (%llu and %llu bytes)",
        run->options->out, (double)need / 1e9, (double)have / 1e9, (unsigned long long)need,
        (unsigned long long)have);
}

static int pull(hub_run *run, reporter *r, lc_err *err) {
    hub_client client = {.alive = listing_alive, .ctx = r};
    int status = hub_client_new(&client, &run->net, err);
    if (status != LC_OK) return status;
    status = hub_list_fetch(&client, run->options, &run->list, err);
    hub_client_free(&client);
    if (status == LC_OK) status = run_phase(run, r, LC_HUB_CHECKING, err);
    if (status == LC_OK) status = check_disk(run, err);
    if (status == LC_OK) status = run_phase(run, r, LC_HUB_LOADING, err);
    return status;
}

static void fill_result(lc_hub_result *result, const hub_run *run) {
    *result = (lc_hub_result){.files = run->list.count,
                              .bytes = run->list.bytes,
                              .received = atomic_load(&run->received)};
    memcpy(result->commit, run->list.commit, sizeof result->commit);
    for (size_t i = 0; i < run->list.count; i++) {
        result->kept += run->list.files[i].kept;
        result->unverified += !run->list.files[i].hash[0];
    }
}

/* A broken connection must not end the caller's process: SIGPIPE is blocked on its thread for the
 * time of the call, and one that came is taken away before it is unblocked. */
static void with_sigpipe_blocked(hub_run *run, reporter *r, int *status, lc_err *err) {
    sigset_t pipe, before, pending;
    const struct timespec now = {0, 0};
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    sigpending(&pending);
    bool was_pending = sigismember(&pending, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &before);
    *status = pull(run, r, err);
    if (!was_pending)
        while (sigtimedwait(&pipe, NULL, &now) == SIGPIPE) {
        }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int lc_hub_pull(const lc_hub_options *given, lc_hub_result *result, lc_err *err) {
    lc_hub_options options = with_defaults(given);
    lc_err ignored;
    *result = (lc_hub_result){0};
    if (!err) err = &ignored;
    int status = check_options(&options, err);
    if (status != LC_OK) return status;
    size_t len = strlen(options.endpoint);
    while (len && options.endpoint[len - 1] == '/') len--;
    char *endpoint = lc_strndup(options.endpoint, len);
    hub_run *run = lc_calloc(1, sizeof *run);
    reporter *r = lc_calloc(1, sizeof *r);
    if (!endpoint || !run || !r || curl_global_init(CURL_GLOBAL_DEFAULT) != 0) {
        status = lc_fail(err, LC_ENOMEM, "out of memory");
    } else {
        run->options = &options;
        run->net = (hub_net){endpoint, options.token, options.retries, options.stall_seconds,
                             options.backoff_ms};
        r->run = run;
        pthread_mutex_init(&run->lock, NULL);
        with_sigpipe_blocked(run, r, &status, err);
        fill_result(result, run);
        pthread_mutex_destroy(&run->lock);
        hub_list_free(&run->list);
        curl_global_cleanup();
    }
    lc_free(r);
    lc_free(run);
    lc_free(endpoint);
    return status;
}
