/*
 * test_structure.c: rules about the source tree itself, checked on the text of the files:
 *   1. includes point downwards only;
 *   2. no file in src/ is longer than 1,000 lines;
 *   3. nothing in src/ outside src/cli prints, exits or allocates past base/mem.h;
 *   4. no path of somebody's machine, no package host, no leftover marker.
 * A failure names file and line.
 */
#include "base/buf.h"
#include "base/file.h"
#include "test.h"

#include <ctype.h>
#include <ftw.h>
#include <unistd.h>

enum { MAX_LINES = 1000, MAX_FILES = 4096, ROOM = 64 };

/* Folders of src/ in rising order. A file includes its own folder and folders of a lower level. */
static const struct layer {
    const char *name;
    int level;
} layers[] = {
    {"base", 0},   {"kernels", 1}, {"text", 2},   {"format", 2}, {"ops", 3},
    {"model", 4},  {"store", 5},   {"engine", 6}, {"train", 7},  {"dist", 7},
    {"server", 7}, {"agent", 7},   {"plan", 7},   {"cli", 8},
};

/* Beyond the levels: pairs that are allowed all the same, and pairs that are not. */
static const char *const allowed[][2] = {{"train", "dist"}};
static const char *const forbidden[][2] = {{"train", "engine"}, {"dist", "engine"}};

/* Files of src/ that may be longer than MAX_LINES, with the reason in a comment. */
static const char *const long_files[] = {NULL};

/* Names that code outside src/cli doesn't use; calls only, so that attributes stay possible. */
static const char *const banned_calls[] = {
    "printf",     "vprintf", "puts",   "putchar", "perror",        "exit",           "_exit",
    "quick_exit", "abort",   "assert", "err",     "errx",          "warn",           "warnx",
    "gets",       "strcpy",  "strcat", "sprintf", "vsprintf",      "malloc",         "calloc",
    "realloc",    "free",    "strdup", "strndup", "aligned_alloc", "posix_memalign",
};
static const char *const banned_words[] = {"stdout", "stderr"};

/* Written in two parts so that this file passes its own test. */
static const char *const banned_texts[] = {
    "/wo"
    "rk/",
    "/ro"
    "ot/",
    "/tm"
    "p/wt",
    "/fa"
    "rm",
    "/ho"
    "me/",
    "TO"
    "DO",
    "FIX"
    "ME",
};
/* The hosts that files other than documents may name; the last one is what says that a file is SVG.
 */
static const char *const known_hosts[] = {
    "huggingface.co", "github.com", "localhost", "127.0.0.1",           "[::1]",
    "example.com",    "arxiv.org",  "doi.org",   "www.w3.org/2000/svg",
};

static struct {
    char *paths[MAX_FILES];
    size_t count;
} files;

static int collect(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st;
    static const char *const skipped[] = {"./.git", "./build", "./models", "./tests/golden"};
    for (size_t i = 0; i < sizeof skipped / sizeof *skipped; i++)
        if (strcmp(path, skipped[i]) == 0) return FTW_SKIP_SUBTREE;
    if (strstr(path, "/corpus/") || strncmp(path + at->base, "build", 5) == 0)
        return type == FTW_D ? FTW_SKIP_SUBTREE : FTW_CONTINUE;
    if (type != FTW_F) return FTW_CONTINUE;
    if (files.count == MAX_FILES) return FTW_STOP;
    files.paths[files.count] = strdup(path + 2);
    return files.paths[files.count++] ? FTW_CONTINUE : FTW_STOP;
}

static int set_up(void **state) {
    (void)state;
    int code = nftw(".", collect, 16, FTW_PHYS | FTW_ACTIONRETVAL);
    printf("# %zu files\n", files.count);
    return code == 0 && files.count > 50 ? 0 : -1; /* fewer: not the project's root */
}

static int tear_down(void **state) {
    (void)state;
    for (size_t i = 0; i < files.count; i++) free(files.paths[i]);
    return 0;
}

