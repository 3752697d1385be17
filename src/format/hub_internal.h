/*
 * hub_internal.h: what the files of the hub download share: hub_net.c (HTTP), hub_list.c (what
 * there is), hub_file.c (one file), hub.c (all of them). Nobody else includes this but tests.
 */
#ifndef LC_FORMAT_HUB_INTERNAL_H
#define LC_FORMAT_HUB_INTERNAL_H

#include "base/buf.h"
#include "base/hash.h"
#include "format/hub.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>

/* ---- hub_net.c ---- */

/* What every request of one call needs. */
typedef struct hub_net {
    const char *endpoint; /* without a slash at its end */
    const char *token;
    int retries, stall_seconds, backoff_ms;
} hub_net;

/* One connection; each thread has its own. alive: asked often; false = stop. */
typedef struct hub_client {
    const hub_net *net;
    CURL *curl;
    struct curl_slist *plain_headers, *token_headers;
    bool (*alive)(void *ctx);
    void *ctx;
} hub_client;

typedef struct hub_response {
    long status;
    int64_t length; /* Content-Length, -1 if not stated */
    bool has_range;
    uint64_t range_start, range_end; /* inclusive */
    int64_t range_total;             /* -1 if not stated */
    uint64_t retry_after;            /* seconds, 0 if not stated */
    bool elsewhere;                  /* answered by another host than the endpoint */
    char next[1024];                 /* the Link header's rel="next", "" if none */
    char message[200];               /* the hub's X-Error-Message, printable */
} hub_response;

typedef struct hub_request {
    const char *url;
    uint64_t first, last; /* bytes asked for; last 0 = no Range header */
    long max_seconds;     /* 0 = no limit as long as data comes */
    /* Body of a 200 or 206. begin: before its first byte, also if there is none. Both return an
     * lc_status; what is not LC_OK ends the transfer and is returned by hub_get. */
    int (*begin)(void *ctx, const hub_response *response, lc_err *err);
    int (*data)(void *ctx, const char *data, size_t len, lc_err *err);
    void *ctx;
} hub_request;

int hub_client_new(hub_client *client, const hub_net *net, lc_err *err);
void hub_client_free(hub_client *client);

/* One attempt, redirects included. LC_OK: an answer with some status came. LC_ENET: worth another
 * attempt. */
int hub_get(hub_client *client, const hub_request *request, hub_response *response, lc_err *err);

/* True if an answer may be different next time. */
bool hub_is_temporary(const hub_response *response);
/* An answer that is neither 200 nor 206 as an error that names `what`. */
int hub_status_error(const hub_response *response, const char *what, lc_err *err);
/* Milliseconds to wait after the n-th failure in a row (from 1). */
uint64_t hub_backoff(const hub_net *net, int n, uint64_t retry_after, uint64_t salt);
/* Sleeps; false if it was ended by `alive`. */
bool hub_sleep(hub_client *client, uint64_t milliseconds);

/* True if a redirect from one URL to another may be followed: to http or https only, and never from
 * https to http. */
bool hub_may_follow(const char *from, const char *to);
/* True if both URLs have the same scheme, host and port. */
bool hub_same_origin(const char *a, const char *b);
/* Copies text with everything but printable ASCII replaced by '?'. */
void hub_printable(char *out, size_t size, const char *text, size_t len);

/* ---- hub_list.c ---- */

typedef enum hub_state {
    HUB_WAITING,
    HUB_ACTIVE,
    HUB_DONE,
    HUB_FAILED,
} hub_state;

typedef struct hub_file {
    char *path; /* checked by lc_hub_check_path */
    uint64_t size;
    lc_hash_kind kind; /* LC_HASH_SHA256 of the content, or LC_HASH_SHA1 of the git blob */
    char hash[65];     /* "" if none is known */
    _Atomic int state;
    _Atomic uint64_t done;
    bool kept, reported;
} hub_file;

typedef struct hub_list {
    hub_file *files; /* sorted by path, without duplicates or conflicts */
    size_t count, cap;
    uint64_t bytes;
    char commit[65];
} hub_list;

/* Asks the hub for all files of a revision and keeps those that the patterns choose. */
int hub_list_fetch(hub_client *client, const lc_hub_options *options, hub_list *list, lc_err *err);
void hub_list_free(hub_list *list);
/* Appends text as one path segment of a URL, or (slashes true) as several. */
void hub_escape(lc_buf *out, const char *text, bool slashes);

/* ---- hub_file.c ---- */

/* What all threads of one call share. */
typedef struct hub_run {
    const lc_hub_options *options;
    hub_net net;
    hub_list list;
    atomic_size_t next;          /* the next file that a thread takes */
    atomic_bool stop, cancelled; /* cancelled: by the caller */
    _Atomic uint64_t received;
    pthread_mutex_t lock; /* for all below */
    int status;           /* of the first failure */
    lc_err err;
    size_t failed;
    char note[300];
    bool has_note;
} hub_run;

/* Looks whether the file is here, complete and right: sets state and `done`. */
int hub_file_check(hub_client *client, hub_run *run, hub_file *file, lc_err *err);
/* Bytes still to come, by the sizes on disk. */
uint64_t hub_file_missing(const hub_run *run, const hub_file *file);
/* *refused: the hub wants (another) token, so asking for other files makes no sense. */
int hub_file_fetch(hub_client *client, hub_run *run, hub_file *file, bool *refused, lc_err *err);

#endif
