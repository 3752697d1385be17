/*
 * hub.h: downloading a checkpoint from a hub that speaks Hugging Face's routes. One blocking call;
 * it may be stopped at any time (even by kill -9) and goes on where it was when called again. Every
 * file is checked against the hash that the hub states before it gets its name.
 */
#ifndef LC_FORMAT_HUB_H
#define LC_FORMAT_HUB_H

#include "longcat.h"

enum { LC_HUB_MAX_JOBS = 32, LC_HUB_MAX_FILES = 50000 };

typedef enum lc_hub_phase {
    LC_HUB_LISTING,  /* asking for the list of files */
    LC_HUB_CHECKING, /* hashing files that are already here */
    LC_HUB_LOADING,
} lc_hub_phase;

typedef struct lc_hub_active {
    const char *path;
    uint64_t size, done; /* bytes */
} lc_hub_active;

typedef struct lc_hub_progress {
    lc_hub_phase phase;
    size_t files, files_done;
    uint64_t bytes, bytes_done; /* of all files, what was already here included */
    uint64_t received;          /* bytes that came over the network in this call */
    const lc_hub_active *active;
    size_t n_active;
    const char *finished; /* a file that was finished just now, or NULL */
    const char *note;     /* news for a person (a retry and its reason), or NULL */
} lc_hub_progress;

typedef struct lc_hub_options {
    const char *endpoint;                        /* NULL = https://huggingface.co */
    const char *repo;                            /* "OWNER/NAME" */
    const char *revision;                        /* branch, tag or commit; NULL = main */
    const char *token;                           /* sent to the endpoint's host only; NULL = none */
    const char *out;                             /* folder; created if it is not there */
    const char *const *include, *const *exclude; /* shell patterns over whole paths */
    size_t n_include, n_exclude;                 /* none included = all */
    int jobs;                                    /* files at a time; 0 = 4 */
    int retries;          /* failures in a row without progress before a file is given up; 0 = 6 */
    int stall_seconds;    /* a transfer this long without data has failed; 0 = 60 */
    int backoff_ms;       /* wait after the first failure; doubles, at most 60 s; 0 = 1,000 */
    uint64_t max_request; /* larger files are asked for in ranges of this size; 0 = 16 GiB */
    /* Called on the caller's thread, some times a second and at each finished file. false = stop:
     * lc_hub_pull returns LC_ECANCELED. May be NULL. */
    bool (*progress)(void *ctx, const lc_hub_progress *progress);
    void *ctx;
} lc_hub_options;

typedef struct lc_hub_result {
    size_t files, kept; /* kept: were complete and right already */
    size_t unverified;  /* the hub states no hash that we know: only their size was checked */
    uint64_t bytes, received;
    char commit[65]; /* what the revision stood for, "" if the hub doesn't say */
} lc_hub_result;

/* A file that fails is left as FILE.part and the others go on; the first error is returned at the
 * end. Lack of memory or disk, refused access and cancelling stop everything. Errors: LC_EINVAL
 * (options), LC_ENOTFOUND, LC_ENET (gave up, or access refused), LC_EFORMAT (what the hub sends
 * can't be right), LC_ELIMIT (too little disk, too many files), LC_EIO, LC_ENOMEM, LC_ECANCELED.
 * *result is filled as far as it came. */
int lc_hub_pull(const lc_hub_options *options, lc_hub_result *result, lc_err *err);

/* LC_OK if a path from the network may become a path below a folder: relative, UTF-8, no "..", no
 * empty or ".git" part, no control characters or backslashes, no part too long for a file system.
 */
int lc_hub_check_path(const char *path, lc_err *err);

#endif