static bool starts_with(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool ends_with(const char *text, const char *suffix) {
    size_t a = strlen(text), b = strlen(suffix);
    return a >= b && strcmp(text + a - b, suffix) == 0;
}

static bool is_code(const char *path) {
    return ends_with(path, ".c") || ends_with(path, ".h") || ends_with(path, ".inc");
}

/* Calls check(path, text) for the chosen files; each returns how many violations it printed. */
typedef int file_check(const char *path, const char *text);

static int check_files(const char *prefix, bool code_only, file_check *check) {
    int bad = 0;
    for (size_t i = 0; i < files.count; i++) {
        if (!starts_with(files.paths[i], prefix)) continue;
        if (code_only && !is_code(files.paths[i])) continue;
        lc_buf buf = {0};
        lc_err err = {0};
        assert_ok(lc_file_read(files.paths[i], 0, &buf, &err), err);
        if (buf.data) bad += check(files.paths[i], buf.data);
        lc_buf_free(&buf);
    }
    return bad;
}

static int line_of(const char *text, const char *at) {
    int line = 1;
    for (; text < at; text++) line += *text == '\n';
    return line;
}

static int complain(const char *path, const char *text, const char *at, const char *what) {
    printf("# %s:%d: %s\n", path, line_of(text, at), what);
    return 1;
}

/* The folder of a path below src/: "kernels" for "kernels/avx2/dot.c". */
static const struct layer *layer_of(const char *below_src) {
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        size_t len = strlen(layers[i].name);
        if (strncmp(below_src, layers[i].name, len) == 0 && below_src[len] == '/')
            return &layers[i];
    }
    return NULL;
}

static bool in_pairs(const char *const pairs[][2], size_t n, const char *from, const char *to) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(pairs[i][0], from) && !strcmp(pairs[i][1], to)) return true;
    return false;
}

/* NULL when a file of folder `from` may include `name`, else the reason. */
static const char *include_fault(const struct layer *from, const char *name) {
    char path[512];
    if (strcmp(name, "longcat.h") == 0) return NULL;
    const struct layer *to = layer_of(name);
    if (!to) return "an include names its file from src/ (\"base/mem.h\")";
    snprintf(path, sizeof path, "src/%s", name);
    if (strstr(name, "..") || access(path, R_OK) != 0) return "includes a file that is not there";
    if (to == from) return NULL;
    if (in_pairs(forbidden, sizeof forbidden / sizeof *forbidden, from->name, to->name))
        return "includes a neighbour that it must not know";
    if (in_pairs(allowed, sizeof allowed / sizeof *allowed, from->name, to->name)) return NULL;
    return to->level < from->level ? NULL : "includes a folder that is not below its own";
}

static int check_includes(const char *path, const char *text) {
    const struct layer *from = layer_of(path + strlen("src/"));
    if (!from) return complain(path, text, text, "is in no known folder of src/");
    int bad = 0;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        char name[256];
        const char *p = line + strspn(line, " \t");
        if (*p++ != '#') continue;
        if (sscanf(p, " include \"%255[^\"\n]", name) != 1) continue;
        const char *fault = include_fault(from, name);
        if (fault) bad += complain(path, text, line, fault);
    }
    return bad;
}

static void includes_point_downwards(void **state) {
    (void)state;
    assert_int_equal(check_files("src/", true, check_includes), 0);
}

static int check_length(const char *path, const char *text) {
    for (size_t i = 0; long_files[i]; i++)
        if (strcmp(long_files[i], path) == 0) return 0;
    const char *end = text + strlen(text);
    return line_of(text, end) - 1 > MAX_LINES
               ? complain(path, text, end, "is longer than 1,000 lines")
               : 0;
}

static void files_are_short(void **state) {
    (void)state;
    assert_int_equal(check_files("src/", true, check_length), 0);
}

