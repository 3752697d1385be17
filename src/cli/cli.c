/* cli.c: option parsing over getopt_long, generated help, line input. */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LC_MAX_OPTIONS = 64, LC_LONG_ONLY = 256 };
enum { COLUMNS = 80, SYNOPSIS_AT = 7, NAME_MOST = 22 }; /* of help */

/* ---- help ---- */

/* Prints words; the cursor stands at column `at`, lines behind the first one begin at `indent`. */
static void print_words(const char *text, size_t len, int at, int indent) {
    const char *end = text + len;
    for (bool first = true;; first = false) {
        while (text < end && (*text == ' ' || *text == '\n')) text++;
        int n = 0;
        while (text + n < end && text[n] != ' ' && text[n] != '\n') n++;
        if (!n) break;
        if (!first && at + 1 + n > COLUMNS) {
            printf("\n%*s", indent, "");
            at = indent;
            first = true;
        }
        at += printf("%s%.*s", first ? "" : " ", n, text);
        text += n;
    }
    putchar('\n');
}

/* Lines that are indented or hold a wide gap are printed as they are. */
static bool is_prose(const char *line, size_t len) {
    return len && *line != ' ' && !memmem(line, len, "  ", 2);
}

static void print_text(const char *text) {
    while (*text) {
        size_t n = strcspn(text, "\n");
        if (is_prose(text, n)) {
            for (size_t more;
                 text[n] && is_prose(text + n + 1, more = strcspn(text + n + 1, "\n"));)
                n += 1 + more;
            print_words(text, n, 0, 0);
        } else {
            printf("%.*s\n", (int)n, text);
        }
        text += n + (text[n] == '\n');
    }
}

static int name_width(const lc_opt *o) {
    return (int)strlen(o->name) + (o->arg ? (int)strlen(o->arg) + 1 : 0);
}

