/*
 * hub_list.c: which files a revision has. Everything here comes from strangers: paths are checked
 * before they are kept (lc_hub_check_path), numbers have ranges, pages and files a limit, and the
 * link to the next page is used only below the endpoint's own /api/models/.
 */
#include "format/hub_internal.h"

#include "base/err.h"
#include "base/json.h"
#include "base/utf8.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    MAX_PATH = 1024,
    MAX_PART = 250, /* a file system's 255 less ".part" */
    MAX_PAGES = 1000,
    PAGE_BYTES = 64 << 20,
    PAGE_SECONDS = 300,
};
static const uint64_t MAX_FILE = (uint64_t)1 << 44, MAX_TOTAL = (uint64_t)1 << 50; /* bytes */

/* ---- paths ---- */

/* Control characters, and those that reverse or hide text on a terminal. */
static bool is_hidden(int32_t c) {
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x200B && c <= 0x200F) ||
           (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF;
}

static const char *part_problem(const char *part, size_t len) {
    if (len == 0) return "an empty part";
    if (len > MAX_PART) return "a part that is too long";
    if ((len == 1 && part[0] == '.') || (len == 2 && part[0] == '.' && part[1] == '.'))
        return "\".\" or \"..\"";
    if (len == 4 && !strncasecmp(part, ".git", 4)) return "\".git\"";
    return NULL;
}

static const char *path_problem(const char *path, size_t len) {
    if (len == 0) return "no characters";
    if (len > MAX_PATH) return "too many characters";
    for (size_t i = 0, used; i < len; i += used) {
        int32_t c = lc_utf8_decode(path + i, len - i, &used);
        if (c < 0) return "bytes that are not UTF-8";
        if (is_hidden(c)) return "a control character";
        if (c == '\\') return "a backslash";
    }
    for (const char *part = path;; part++) {
        const char *end = strchrnul(part, '/');
        const char *problem = part_problem(part, (size_t)(end - part));
        if (problem || !*end) return problem;
        part = end;
    }
}

static int check_path(const char *path, size_t len, lc_err *err) {
    char shown[120];
    const char *problem = path_problem(path, len);
    if (!problem) return LC_OK;
    hub_printable(shown, sizeof shown, path, len);
    return lc_fail(err, LC_EFORMAT, "file name \"%s\" has %s", shown, problem);
}

int lc_hub_check_path(const char *path, lc_err *err) { return check_path(path, strlen(path), err); }

void hub_escape(lc_buf *out, const char *text, bool slashes) {
    for (const char *c = text; *c; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || strchr("-._~", *c) || (slashes && *c == '/');
        if (plain)
            lc_buf_putc(out, *c);
        else
            lc_buf_printf(out, "%%%02X", (unsigned)(unsigned char)*c);
    }
}

/* ---- entries ---- */

static struct json_object *member(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    if (json_object_is_type(object, json_type_object))
        json_object_object_get_ex(object, key, &value);
    return value;
}

/* Copies n hex digits in lower case; false if text is anything else. */
static bool copy_hex(char *out, struct json_object *value, size_t n) {
    const char *text =
        json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
    if (strlen(text) != n || strspn(text, "0123456789abcdefABCDEF") != n) return false;
    for (size_t i = 0; i <= n; i++)
        out[i] = text[i] >= 'A' && text[i] <= 'F' ? (char)(text[i] + 32) : text[i];
    return true;
}

static int read_size(struct json_object *value, const char *path, uint64_t *size, lc_err *err) {
    int64_t n = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : -1;
    if (n < 0 || (uint64_t)n > MAX_FILE)
        return lc_fail(err, LC_EFORMAT, "%s: the hub states no usable size (limit %llu bytes)",
                       path, (unsigned long long)MAX_FILE);
    *size = (uint64_t)n;
    return LC_OK;
}

static bool chosen(const lc_hub_options *o, const char *path) {
    bool in = o->n_include == 0;
    for (size_t i = 0; i < o->n_include && !in; i++) in = fnmatch(o->include[i], path, 0) == 0;
    for (size_t i = 0; i < o->n_exclude && in; i++) in = fnmatch(o->exclude[i], path, 0) != 0;
    return in;
}

static int append_file(hub_list *list, const hub_file *file, lc_err *err) {
    if (list->count == LC_HUB_MAX_FILES)
        return lc_fail(err, LC_ELIMIT, "the repository has more than %d files", LC_HUB_MAX_FILES);
    if (list->count == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 64;
        hub_file *grown = lc_realloc(list->files, cap, sizeof *grown);
        if (!grown) return lc_fail(err, LC_ENOMEM, "out of memory");
        list->files = grown;
        list->cap = cap;
    }
    char *path = lc_strdup(file->path);
    if (!path) return lc_fail(err, LC_ENOMEM, "out of memory");
    list->files[list->count] = *file;
    list->files[list->count++].path = path;
    list->bytes += file->size;
    if (list->bytes > MAX_TOTAL)
        return lc_fail(err, LC_ELIMIT, "the repository has more than %llu bytes",
                       (unsigned long long)MAX_TOTAL);
    return LC_OK;
}