/* Replaces comments, strings and character constants by spaces, keeping the line breaks. */
static void blank_out(char *text) {
    for (char *p = text; *p;) {
        char *end = p + 1;
        if (p[0] == '/' && p[1] == '/') {
            end = p + strcspn(p, "\n");
        } else if (p[0] == '/' && p[1] == '*') {
            end = strstr(p + 2, "*/");
            end = end ? end + 2 : p + strlen(p);
        } else if (*p == '"' || *p == '\'') {
            while (*end && *end != *p && *end != '\n') end += end[0] == '\\' && end[1] ? 2 : 1;
            end += *end == *p;
        } else {
            p++;
            continue;
        }
        for (; p < end; p++)
            if (*p != '\n') *p = ' ';
    }
}

static bool name_char(char c) { return isalnum((unsigned char)c) || c == '_'; }

static bool in_list(const char *const *list, size_t n, const char *name, size_t len) {
    for (size_t i = 0; i < n; i++)
        if (strlen(list[i]) == len && strncmp(list[i], name, len) == 0) return true;
    return false;
}

/* Members may have such names (x.free, p->exit), and so may attributes: format(printf, ...). */
static int check_calls(const char *path, const char *text) {
    if (starts_with(path, "src/cli/") || strcmp(path, "src/base/mem.c") == 0) return 0;
    char *code = strdup(text);
    assert_non_null(code);
    blank_out(code);
    int bad = 0;
    for (const char *p = code; *p;) {
        if (!name_char(*p)) {
            p++;
            continue;
        }
        size_t len = 0;
        while (name_char(p[len])) len++;
        bool member = p > code && (p[-1] == '.' || (p[-1] == '>' && p - 1 > code && p[-2] == '-'));
        bool call = p[len + strspn(p + len, " ")] == '(';
        if (!member &&
            ((call && in_list(banned_calls, sizeof banned_calls / sizeof *banned_calls, p, len)) ||
             in_list(banned_words, sizeof banned_words / sizeof *banned_words, p, len))) {
            char what[ROOM + 64];
            snprintf(what, sizeof what, "uses %.*s", (int)(len < ROOM ? len : ROOM), p);
            bad += complain(path, code, p, what);
        }
        p += len;
    }
    free(code);
    return bad;
}

static void the_library_never_prints_or_exits(void **state) {
    (void)state;
    assert_int_equal(check_files("src/", true, check_calls), 0);
}

static int check_texts(const char *path, const char *text) {
    int bad = 0;
    for (size_t i = 0; i < sizeof banned_texts / sizeof *banned_texts; i++) {
        const char *at = strstr(text, banned_texts[i]);
        if (at) bad += complain(path, text, at, banned_texts[i]);
    }
    return bad;
}

static void no_paths_of_machines_and_no_markers(void **state) {
    (void)state;
    assert_int_equal(check_files("", false, check_texts), 0);
}

/* A host that could exist: it has a top-level domain, and not one that is reserved for examples. */
static bool could_exist(const char *host) {
    size_t len = strcspn(host, "/:?#\"'`) \t\n\\%<>@");
    const char *dot = memrchr(host, '.', len);
    size_t top = dot ? (size_t)(host + len - dot) - 1 : 0;
    if (top < 2) return false;
    return strncmp(dot, ".example", top + 1) != 0 && strncmp(dot, ".invalid", top + 1) != 0;
}

static int check_hosts(const char *path, const char *text) {
    if (ends_with(path, ".md") || strcmp(path, "LICENSE") == 0) return 0;
    int bad = 0;
    for (const char *p = text; (p = strstr(p, "://"));) {
        p += 3;
        if (!isalnum((unsigned char)*p)) continue; /* built at run time: "http://%s" */
        bool known = !could_exist(p);
        for (size_t i = 0; i < sizeof known_hosts / sizeof *known_hosts; i++)
            known |= starts_with(p, known_hosts[i]);
        if (!known) bad += complain(path, text, p, "names a host that is not in known_hosts");
    }
    return bad;
}

static void code_names_known_hosts_only(void **state) {
    (void)state;
    assert_int_equal(check_files("", false, check_hosts), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(includes_point_downwards),
        cmocka_unit_test(files_are_short),
        cmocka_unit_test(the_library_never_prints_or_exits),
        cmocka_unit_test(no_paths_of_machines_and_no_markers),
        cmocka_unit_test(code_names_known_hosts_only),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