static void print_option(const lc_opt *o, int column) {
    int used = printf("  %c%c%c --%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
                      o->letter ? ',' : ' ', o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    if (used + 2 > column) {
        putchar('\n');
        used = 0;
    }
    printf("%*s", column - used, "");
    print_words(o->help, strlen(o->help), column, column);
}

static void print_help(const lc_usage *usage) {
    const char *prefix = "usage: ";
    for (const char *line = usage->synopsis; *line;) {
        size_t n = strcspn(line, "\n");
        printf("%*s", SYNOPSIS_AT, prefix);
        print_words(line, n, SYNOPSIS_AT, SYNOPSIS_AT + 4);
        line += n + (line[n] == '\n');
        prefix = "";
    }
    putchar('\n');
    print_text(usage->description);
    int width = 4; /* "help" */
    for (const lc_opt *o = usage->options; o->name; o++)
        if (name_width(o) > width && name_width(o) <= NAME_MOST) width = name_width(o);
    printf("\noptions:\n");
    for (const lc_opt *o = usage->options; o->name; o++) print_option(o, width + 10);
    printf("      --help%*sshow this text\n", width - 2, "");
}

/* ---- options ---- */

bool lc_cli_store(const lc_opt *o, const char *where, const char *text) {
    char *end = NULL;
    errno = 0;
    if (o->kind == LC_OPT_FLAG) {
        if (text && strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
            fprintf(stderr, "longcat: %s%s: \"%s\" is neither true nor false\n", where, o->name,
                    text);
            return false;
        }
        *(bool *)o->target = !text || !strcmp(text, "true");
    } else if (o->kind == LC_OPT_STRING) {
        *(const char **)o->target = text;
    } else if (o->kind == LC_OPT_LIST) {
        lc_opt_list *list = o->target;
        if (list->closed) return true;
        if (list->count == sizeof list->items / sizeof *list->items) {
            fprintf(stderr, "longcat: %s%s may be given at most %zu times\n", where, o->name,
                    list->count);
            return false;
        }
        list->items[list->count++] = text;
    } else if (o->kind == LC_OPT_INT) {
        long long v = strtoll(text, &end, 10);
        if (errno || end == text || *end || (double)v < o->min || (double)v > o->max) {
            fprintf(stderr, "longcat: %s%s: \"%s\" is not a whole number from %.0f to %.0f\n",
                    where, o->name, text, o->min, o->max);
            return false;
        }
        *(int64_t *)o->target = v;
    } else {
        double v = strtod(text, &end);
        if (errno || end == text || *end || !isfinite(v) || v < o->min || v > o->max) {
            fprintf(stderr, "longcat: %s%s: \"%s\" is not a number from %g to %g\n", where, o->name,
                    text, o->min, o->max);
            return false;
        }
        *(double *)o->target = v;
    }
    return true;
}

int lc_cli_parse(const lc_usage *usage, int argc, char **argv, const char **args, int *n_args) {
    struct option longs[LC_MAX_OPTIONS + 2] = {0};
    char shorts[3 * LC_MAX_OPTIONS] = "-:"; /* "-": positional arguments come as option 1 */
    int n = 0;
    for (const lc_opt *o = usage->options; o->name; o++, n++) {
        longs[n] = (struct option){o->name, o->arg ? required_argument : no_argument, NULL,
                                   LC_LONG_ONLY + n};
        if (o->letter) {
            size_t used = strlen(shorts);
            shorts[used] = o->letter;
            if (o->arg) shorts[used + 1] = ':';
        }
    }
    longs[n] = (struct option){"help", no_argument, NULL, LC_LONG_ONLY + n};
    *n_args = 0;
    bool too_many = false;
    optind = 0;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (c == 1) {
            if (*n_args < usage->max_args)
                args[(*n_args)++] = optarg;
            else
                too_many = true;
            continue;
        }
        if (c == LC_LONG_ONLY + n) {
            print_help(usage);
            return LC_EXIT_OK;
        }
        const lc_opt *found = NULL;
        if (c >= LC_LONG_ONLY)
            found = &usage->options[c - LC_LONG_ONLY];
        else
            for (const lc_opt *o = usage->options; o->name; o++)
                if (o->letter == c) found = o;
        if (!found || c == '?' || c == ':') {
            const char *problem = c == ':' ? "needs a value" : "is unknown or takes no value";
            fprintf(stderr, "longcat: option %s %s\nusage: %s\n", argv[optind - 1], problem,
                    usage->synopsis);
            return LC_EXIT_USAGE;
        }
        if (!lc_cli_store(found, "--", optarg)) return LC_EXIT_USAGE;
    }
    for (; optind < argc; optind++) {
        if (*n_args < usage->max_args)
            args[(*n_args)++] = argv[optind];
        else
            too_many = true;
    }
    if (too_many || *n_args < usage->min_args) {
        fprintf(stderr, "longcat: too %s arguments\nusage: %s\n", too_many ? "many" : "few",
                usage->synopsis);
        return LC_EXIT_USAGE;
    }
    return -1;
}

int lc_cli_need(const char *value, const char *option) {
    if (value) return -1;
    fprintf(stderr, "longcat: %s is needed\n", option);
    return LC_EXIT_USAGE;
}

int lc_cli_fail(const lc_err *err) {
    fprintf(stderr, "longcat: %s\n", err->text);
    return LC_EXIT_FAILED;
}

bool lc_cli_line(FILE *file, lc_buf *buf) {
    lc_buf_clear(buf);
    int c = getc_unlocked(file);
    if (c == EOF) return false;
    for (; c != EOF && c != '\n'; c = getc_unlocked(file))
        if (!lc_buf_putc(buf, (char)c)) return false;
    return lc_buf_reserve(buf, 0);
}