/* One file of a tree ("path", "oid") or of a model's siblings ("rfilename", "blobId"). Large files
 * have "lfs", whose hash is that of the content; a small file's is git's. */
static int add_entry(hub_list *list, const lc_hub_options *o, struct json_object *entry,
                     lc_err *err) {
    struct json_object *type = member(entry, "type"), *path = member(entry, "path");
    struct json_object *oid = member(entry, "oid"), *lfs = member(entry, "lfs");
    if (json_object_is_type(type, json_type_string) && strcmp(json_object_get_string(type), "file"))
        return LC_OK;
    if (!path) path = member(entry, "rfilename");
    if (!oid) oid = member(entry, "blobId");
    if (!json_object_is_type(path, json_type_string))
        return lc_fail(err, LC_EFORMAT, "the hub's list has an entry without a path");
    hub_file file = {.path = (char *)json_object_get_string(path), .kind = LC_HASH_SHA1};
    int status = check_path(file.path, (size_t)json_object_get_string_len(path), err);
    struct json_object *size = member(lfs, "size") ? member(lfs, "size") : member(entry, "size");
    if (status == LC_OK) status = read_size(size, file.path, &file.size, err);
    if (status != LC_OK || !chosen(o, file.path)) return status;
    if (lfs) {
        file.kind = LC_HASH_SHA256;
        oid = member(lfs, "oid") ? member(lfs, "oid") : member(lfs, "sha256");
        if (!copy_hex(file.hash, oid, 64))
            return lc_fail(err, LC_EFORMAT, "%s: the hub states no usable sha256", file.path);
    } else if (!copy_hex(file.hash, oid, 40)) {
        file.hash[0] = 0;
    }
    return append_file(list, &file, err);
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const hub_file *)a)->path, ((const hub_file *)b)->path);
}

static bool has_path(const hub_list *list, const char *path) {
    hub_file key = {.path = (char *)path};
    return bsearch(&key, list->files, list->count, sizeof key, by_path) != NULL;
}

/* No path twice, none that is a folder of another, none that is another's unfinished name. */
static int check_conflicts(hub_list *list, lc_err *err) {
    if (list->count) qsort(list->files, list->count, sizeof *list->files, by_path);
    for (size_t i = 0; i < list->count; i++) {
        char other[MAX_PATH + 8];
        const char *path = list->files[i].path;
        if (i && !strcmp(path, list->files[i - 1].path))
            return lc_fail(err, LC_EFORMAT, "the hub lists %s twice", path);
        snprintf(other, sizeof other, "%s.part", path);
        if (has_path(list, other))
            return lc_fail(err, LC_EFORMAT, "the hub lists both %s and %s", path, other);
        for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
            snprintf(other, sizeof other, "%.*s", (int)(slash - path), path);
            if (has_path(list, other))
                return lc_fail(err, LC_EFORMAT, "the hub lists %s as a file and as a folder",
                               other);
        }
    }
    return LC_OK;
}

void hub_list_free(hub_list *list) {
    for (size_t i = 0; i < list->count; i++) lc_free(list->files[i].path);
    lc_free(list->files);
    *list = (hub_list){0};
}

/* ---- requests ---- */

static int page_begin(void *ctx, const hub_response *response, lc_err *err) {
    (void)response;
    lc_buf_clear(ctx);
    return lc_buf_reserve(ctx, 0) ? LC_OK : lc_fail(err, LC_ENOMEM, "out of memory");
}

static int page_data(void *ctx, const char *data, size_t len, lc_err *err) {
    if (lc_buf_append(ctx, data, len)) return LC_OK;
    return lc_fail(err, LC_ELIMIT, "the hub's answer is larger than %d bytes (or out of memory)",
                   PAGE_BYTES);
}

/* Fetches one page, with retries. LC_OK: response->status says how it went. */
static int fetch_page(hub_client *c, const char *url, lc_buf *page, hub_response *response,
                      lc_err *err) {
    hub_request request = {.url = url,
                           .max_seconds = PAGE_SECONDS,
                           .begin = page_begin,
                           .data = page_data,
                           .ctx = page};
    for (int n = 1;; n++) {
        int status = hub_get(c, &request, response, err);
        if (status != LC_OK && status != LC_ENET) return status;
        if (status == LC_OK && !hub_is_temporary(response)) return LC_OK;
        if (n >= c->net->retries) return status;
        uint64_t wait = hub_backoff(c->net, n, status == LC_OK ? response->retry_after : 0, 0);
        if (!hub_sleep(c, wait)) return lc_fail(err, LC_ECANCELED, "stopped");
    }
}

