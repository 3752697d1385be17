/*
 * hub_server.h: a small hub for tests: a thread per connection on 127.0.0.1, the three routes that
 * `longcat pull` uses, and a way to misbehave for each file. Fields of a hub_entry are read when a
 * request comes; the counters can be read at any time. Memory is malloc's, so that a test can make
 * lc_alloc fail.
 */
#ifndef LC_TESTS_HUB_SERVER_H
#define LC_TESTS_HUB_SERVER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HUB_MAX_ENTRIES = 16, HUB_MAX_THREADS = 64 };

typedef struct hub_entry {
    const char *path;
    const char *data;
    size_t size;
    char oid[41], sha256[65]; /* sha256 "" = a small file, which git hashes */

    atomic_int fail_times; /* answer fail_status so often, with Retry-After if it is not 0 */
    int fail_status, retry_after;
    atomic_int cut_times; /* close the connection after cut_after bytes of the body */
    size_t cut_after;
    atomic_int stall_times; /* say nothing more for a while after stall_after bytes */
    size_t stall_after;
    atomic_int flip_times; /* send one byte wrong */
    size_t flip_at;
    atomic_int no_range_times;    /* answer a range with 200 and all */
    atomic_int wrong_range_times; /* 206 with another Content-Range, or only another start in it */
    bool wrong_start;
    atomic_int odd_length_times; /* Content-Length and body of odd_length bytes */
    size_t odd_length;
    bool no_length;       /* no Content-Length: the end of the connection ends the body */
    const char *redirect; /* Location; "" = the same path on the CDN */
    int redirect_status;
    int slow_ms; /* wait before each 4,096 bytes */

    atomic_int requests, ranges;
    atomic_size_t sent; /* bytes of bodies */
} hub_entry;

typedef struct hub_server {
    int port, listener;
    pthread_t thread;
    atomic_int connections;
    atomic_bool stopping;

    hub_entry *entries;
    size_t n_entries, page_size; /* 0 = all on one page */
    const char *commit;          /* of every revision; NULL: no revision route */
    const char *tree, *model;    /* a whole answer instead of one made from the entries */
    const char *link;            /* Link header instead of the right one */
    bool no_tree;
    atomic_int tree_fails; /* so many 503 first */
    const char *token;     /* 401 without it */
    struct hub_server *cdn;
    atomic_int requests, tokens_seen, api_requests;
    pthread_mutex_t lock; /* for last_path */
    char last_path[512];  /* of a file */
} hub_server;

static inline bool hub_take(atomic_int *times) {
    if (atomic_load(times) <= 0) return false;
    atomic_fetch_sub(times, 1);
    return true;
}

static inline void hub_pause(int ms) {
    struct timespec wait = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&wait, NULL);
}

static inline bool hub_send(int fd, const char *data, size_t len) {
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n <= 0) return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static inline void hub_answer(int fd, const char *status, const char *headers, const char *body) {
    char head[2048];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %s\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n", status,
                     headers, strlen(body));
    if (hub_send(fd, head, (size_t)n)) hub_send(fd, body, strlen(body));
}

static inline const char *hub_header(const char *request, const char *name, char *out,
                                     size_t size) {
    const char *at = strcasestr(request, name);
    if (!at) return NULL;
    at += strlen(name);
    size_t n = strcspn(at, "\r\n");
    snprintf(out, size, "%.*s", (int)(n < size ? n : size - 1), at);
    return out;
}

static inline void hub_status_line(char out[64], int status) {
    snprintf(out, 64, "%d %s", status, status == 206 ? "Partial Content" : "Whatever");
}

/* Sends bytes [begin, end) of an entry, with its faults. */
static inline void hub_body(hub_server *s, int fd, hub_entry *e, size_t begin, size_t end) {
    bool cut = hub_take(&e->cut_times), flip = hub_take(&e->flip_times);
    bool stall = hub_take(&e->stall_times);
    for (size_t at = begin, sent = 0; at < end;) {
        char block[4096];
        size_t n = end - at < sizeof block ? end - at : sizeof block;
        if (cut && e->cut_after - sent < n) n = e->cut_after - sent;
        if (stall && sent < e->stall_after && e->stall_after - sent < n) n = e->stall_after - sent;
        for (size_t i = 0; i < n; i++) block[i] = at + i < e->size ? e->data[at + i] : 'x';
        if (flip && e->flip_at >= at && e->flip_at < at + n) block[e->flip_at - at] ^= 1;
        if (e->slow_ms) hub_pause(e->slow_ms);
        if (!hub_send(fd, block, n)) return;
        atomic_fetch_add(&e->sent, n);
        at += n;
        sent += n;
        if (cut && sent == e->cut_after) return;
        for (int i = 0; stall && sent == e->stall_after && i < 60; i++) {
            if (atomic_load(&s->stopping)) return;
            hub_pause(100);
        }
    }
}

