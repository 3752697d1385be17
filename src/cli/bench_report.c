/* bench_report.c: tables and JSON of `longcat bench`; see bench.h. */
#include "cli/bench.h"

#include "base/cpu.h"
#include "cli/progress.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#ifdef __clang__
#define COMPILER __VERSION__
#else
#define COMPILER "gcc " __VERSION__
#endif

static void put_text(struct json_object *o, const char *key, const char *text) {
    json_object_object_add(o, key, json_object_new_string(text));
}

/* Whole numbers without a fraction, others to 9 digits; NAN is null. */
static struct json_object *json_number(double value) {
    char text[40];
    if (!isfinite(value)) return NULL;
    if (value == floor(value) && fabs(value) < 0x1p53) return json_object_new_int64((int64_t)value);
    snprintf(text, sizeof text, "%.9g", value);
    return json_object_new_double_s(value, text);
}

static struct json_object *json_machine(int threads) {
    struct json_object *o = json_object_new_object(), *isas = json_object_new_array();
    put_text(o, "cpu", lc_cpu_model());
    json_object_object_add(o, "cpus", json_object_new_int(lc_cpu_count()));
    json_object_object_add(o, "threads", json_object_new_int(threads));
    json_object_object_add(o, "memory", json_number((double)lc_cpu_memory()));
    for (int isa = 0; isa < LC_ISA_COUNT; isa++)
        if (lc_cpu_has((lc_isa)isa))
            json_object_array_add(isas, json_object_new_string(lc_isa_name((lc_isa)isa)));
    json_object_object_add(o, "isas", isas);
    put_text(o, "bf16_products", lc_kernels_fastest(NULL)->bf16.name);
    put_text(o, "longcat", LC_VERSION);
    put_text(o, "compiler", COMPILER);
    return o;
}

int lc_bench_begin(lc_bench_report *r, bool json, const char *what, int threads, lc_err *err) {
    *r = (lc_bench_report){.json = json};
    if (json) {
        r->root = json_object_new_object();
        if (!r->root) return lc_fail(err, LC_ENOMEM, "report: out of memory");
        put_text(r->root, "report", what);
        json_object_object_add(r->root, "machine", json_machine(threads));
        return LC_OK;
    }
    char memory[32];
    printf("longcat %s, %s\n%s, %d CPUs, %s of RAM, %d thread%s measured; has", LC_VERSION,
           COMPILER, lc_cpu_model(), lc_cpu_count(), lc_show_bytes(memory, (double)lc_cpu_memory()),
           threads, threads == 1 ? "" : "s");
    for (int isa = 0; isa < LC_ISA_COUNT; isa++)
        if (lc_cpu_has((lc_isa)isa)) printf(" %s", lc_isa_name((lc_isa)isa));
    printf("; fastest BF16 products: %s\n", lc_kernels_fastest(NULL)->bf16.name);
    return LC_OK;
}

void lc_bench_fact(lc_bench_report *r, const char *key, double value, const char *fmt, ...) {
    if (r->json) {
        json_object_object_add(r->root, key, json_number(value));
        return;
    }
    va_list args;
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

void lc_bench_note(lc_bench_report *r, const char *fmt, ...) {
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!r->json) {
        puts(text);
        fflush(stdout);
        return;
    }
    struct json_object *notes;
    if (!json_object_object_get_ex(r->root, "notes", &notes)) {
        notes = json_object_new_array();
        json_object_object_add(r->root, "notes", notes);
    }
    json_object_array_add(notes, json_object_new_string(text));
}

/* Columns to the left keep away from the number before them. */
static void print_cell(const lc_bench_report *r, size_t i, const char *text) {
    const lc_column *c = &r->columns[i];
    printf("%s%*s", i && c->width < 0 ? "  " : "", c->width, text);
}

void lc_bench_table(lc_bench_report *r, const char *key, const char *title,
                    const lc_column *columns, size_t n) {
    r->columns = columns;
    r->n_columns = n;
    if (r->json) {
        if (json_object_object_get_ex(r->root, key, &r->rows)) return;
        r->rows = json_object_new_array();
        json_object_object_add(r->root, key, r->rows);
        return;
    }
    printf("\n%s%s", title ? title : "", title ? "\n" : "");
    for (size_t i = 0; i < n; i++)
        if (columns[i].title) print_cell(r, i, columns[i].title);
    putchar('\n');
    fflush(stdout);
}

void lc_bench_limits(lc_bench_report *r, double read_rate, const lc_limits *limits) {
    lc_bench_fact(r, "read_bytes_per_s", read_rate, "\nLimits, same threads: memory %.1f GB/s",
                  read_rate / 1e9);
    if (!r->json) {
        for (size_t i = 0; i < limits->n; i++)
            printf("%s%s %.1f Gop/s", i ? ", " : "", limits->peaks[i]->name,
                   limits->rates[i] / 1e9);
        putchar('\n');
        return;
    }
    struct json_object *o = json_object_new_object();
    for (size_t i = 0; i < limits->n; i++)
        json_object_object_add(o, limits->peaks[i]->name, json_number(limits->rates[i]));
    json_object_object_add(r->root, "ops_per_s", o);
}

void lc_bench_row(lc_bench_report *r, const lc_cell *cells) {
    if (r->json) {
        struct json_object *row = json_object_new_object();
        for (size_t i = 0; i < r->n_columns; i++)
            if (r->columns[i].key)
                json_object_object_add(row, r->columns[i].key,
                                       cells[i].text ? json_object_new_string(cells[i].text)
                                                     : json_number(cells[i].number));
        json_object_array_add(r->rows, row);
        return;
    }
    for (size_t i = 0; i < r->n_columns; i++) {
        const lc_column *c = &r->columns[i];
        char text[64] = "-";
        if (!c->title) continue;
        if (!cells[i].text && !isnan(cells[i].number))
            snprintf(text, sizeof text, "%.*f", c->decimals,
                     c->unit > 0 ? cells[i].number / c->unit : cells[i].number);
        print_cell(r, i, cells[i].text ? cells[i].text : text);
    }
    putchar('\n');
    fflush(stdout);
}

void lc_bench_end(lc_bench_report *r) {
    if (r->json)
        puts(json_object_to_json_string_ext(r->root, JSON_C_TO_STRING_PRETTY |
                                                         JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(r->root);
}

const char *lc_bench_bar(char *out, size_t width, double value, double full) {
    double share = full > 0 ? value / full : 0;
    size_t n = (size_t)(share * (double)width + 0.5);
    if (n > width) n = width;
    memset(out, '#', n);
    memset(out + n, ' ', width - n);
    out[width] = 0;
    return out;
}