static void put_api_url(lc_buf *url, const hub_client *c, const lc_hub_options *o,
                        const char *route, const char *revision) {
    lc_buf_printf(url, "%s/api/models/", c->net->endpoint);
    hub_escape(url, o->repo, true);
    lc_buf_printf(url, "/%s/", route);
    hub_escape(url, revision, false);
}

/* The model's description: which commit the revision is, and (*siblings) its files. Hubs without
 * this route are fine. */
static int fetch_model(hub_client *c, const lc_hub_options *o, hub_list *list,
                       struct json_object **model, lc_err *err) {
    lc_buf url = {0}, page = {.limit = PAGE_BYTES};
    hub_response response = {0};
    put_api_url(&url, c, o, "revision", o->revision);
    lc_buf_puts(&url, "?blobs=true");
    int status = url.failed ? lc_fail(err, LC_ENOMEM, "out of memory")
                            : fetch_page(c, url.data, &page, &response, err);
    if (status == LC_OK &&
        (response.status == 401 || response.status == 403 || hub_is_temporary(&response)))
        status = hub_status_error(&response, o->repo, err);
    else if (status == LC_OK && response.status == 200 &&
             lc_json_parse(page.data, page.len, "model", model, NULL) == LC_OK &&
             !copy_hex(list->commit, member(*model, "sha"), 40))
        list->commit[0] = 0;
    lc_buf_free(&url);
    lc_buf_free(&page);
    return status;
}

static int add_entries(hub_list *list, const lc_hub_options *o, struct json_object *entries,
                       lc_err *err) {
    if (!json_object_is_type(entries, json_type_array))
        return lc_fail(err, LC_EFORMAT, "%s: the hub's list of files is not an array", o->repo);
    int status = LC_OK;
    for (size_t i = 0; i < json_object_array_length(entries) && status == LC_OK; i++)
        status = add_entry(list, o, json_object_array_get_idx(entries, i), err);
    return status;
}

/* The next page's URL, of whose host only ours is used; "" if there is none. */
static int next_url(const hub_client *c, const char *link, lc_buf *url, lc_err *err) {
    const char *route = strstr(link, "/api/models/");
    lc_buf previous = *url;
    *url = (lc_buf){0};
    bool same = false, odd = *link && !route;
    for (const char *at = link; *at; at++) odd |= *at <= ' ' || *at >= 127;
    if (*link && !odd) {
        lc_buf_printf(url, "%s%s", c->net->endpoint, route);
        same = !url->failed && !strcmp(url->data, previous.data);
    }
    lc_buf_free(&previous);
    if (url->failed) return lc_fail(err, LC_ENOMEM, "out of memory");
    if (odd || same) return lc_fail(err, LC_EFORMAT, "the hub's link to the next page is unusable");
    return LC_OK;
}

/* All pages of the tree. *found is false if the hub doesn't have the route (404). */
static int fetch_tree(hub_client *c, const lc_hub_options *o, hub_list *list, bool *found,
                      lc_err *err) {
    lc_buf url = {0}, page = {.limit = PAGE_BYTES};
    put_api_url(&url, c, o, "tree", list->commit[0] ? list->commit : o->revision);
    lc_buf_puts(&url, "?recursive=true");
    int status = url.failed ? lc_fail(err, LC_ENOMEM, "out of memory") : LC_OK;
    *found = true;
    for (int pages = 0; status == LC_OK && url.len; pages++) {
        hub_response response = {0};
        struct json_object *entries = NULL;
        if (pages == MAX_PAGES)
            status = lc_fail(err, LC_ELIMIT, "the hub's list has more than %d pages", MAX_PAGES);
        if (status == LC_OK) status = fetch_page(c, url.data, &page, &response, err);
        if (status == LC_OK && response.status != 200) {
            *found = response.status != 404 || pages > 0;
            status = hub_status_error(&response, o->repo, err);
        }
        if (status == LC_OK)
            status = lc_json_parse(page.data, page.len, "the hub's list", &entries, err);
        if (status == LC_OK) status = add_entries(list, o, entries, err);
        json_object_put(entries);
        if (status == LC_OK) status = next_url(c, response.next, &url, err);
    }
    lc_buf_free(&url);
    lc_buf_free(&page);
    return status;
}

int hub_list_fetch(hub_client *c, const lc_hub_options *o, hub_list *list, lc_err *err) {
    struct json_object *model = NULL;
    bool found;
    int status = fetch_model(c, o, list, &model, err);
    if (status == LC_OK) {
        status = fetch_tree(c, o, list, &found, err);
        if (status != LC_OK && !found && member(model, "siblings"))
            status = add_entries(list, o, member(model, "siblings"), err);
    }
    json_object_put(model);
    if (status == LC_OK) status = check_conflicts(list, err);
    if (status == LC_OK && list->count == 0)
        status = lc_fail(err, LC_ENOTFOUND, "%s: no files to download", o->repo);
    return status;
}
