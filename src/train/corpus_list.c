/*
 * corpus_list.c: walks the folders of a corpus. No recursion: a stack holds the paths that are
 * still to be visited, last first. Symbolic links found in folders are not followed, so there are
 * no loops.
 */
#include "train/corpus_list.h"

#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILES_MAX = 1 << 26, PATH_BYTES_MAX = 4096 };

typedef struct paths {
    char **data;
    size_t n, cap;
} paths;

typedef struct finder {
    const lc_corpus_options *options;
    lc_corpus_list *list;
    lc_corpus_counts *counts;
    paths stack;
    lc_err *err;
} finder;

static int no_memory(const finder *f, const char *path) {
    return lc_fail(f->err, LC_ENOMEM, "%s: out of memory", path);
}

static int push(finder *f, char *path) { /* takes path over */
    paths *s = &f->stack;
    if (!path) return no_memory(f, "corpus");
    if (s->n == s->cap) {
        size_t cap = s->cap * 2 + 64;
        char **more = cap > FILES_MAX ? NULL : lc_realloc(s->data, cap, sizeof(char *));
        if (!more) {
            lc_free(path);
            return no_memory(f, "corpus");
        }
        s->data = more;
        s->cap = cap;
    }
    s->data[s->n++] = path;
    return LC_OK;
}

static const char *extension(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    return dot && dot != name ? dot + 1 : "";
}

/* Whether an extension stands in a list like "py,c,h"; letters' case doesn't matter. */
static bool listed(const char *list, const char *ext) {
    size_t len = strlen(ext);
    while (len && *list) {
        size_t n = strcspn(list, ",");
        if (n == len && !strncasecmp(list, ext, len)) return true;
        list += n + (list[n] == ',');
    }
    return false;
}

static int by_name_down(const void *a, const void *b) {
    return strcmp(*(char *const *)b, *(char *const *)a);
}

static char *join(const char *folder, const char *name) {
    lc_buf path = {0};
    size_t len = strlen(folder);
    lc_buf_puts(&path, folder);
    if (len && folder[len - 1] != '/') lc_buf_putc(&path, '/');
    lc_buf_puts(&path, name);
    char *copy = path.failed || path.len > PATH_BYTES_MAX ? NULL : lc_strdup(path.data);
    lc_buf_free(&path);
    return copy;
}

/* Puts the entries of a folder on the stack, so that the first by name is on top. */
static int open_folder(finder *f, const char *folder) {
    DIR *dir = opendir(folder);
    size_t from = f->stack.n;
    int status = LC_OK;
    if (!dir) return lc_fail_errno(f->err, LC_EIO, "%s", folder);
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry && errno) status = lc_fail_errno(f->err, LC_EIO, "%s", folder);
        if (!entry || status) break;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (entry->d_name[0] == '.')
            f->counts->hidden++;
        else
            status = push(f, join(folder, entry->d_name));
    }
    closedir(dir);
    if (f->stack.n > from)
        qsort(f->stack.data + from, f->stack.n - from, sizeof(char *), by_name_down);
    return status;
}

static int add_file(finder *f, const char *path, const struct stat *st) {
    lc_corpus_list *l = f->list;
    if (l->n == l->cap) {
        size_t cap = l->cap * 2 + 64;
        lc_corpus_file *more = cap > FILES_MAX ? NULL : lc_realloc(l->files, cap, sizeof *more);
        if (!more) return no_memory(f, path);
        l->files = more;
        l->cap = cap;
    }
    char *copy = lc_strdup(path);
    if (!copy) return no_memory(f, path);
    l->files[l->n++] = (lc_corpus_file){copy, extension(copy)};
    l->bytes += (uint64_t)st->st_size;
    return LC_OK;
}

/* named: the path was given by the user, so it need not have a known extension or size. */
static int visit(finder *f, const char *path, bool named) {
    const lc_corpus_options *o = f->options;
    const char *list = o->extensions ? o->extensions : LC_CORPUS_EXTENSIONS;
    size_t most = o->max_file ? o->max_file : LC_CORPUS_FILE_MAX;
    struct stat st;
    if (named ? stat(path, &st) : lstat(path, &st))
        return lc_fail_errno(f->err, errno == ENOENT ? LC_ENOTFOUND : LC_EIO, "%s", path);
    if (S_ISDIR(st.st_mode)) return open_folder(f, path);
    bool jsonl = !strcasecmp(extension(path), "jsonl"); /* its lines are limited, not the file */
    if (!S_ISREG(st.st_mode) && !(named && S_ISFIFO(st.st_mode)))
        f->counts->links++;
    else if (!named && !listed(list, extension(path)))
        f->counts->other_type++;
    else if (!named && !jsonl && (uint64_t)st.st_size > most)
        f->counts->too_large++;
    else
        return add_file(f, path, &st);
    return LC_OK;
}

int lc_corpus_find(const lc_corpus_options *options, lc_corpus_list *list, lc_corpus_counts *counts,
                   lc_err *err) {
    finder f = {.options = options, .list = list, .counts = counts, .err = err};
    int status = LC_OK;
    for (size_t i = 0; i < options->n_paths && !status; i++) {
        status = visit(&f, options->paths[i], true);
        while (!status && f.stack.n) {
            char *path = f.stack.data[--f.stack.n];
            status = visit(&f, path, false);
            lc_free(path);
        }
    }
    while (f.stack.n) lc_free(f.stack.data[--f.stack.n]);
    lc_free(f.stack.data);
    if (!status && !list->n)
        status = lc_fail(err, LC_EINVAL, "%s: no file of a known type in it",
                         options->n_paths ? options->paths[0] : "corpus");
    return status;
}

void lc_corpus_list_free(lc_corpus_list *list) {
    for (size_t i = 0; i < list->n; i++) lc_free(list->files[i].path);
    lc_free(list->files);
    *list = (lc_corpus_list){0};
}