static inline void hub_file_answer(hub_server *s, int fd, hub_entry *e, const char *request) {
    char head[512], range[64], status[64], extra[128] = "";
    size_t begin = 0, end = e->size;
    atomic_fetch_add(&e->requests, 1);
    if (hub_take(&e->fail_times)) {
        if (e->retry_after) snprintf(extra, sizeof extra, "Retry-After: %d\r\n", e->retry_after);
        hub_status_line(status, e->fail_status);
        hub_answer(fd, status, extra, "no");
        return;
    }
    bool partial = hub_header(request, "\r\nRange: bytes=", range, sizeof range);
    if (partial) {
        atomic_fetch_add(&e->ranges, 1);
        char *dash;
        begin = strtoull(range, &dash, 10);
        if (dash[0] == '-' && dash[1]) end = strtoull(dash + 1, NULL, 10) + 1;
        if (end > e->size) end = e->size;
        if (begin >= e->size) {
            hub_answer(fd, "416 Range Not Satisfiable", "", "");
            return;
        }
    }
    if (partial && hub_take(&e->no_range_times)) {
        partial = false;
        begin = 0;
        end = e->size;
    }
    if (hub_take(&e->odd_length_times)) end = begin + e->odd_length;
    size_t shift = partial && hub_take(&e->wrong_range_times), rest = e->wrong_start ? 0 : shift;
    if (partial)
        snprintf(extra, sizeof extra, "Content-Range: bytes %zu-%zu/%zu\r\n", begin + shift,
                 end - 1 + rest, e->size + rest);
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nConnection: close\r\n%s",
                     partial ? "206 Partial Content" : "200 OK", extra);
    if (!e->no_length)
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Length: %zu\r\n", end - begin);
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    if (hub_send(fd, head, (size_t)n)) hub_body(s, fd, e, begin, end);
}

static inline void hub_tree(hub_server *s, int fd, const char *path) {
    const char *cursor = strstr(path, "cursor=");
    size_t begin = cursor ? strtoull(cursor + 7, NULL, 10) : 0;
    size_t end =
        s->page_size && begin + s->page_size < s->n_entries ? begin + s->page_size : s->n_entries;
    char *body = malloc(1 << 16), headers[512] = "";
    size_t n = (size_t)sprintf(body, "[{\"type\":\"directory\",\"path\":\"d\",\"size\":0}");
    for (size_t i = begin; i < end; i++) {
        hub_entry *e = &s->entries[i];
        n += (size_t)sprintf(body + n,
                             ",{\"type\":\"file\",\"path\":\"%s\",\"size\":%zu,\"oid\":\"%s\"",
                             e->path, e->size, e->oid);
        if (e->sha256[0])
            n += (size_t)sprintf(body + n, ",\"lfs\":{\"oid\":\"%s\",\"size\":%zu}", e->sha256,
                                 e->size);
        n += (size_t)sprintf(body + n, "}");
    }
    sprintf(body + n, "]");
    /* The link names the public hub, as behind a mirror. */
    if (s->link)
        snprintf(headers, sizeof headers, "Link: %s\r\n", s->link);
    else if (end < s->n_entries)
        snprintf(headers, sizeof headers,
                 "Link: <https://example.com/api/models/o/n/tree/x?recursive=true&cursor=%zu>; "
                 "rel=\"next\"\r\n",
                 end);
    hub_answer(fd, "200 OK", headers, s->tree ? s->tree : body);
    free(body);
}

static inline void hub_api(hub_server *s, int fd, const char *path) {
    char body[128];
    atomic_fetch_add(&s->api_requests, 1);
    if (strstr(path, "/revision/")) {
        snprintf(body, sizeof body, "{\"sha\":\"%s\"}", s->commit ? s->commit : "");
        if (s->model || s->commit)
            hub_answer(fd, "200 OK", "", s->model ? s->model : body);
        else
            hub_answer(fd, "404 Not Found", "", "no");
    } else if (hub_take(&s->tree_fails)) {
        hub_answer(fd, "503 Busy", "", "no");
    } else if (s->no_tree) {
        hub_answer(fd, "404 Not Found", "X-Error-Message: Repo not found\r\n", "no");
    } else {
        hub_tree(s, fd, path);
    }
}

