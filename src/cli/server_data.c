/* server_data.c: see server_data.h. */
#include "cli/server_data.h"

#include "base/file.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECRET_BYTES = 32 };

/* ---- the folder ---- */

int lc_server_data_open(const char *given, lc_server_data *out, lc_err *err) {
    const char *base = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int n;
    out->lock = -1;
    if (given)
        n = snprintf(out->folder, sizeof out->folder, "%s", given);
    else if (base && *base)
        n = snprintf(out->folder, sizeof out->folder, "%s/longcat", base);
    else if (home && *home)
        n = snprintf(out->folder, sizeof out->folder, "%s/.local/share/longcat", home);
    else
        return lc_fail(err, LC_EINVAL, "neither --data nor HOME says where to keep things");
    if (n <= 0 || (size_t)n >= sizeof out->folder - 64)
        return lc_fail(err, LC_EINVAL, "--data: the path is empty or too long");
    return lc_make_folders(out->folder, 0700, err);
}

/* A file that is too short was left by a kill: it is made anew, and old prompts are misses. */
static int take_secret(const char *path, uint8_t secret[SECRET_BYTES], lc_err *err) {
    lc_buf text = {0};
    int status = lc_file_read(path, 4096, &text, err);
    bool whole = status == LC_OK && text.len >= SECRET_BYTES;
    if (whole) memcpy(secret, text.data, SECRET_BYTES);
    lc_buf_free(&text);
    if (whole || (status != LC_OK && status != LC_ENOTFOUND)) return status;
    if (getrandom(secret, SECRET_BYTES, 0) != SECRET_BYTES)
        return lc_fail(err, LC_EIO, "no random numbers");
    return lc_file_write(path, (const char *)secret, SECRET_BYTES, err);
}

int lc_server_data_hold(lc_server_data *data, lc_err *err) {
    char path[sizeof data->folder + 8];
    snprintf(path, sizeof path, "%s/secret", data->folder);
    mode_t old = umask(0077);
    int status = lc_folder_lock(data->folder, &data->lock, err);
    if (status == LC_OK) status = take_secret(path, data->secret, err);
    umask(old);
    return status;
}

void lc_server_data_close(lc_server_data *data) {
    if (data->lock >= 0) close(data->lock);
    data->lock = -1;
}

int lc_cli_bytes(const char *what, const char *text, size_t *out, lc_err *err) {
    char *end;
    double value = strtod(text, &end);
    const char *units = "kmgt", *unit = *end ? strchr(units, tolower((unsigned char)*end)) : NULL;
    if (unit) {
        for (const char *p = units; p <= unit; p++) value *= 1024;
        end++;
    }
    if (end == text || *end || !(value >= 0) || value > 1e15)
        return lc_fail(err, LC_EINVAL, "%s: \"%s\" is no size such as 512M or 10G", what, text);
    *out = (size_t)value;
    return LC_OK;
}

/* ---- the config file ---- */

static char *trim(char *text) {
    while (isspace((unsigned char)*text)) text++;
    size_t n = strlen(text);
    while (n && isspace((unsigned char)text[n - 1])) text[--n] = 0;
    return text;
}

/* A value as it stands, or between quotes. */
static char *value_of(char *text) {
    size_t n;
    text = trim(text);
    n = strlen(text);
    if (n < 2 || text[0] != '"' || text[n - 1] != '"') return text;
    text[n - 1] = 0;
    return text + 1;
}

/* "name = value" or "flag"; where: "FILE:LINE: ". */
static bool take_line(const lc_opt *options, const char *where, char *line) {
    char *hash = strchr(line, '#');
    if (hash) *hash = 0;
    char *equal = strchr(line, '=');
    if (equal) *equal = 0;
    const char *name = trim(line), *value = equal ? value_of(equal + 1) : NULL;
    if (!*name && !equal) return true;
    const lc_opt *o = options;
    while (o->name && strcmp(o->name, name) != 0) o++;
    if (!o->name || !strcmp(name, "config")) {
        fprintf(stderr, "longcat: %sthere is no option \"%s\"\n", where, name);
        return false;
    }
    if (value || o->kind == LC_OPT_FLAG) return lc_cli_store(o, where, value);
    fprintf(stderr, "longcat: %s%s needs a value\n", where, name);
    return false;
}

static int read_config(lc_cli_config *c, const lc_opt *options) {
    lc_err err = {0};
    if (lc_file_read(c->path, 1 << 20, &c->text, &err) != LC_OK) return lc_cli_fail(&err);
    char *rest = c->text.data;
    int code = -1;
    for (int n = 1; code < 0 && rest; n++) {
        char where[PATH_MAX + 32];
        snprintf(where, sizeof where, "%s:%d: ", c->path, n);
        if (!take_line(options, where, strsep(&rest, "\n"))) code = LC_EXIT_USAGE;
    }
    return code;
}

/* What the command line says of a list is all of it: the file adds nothing. */
static void close_lists(const lc_opt *o) {
    for (; o->name; o++)
        if (o->kind == LC_OPT_LIST) {
            lc_opt_list *list = o->target;
            list->closed = list->count > 0;
        }
}

static void empty_closed_lists(const lc_opt *o) {
    for (; o->name; o++)
        if (o->kind == LC_OPT_LIST) {
            lc_opt_list *list = o->target;
            if (list->closed) *list = (lc_opt_list){0};
        }
}

int lc_cli_parse_config(const lc_usage *usage, int argc, char **argv, lc_cli_config *config,
                        const char **args, int *n_args) {
    int code = lc_cli_parse(usage, argc, argv, args, n_args);
    if (code >= 0 || !config->path) return code;
    close_lists(usage->options);
    code = read_config(config, usage->options);
    empty_closed_lists(usage->options);
    return code < 0 ? lc_cli_parse(usage, argc, argv, args, n_args) : code;
}