int lc_cli_ids(const char *what, const char *text, lc_ids *out, lc_err *err) {
    for (const char *p = text + strspn(text, " "); *p;) {
        char *end;
        errno = 0;
        long id = strtol(p, &end, 10);
        if (errno || end == p || id < 0 || id > INT32_MAX || (*end && !strchr(", ", *end)))
            return lc_fail(err, LC_EINVAL, "%s: \"%.40s\" is no list of numbers such as 1,2,3",
                           what, text);
        if (!lc_ids_push(out, (int32_t)id))
            return lc_fail(err, LC_ENOMEM, "%s: out of memory", what);
        p = end + strspn(end, " ");
        if (*p == ',') p += 1 + strspn(p + 1, " ");
    }
    return LC_OK;
}

int lc_cli_stdin(size_t limit, lc_buf *text, lc_err *err) {
    size_t got, start = text->len;
    do {
        if (!lc_buf_reserve(text, 65536))
            return lc_fail(err, LC_ENOMEM, "standard input: out of memory");
        got = fread(text->data + text->len, 1, 65536, stdin);
        text->len += got;
        text->data[text->len] = 0;
    } while (got && text->len - start <= limit);
    if (text->len - start > limit)
        return lc_fail(err, LC_ELIMIT, "standard input: more than %zu bytes", limit);
    return ferror(stdin) ? lc_fail_errno(err, LC_EIO, "reading standard input") : LC_OK;
}

bool lc_cli_put_json(lc_buf *out, const char *text, size_t len) {
    static const char named[] = "\b\t\n\f\r\"\\", letters[] = "btnfr\"\\";
    lc_buf_putc(out, '"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        const char *at = c ? strchr(named, c) : NULL;
        if (at)
            lc_buf_printf(out, "\\%c", letters[at - named]);
        else if (c < 0x20)
            lc_buf_printf(out, "\\u%04x", c);
        else
            lc_buf_putc(out, (char)c);
    }
    return lc_buf_putc(out, '"');
}

int lc_cli_filter(lc_cli_answer *answer, void *ctx) {
    lc_buf line = {0}, out = {0};
    lc_err err = {0};
    while (!out.failed && lc_cli_line(stdin, &line)) {
        lc_buf_clear(&out);
        if (answer(ctx, &line, &out, &err) != LC_OK && !out.len) {
            lc_buf_puts(&out, "{\"error\":");
            lc_cli_put_json(&out, err.text, strlen(err.text));
            lc_buf_putc(&out, '}');
        }
        lc_buf_putc(&out, '\n');
        fwrite(out.data, 1, out.len, stdout);
        fflush(stdout);
    }
    bool failed = line.failed || out.failed;
    lc_buf_free(&line);
    lc_buf_free(&out);
    if (!failed && !ferror(stdin) && !ferror(stdout)) return LC_EXIT_OK;
    lc_fail(&err, LC_EIO, failed ? "out of memory" : "input or output failed");
    return lc_cli_fail(&err);
}

static void print_subcommands(FILE *out, const char *parent, const lc_subcommand *table,
                              const char *hint) {
    fprintf(out, "usage: longcat %s SUBCOMMAND [arguments]\n\nsubcommands:\n", parent);
    for (; table->name; table++) fprintf(out, "  %-9s %s\n", table->name, table->help);
    fprintf(out, "\n`longcat %s SUBCOMMAND --help` explains one.%s%s\n", parent, *hint ? "\n" : "",
            hint);
}

int lc_cli_subcommand(const char *parent, const lc_subcommand *table, const char *hint, int argc,
                      char **argv) {
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name) {
        print_subcommands(stderr, parent, table, hint);
        return LC_EXIT_USAGE;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
        print_subcommands(stdout, parent, table, hint);
        return LC_EXIT_OK;
    }
    for (const lc_subcommand *c = table; c->name; c++)
        if (!strcmp(name, c->name)) return c->run(argc - 1, argv + 1);
    fprintf(stderr, "longcat: %s: no subcommand \"%s\"; `longcat %s --help` lists them\n", parent,
            name, parent);
    return LC_EXIT_USAGE;
}
