/* server_data.c: see server_data.h. */
#include "cli/server_data.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { LINE_BYTES = 4200 };

/* ---- the folder ---- */

static bool read_secret(const char *path, uint8_t secret[32]) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && read(fd, secret, 32) == 32;
    if (fd >= 0) close(fd);
    return ok;
}

static int make_secret(const char *path, uint8_t secret[32], lc_err *err) {
    if (getrandom(secret, 32, 0) != 32) return lc_fail(err, LC_EIO, "no random numbers");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, secret, 32) == 32 && fsync(fd) == 0;
    int why = errno;
    if (fd >= 0) close(fd);
    return ok ? LC_OK : lc_fail(err, LC_EIO, "%s: %s", path, strerror(why));
}

int lc_server_data_open(const char *given, lc_server_data *out, lc_err *err) {
    const char *base = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    char secret[LINE_BYTES];
    int n;
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
    int status = lc_make_folders(out->folder, 0700, err);
    if (status != LC_OK) return status;
    snprintf(secret, sizeof secret, "%s/secret", out->folder);
    return read_secret(secret, out->secret) ? LC_OK : make_secret(secret, out->secret, err);
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

/* "name = value" or "flag" as an argument; NULL for an empty line. */
static char *argument_of(char *line) {
    char *hash = strchr(line, '#');
    if (hash) *hash = 0;
    char *equal = strchr(line, '=');
    if (equal) *equal = 0;
    char *name = trim(line), *value = equal ? trim(equal + 1) : NULL;
    if (!*name) return NULL;
    size_t size = strlen(name) + (value ? strlen(value) : 0) + 4;
    char *out = lc_alloc(size);
    if (out) snprintf(out, size, value ? "--%s=%s" : "--%s", name, value);
    return out;
}

static int read_config(lc_cli_config *c, lc_err *err) {
    const size_t most = sizeof c->lines / sizeof *c->lines;
    lc_buf text = {0};
    int status = lc_file_read(c->path, 1 << 20, &text, err);
    char *rest = text.data;
    for (char *line; status == LC_OK && (line = strsep(&rest, "\n"));) {
        char *argument = c->n < most ? argument_of(line) : NULL;
        if (argument) c->lines[c->n++] = argument;
    }
    if (status == LC_OK && c->n == most)
        status = lc_fail(err, LC_ELIMIT, "%s: %zu options or more", c->path, most);
    lc_buf_free(&text);
    return status;
}

int lc_cli_parse_config(const lc_usage *usage, int argc, char **argv, lc_cli_config *config,
                        const char **args, int *n_args) {
    int code = lc_cli_parse(usage, argc, argv, args, n_args);
    lc_err err = {0};
    if (code >= 0 || !config->path) return code;
    if (read_config(config, &err) != LC_OK) return lc_cli_fail(&err);
    char **all = lc_calloc(config->n + (size_t)argc + 1, sizeof *all);
    if (!all) return LC_EXIT_FAILED;
    all[0] = argv[0];
    memcpy(all + 1, config->lines, config->n * sizeof *all);
    memcpy(all + 1 + config->n, argv + 1, (size_t)(argc - 1) * sizeof *all);
    code = lc_cli_parse(usage, (int)config->n + argc, all, args, n_args);
    lc_free(all);
    return code;
}

void lc_cli_config_free(lc_cli_config *config) {
    for (size_t i = 0; i < config->n; i++) lc_free(config->lines[i]);
}