/* Undoes %XX in place. */
static inline void hub_decode(char *text) {
    char *out = text;
    for (; *text; text++) {
        unsigned code;
        if (*text == '%' && sscanf(text + 1, "%2x", &code) == 1) {
            *out++ = (char)code;
            text += 2;
        } else {
            *out++ = *text;
        }
    }
    *out = 0;
}

static inline void hub_resolve(hub_server *s, int fd, char *path, const char *request) {
    char *name = strstr(path, "/resolve/");
    name = name ? strchr(name + 9, '/') : path;
    hub_entry *e = NULL;
    if (name) hub_decode(++name);
    for (size_t i = 0; name && i < s->n_entries; i++)
        if (!strcmp(s->entries[i].path, name)) e = &s->entries[i];
    if (!e) {
        hub_answer(fd, "404 Not Found", "", "no");
    } else if (e->redirect && s->cdn) {
        char headers[1024], status[64];
        if (*e->redirect)
            snprintf(headers, sizeof headers, "Location: %s\r\n", e->redirect);
        else
            snprintf(headers, sizeof headers, "Location: http://127.0.0.1:%d/%s\r\n", s->cdn->port,
                     e->path);
        hub_status_line(status, e->redirect_status ? e->redirect_status : 302);
        hub_answer(fd, status, headers, "moved");
    } else {
        hub_file_answer(s, fd, e, request);
    }
}

typedef struct hub_connection {
    hub_server *server;
    int fd;
} hub_connection;

static inline void *hub_connection_run(void *ctx) {
    hub_connection c = *(hub_connection *)ctx;
    char request[8192], path[512] = "", auth[256] = "";
    size_t len = 0;
    free(ctx);
    while (len < sizeof request - 1) {
        ssize_t n = recv(c.fd, request + len, sizeof request - 1 - len, 0);
        if (n <= 0) break;
        len += (size_t)n;
        request[len] = 0;
        if (strstr(request, "\r\n\r\n")) break;
    }
    request[len] = 0;
    if (sscanf(request, "GET %511s", path) == 1) {
        hub_server *s = c.server;
        bool has_token = hub_header(request, "\r\nAuthorization: Bearer ", auth, sizeof auth);
        atomic_fetch_add(&s->requests, 1);
        if (has_token) atomic_fetch_add(&s->tokens_seen, 1);
        pthread_mutex_lock(&s->lock);
        if (strstr(path, "/resolve/")) strcpy(s->last_path, path);
        pthread_mutex_unlock(&s->lock);
        if (s->token && (!has_token || strcmp(auth, s->token) != 0))
            hub_answer(c.fd, "401 Unauthorized", "X-Error-Message: Invalid token\r\n", "no");
        else if (!strncmp(path, "/api/", 5))
            hub_api(s, c.fd, path);
        else
            hub_resolve(s, c.fd, path, request);
    }
    shutdown(c.fd, SHUT_WR);
    while (recv(c.fd, request, sizeof request, 0) > 0) {
    }
    close(c.fd);
    atomic_fetch_sub(&c.server->connections, 1);
    return NULL;
}

static inline void *hub_server_run(void *ctx) {
    hub_server *s = ctx;
    for (int fd; (fd = accept(s->listener, NULL, NULL)) >= 0;) {
        pthread_t thread;
        struct timeval limit = {20, 0};
        hub_connection *c = malloc(sizeof *c);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        *c = (hub_connection){s, fd};
        if (atomic_fetch_add(&s->connections, 1) >= HUB_MAX_THREADS ||
            pthread_create(&thread, NULL, hub_connection_run, c) != 0) {
            atomic_fetch_sub(&s->connections, 1);
            close(fd);
            free(c);
        } else {
            pthread_detach(thread);
        }
    }
    return NULL;
}

/* Listens on a free port; false if that fails. */
static inline bool hub_server_start(hub_server *s) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->listener < 0 || bind(s->listener, (struct sockaddr *)&address, size) != 0 ||
        listen(s->listener, 16) != 0 ||
        getsockname(s->listener, (struct sockaddr *)&address, &size) != 0)
        return false;
    s->port = ntohs(address.sin_port);
    pthread_mutex_init(&s->lock, NULL);
    return pthread_create(&s->thread, NULL, hub_server_run, s) == 0;
}

static inline void hub_server_stop(hub_server *s) {
    atomic_store(&s->stopping, true);
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    while (atomic_load(&s->connections) > 0) hub_pause(5);
    pthread_mutex_destroy(&s->lock);
}

#endif
