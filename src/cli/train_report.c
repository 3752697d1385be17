/*
 * train_report.c: `longcat train report RUN -o report.html`: a run's log as one page that needs
 * nothing else: curves as inline SVG, the experts' loads as a map. Long runs are averaged down to a
 * few hundred points a curve.
 */
#include "cli/train.h"

#include "base/file.h"
#include "base/json.h"
#include "train/runlog.h"

#include <math.h>
#include <string.h>

enum {
    POINTS = 400,
    STAGES_MAX = 64,
    CURVES_MAX = 24,
    WIDTH = 860,
    NAME_WIDTH = 60, /* of a stage's name */
    HEIGHT = 240,
    LEFT = 64,
    RIGHT = 12,
    TOP = 12,
    BOTTOM = 28,
    LAYERS_SHOWN = 128
};

/* Values of one key, a number a step; NAN where the log has none. */
typedef struct curve {
    const char *key, *label;
    double *values;
    bool present;
} curve;

static const char *const keys[][2] = {
    {"lm", "next token"},
    {"mtp.1", "draft 1"},
    {"mtp.2", "draft 2"},
    {"mtp.3", "draft 3"},
    {"held_out", "held out"},
    {"objective", "objective"},
    {"balance", "balance"},
    {"router_z", "router z"},
    {"hidden_z", "hidden z"},
    {"kl", "index KL"},
    {"rate", "learning rate"},
    {"grad_norm", "gradient norm"},
    {"tokens_s", "tokens/s"},
    {"flop_s", "flop/s"},
    {"routed", "routed experts a token"},
    {"load_high", "most loaded"},
    {"load_low", "least loaded"},
    {"active", "active parameters"},
    {"seconds", "seconds"},
    {"tokens", "tokens"},
};
enum { KEYS = sizeof keys / sizeof *keys };

typedef struct report {
    size_t n, room; /* steps */
    curve curves[CURVES_MAX];
    struct {
        char name[LC_RECIPE_NAME];
        size_t first; /* step's place */
    } stages[STAGES_MAX];
    size_t n_stages;
    struct json_object *loads; /* the last ones */
    int64_t loads_step;
} report;

/* ---- reading ---- */

static curve *find(report *r, const char *key) {
    for (size_t i = 0; i < KEYS; i++)
        if (!strcmp(r->curves[i].key, key)) return &r->curves[i];
    return NULL;
}

static bool more_room(report *r) {
    if (r->n < r->room) return true;
    size_t room = r->room ? 2 * r->room : 1024;
    for (size_t i = 0; i < KEYS; i++) {
        double *more = lc_realloc(r->curves[i].values, room, sizeof *more);
        if (!more) return false;
        r->curves[i].values = more;
    }
    r->room = room;
    return true;
}

static void note_stage(report *r, struct json_object *line) {
    struct json_object *stage;
    if (!json_object_object_get_ex(line, "stage", &stage) || r->n_stages == STAGES_MAX) return;
    const char *name = json_object_get_string(stage);
    if (!name || (r->n_stages && !strcmp(r->stages[r->n_stages - 1].name, name))) return;
    snprintf(r->stages[r->n_stages].name, LC_RECIPE_NAME, "%s", name);
    r->stages[r->n_stages++].first = r->n;
}

static int add_step(report *r, struct json_object *line, lc_err *err) {
    struct json_object *value;
    if (!more_room(r)) return lc_fail(err, LC_ENOMEM, "report: out of memory");
    for (size_t i = 0; i < KEYS; i++) {
        bool there = json_object_object_get_ex(line, keys[i][0], &value) && value;
        r->curves[i].values[r->n] = there ? json_object_get_double(value) : NAN;
        r->curves[i].present |= there && json_object_get_double(value) != 0;
    }
    note_stage(r, line);
    if (json_object_object_get_ex(line, "loads", &value) &&
        json_object_is_type(value, json_type_array)) {
        json_object_put(r->loads);
        r->loads = json_object_get(value);
        if (json_object_object_get_ex(line, "step", &value))
            r->loads_step = json_object_get_int64(value);
    }
    r->n++;
    return LC_OK;
}

/* A held-out loss belongs to the step before it. */
static void add_eval(report *r, struct json_object *line) {
    struct json_object *value;
    curve *c = find(r, "held_out");
    if (!r->n || !json_object_object_get_ex(line, "held_out", &value) || !value) return;
    c->values[r->n - 1] = json_object_get_double(value);
    c->present = true;
}

static int read_log(const char *path, report *r, lc_err *err) {
    lc_buf text = {0};
    int status = lc_file_read(path, 0, &text, err);
    for (size_t at = 0; status == LC_OK && at < text.len;) {
        const char *end = memchr(text.data + at, '\n', text.len - at);
        size_t len = end ? (size_t)(end - text.data) - at : text.len - at;
        struct json_object *line = NULL;
        if (!end) break; /* being written */
        status = lc_json_parse(text.data + at, len, path, &line, err);
        if (status == LC_OK && json_object_is_type(line, json_type_object)) {
            if (json_object_object_get_ex(line, "eval", NULL))
                add_eval(r, line);
            else
                status = add_step(r, line, err);
        }
        json_object_put(line);
        at += len + 1;
    }
    lc_buf_free(&text);
    if (status == LC_OK && !r->n) status = lc_fail(err, LC_EFORMAT, "%s: has no steps", path);
    return status;
}

/* ---- charts ---- */

/* Text from a file into HTML. */
static void put_text(lc_buf *out, const char *text) {
    for (; *text; text++) {
        if (*text == '<')
            lc_buf_puts(out, "&lt;");
        else if (*text == '&')
            lc_buf_puts(out, "&amp;");
        else
            lc_buf_putc(out, *text);
    }
}

/* 1234567 -> 1.23M */
static void put_number(lc_buf *out, double x) {
    static const struct {
        double size;
        const char *letter;
    } units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
    for (size_t i = 0; i < 4; i++)
        if (fabs(x) >= units[i].size) {
            lc_buf_printf(out, "%.3g%s", x / units[i].size, units[i].letter);
            return;
        }
    lc_buf_printf(out, "%.3g", x);
}

typedef struct chart {
    report *r;
    const char *title, *const *keys; /* ends with NULL */
    bool log_scale, from_zero;
    double low, high, last; /* y range (of logarithms, with log_scale), last x */
} chart;

static double y_value(const chart *c, double v) {
    return c->log_scale ? (v > 0 ? log10(v) : NAN) : v;
}

/* Mean of bucket `b` of POINTS; NAN if it is empty. */
static double bucket(const report *r, const curve *c, size_t b, size_t points) {
    size_t from = b * r->n / points, to = (b + 1) * r->n / points, n = 0;
    double sum = 0;
    for (size_t i = from; i < to; i++)
        if (isfinite(c->values[i])) {
            sum += c->values[i];
            n++;
        }
    return n ? sum / (double)n : NAN;
}

static size_t points_of(const report *r) { return r->n < POINTS ? r->n : POINTS; }

static bool take_range(chart *c) {
    size_t points = points_of(c->r);
    c->low = INFINITY;
    c->high = -INFINITY;
    for (size_t k = 0; c->keys[k]; k++) {
        const curve *x = find(c->r, c->keys[k]);
        for (size_t b = 0; x->present && b < points; b++) {
            double y = y_value(c, bucket(c->r, x, b, points));
            if (y < c->low) c->low = y;
            if (y > c->high) c->high = y;
        }
    }
    if (!(c->low <= c->high)) return false;
    if (c->from_zero && c->low > 0) c->low = 0;
    double space = c->high > c->low ? 0.05 * (c->high - c->low) : 0.5 * fabs(c->high) + 1e-9;
    c->high += space;
    if (!c->from_zero) c->low -= space;
    c->last = find(c->r, "tokens")->values[c->r->n - 1];
    if (!(c->last > 0)) c->last = 1;
    return true;
}

static double x_of(const chart *c, size_t step) {
    double tokens = find(c->r, "tokens")->values[step];
    return LEFT + (WIDTH - LEFT - RIGHT) * tokens / c->last;
}
static double y_of(const chart *c, double y) {
    return TOP + (HEIGHT - TOP - BOTTOM) * (c->high - y) / (c->high - c->low);
}

static void put_axes(const chart *c, lc_buf *out) {
    double raw = (c->high - c->low) / 4, unit = pow(10, floor(log10(raw)));
    double step = raw / unit < 1.5   ? unit
                  : raw / unit < 3.5 ? 2 * unit
                  : raw / unit < 7.5 ? 5 * unit
                                     : 10 * unit;
    for (long i = lround(ceil(c->low / step)); (double)i * step <= c->high; i++) {
        double v = (double)i * step;
        lc_buf_printf(out, "<path class=g d=\"M%d %.1fH%d\"/><text class=y x=%d y=%.1f>", LEFT,
                      y_of(c, v), WIDTH - RIGHT, LEFT - 6, y_of(c, v) + 4);
        put_number(out, c->log_scale ? pow(10, v) : fabs(v) < step / 1e6 ? 0 : v);
        lc_buf_puts(out, "</text>");
    }
    for (int i = 0; i <= 4; i++) {
        lc_buf_printf(out, "<text class=x x=%d y=%d>", LEFT + (WIDTH - LEFT - RIGHT) * i / 4,
                      HEIGHT - 8);
        put_number(out, c->last * i / 4);
        lc_buf_puts(out, "</text>");
    }
    double named = -WIDTH; /* where the last name in the first line stands */
    for (size_t i = 0; i < c->r->n_stages; i++) {
        double x = c->r->stages[i].first ? x_of(c, c->r->stages[i].first - 1) : LEFT;
        bool second_line = x - named < NAME_WIDTH;
        if (!second_line) named = x;
        lc_buf_printf(out, "<path class=s d=\"M%.1f %dV%d\"/><text class=s x=%.1f y=%d>", x, TOP,
                      HEIGHT - BOTTOM, x + 4, TOP + (second_line ? 22 : 10));
        put_text(out, c->r->stages[i].name);
        lc_buf_puts(out, "</text>");
    }
}

static void put_curve(const chart *c, const curve *x, size_t colour, lc_buf *out) {
    size_t points = points_of(c->r), marks = 0;
    bool dots = !strcmp(x->key, "held_out");
    if (!dots) lc_buf_printf(out, "<path class=\"l c%zu\" d=\"", colour);
    for (size_t b = 0; b < points; b++) {
        double y = y_value(c, bucket(c->r, x, b, points));
        size_t step = (b + 1) * c->r->n / points - 1;
        if (!isfinite(y)) continue;
        if (dots)
            lc_buf_printf(out, "<circle class=\"d c%zu\" cx=%.1f cy=%.1f r=3 />", colour,
                          x_of(c, step), y_of(c, y));
        else
            lc_buf_printf(out, "%c%.1f %.1f", marks++ ? 'L' : 'M', x_of(c, step), y_of(c, y));
    }
    if (!dots) lc_buf_puts(out, "\"/>");
}

static double last_of(const report *r, const curve *x) {
    for (size_t i = r->n; i-- > 0;)
        if (isfinite(x->values[i])) return x->values[i];
    return NAN;
}

static void put_chart(report *r, chart c, lc_buf *out) {
    c.r = r;
    if (!take_range(&c)) return;
    lc_buf_printf(out, "<h2>%s</h2><p class=legend>", c.title);
    for (size_t k = 0; c.keys[k]; k++) {
        const curve *x = find(r, c.keys[k]);
        if (!x->present) continue;
        lc_buf_printf(out, "<span class=\"k c%zu\"></span>%s, last ", k, x->label);
        put_number(out, last_of(r, x));
        lc_buf_puts(out, " &nbsp; ");
    }
    lc_buf_printf(out, "</p><svg viewBox=\"0 0 %d %d\" role=img aria-label=\"%s\">", WIDTH, HEIGHT,
                  c.title);
    put_axes(&c, out);
    for (size_t k = 0; c.keys[k]; k++)
        if (find(r, c.keys[k])->present) put_curve(&c, find(r, c.keys[k]), k, out);
    lc_buf_puts(out, "</svg>\n");
}

/* ---- loads ---- */

/* A row a layer, a cell an entry; the darker, the more tokens. */
static void put_loads(const report *r, lc_buf *out) {
    size_t layers = json_object_array_length(r->loads);
    if (layers > LAYERS_SHOWN) layers = LAYERS_SHOWN;
    lc_buf_printf(out,
                  "<h2>Tokens by expert, step %lld</h2><p class=legend>a row a layer, identity "
                  "experts last; the number is the load over the mean of the row</p><table>",
                  (long long)r->loads_step);
    for (size_t i = 0; i < layers; i++) {
        struct json_object *row = json_object_array_get_idx(r->loads, i);
        if (!json_object_is_type(row, json_type_array)) continue;
        size_t n = json_object_array_length(row);
        double sum = 0;
        for (size_t e = 0; e < n; e++)
            sum += json_object_get_double(json_object_array_get_idx(row, e));
        lc_buf_printf(out, "<tr><th>%zu</th>", i);
        for (size_t e = 0; e < n && sum > 0; e++) {
            double load =
                json_object_get_double(json_object_array_get_idx(row, e)) * (double)n / sum;
            lc_buf_printf(out, "<td style=\"--v:%.2f\">%s", load < 2 ? load / 2 : 1.0, "");
            if (n <= 32) lc_buf_printf(out, "%.2f", load);
            lc_buf_puts(out, "</td>");
        }
        lc_buf_puts(out, "</tr>");
    }
    lc_buf_puts(out, "</table>\n");
}

/* ---- the page ---- */

static const char head[] =
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
    "content=\"width=device-width\"><style>"
    ":root{--ink:#1c1e21;--dim:#6b7280;--line:#e3e5e8;--paper:#fff;color-scheme:light dark}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e7e9;--dim:#9aa1ab;--line:#33373d;"
    "--paper:#17191c}}"
    "body{font:14px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);"
    "max-width:900px;margin:2em auto;padding:0 1em}h1{font-size:22px}h2{font-size:16px;"
    "margin:1.6em 0 0}svg{width:100%;height:auto;overflow:visible}"
    "text{font-size:11px;fill:var(--dim)}"
    "text.y{text-anchor:end}text.x{text-anchor:middle}path{fill:none}path.g{stroke:var(--line)}"
    "path.s{stroke:var(--dim);stroke-dasharray:2 3}path.l{stroke:var(--c);stroke-width:1.6}"
    ".d{fill:var(--c)}.k{display:inline-block;width:.8em;height:.8em;background:var(--c);"
    "border-radius:2px;margin-right:.4em}.legend{color:var(--dim);margin:0}"
    ".c0{--c:#2563eb}.c1{--c:#d97706}.c2{--c:#059669}.c3{--c:#dc2626}.c4{--c:#7c3aed}"
    ".c5{--c:#64748b}table{border-spacing:1px;font-size:10px}th{color:var(--dim);"
    "font-weight:400;padding-right:.6em}td{min-width:10px;height:14px;text-align:center;"
    "background:color-mix(in srgb,#2563eb calc(var(--v)*90%),var(--paper))}</style>";

static void put_summary(report *r, const char *run, lc_buf *out) {
    double seconds = 0;
    const curve *s = find(r, "seconds");
    char time[32];
    for (size_t i = 0; i < r->n; i++) seconds += isfinite(s->values[i]) ? s->values[i] : 0;
    lc_buf_puts(out, "<title>");
    put_text(out, run);
    lc_buf_puts(out, "</title><h1>");
    put_text(out, run);
    lc_buf_printf(out, "</h1><p>%zu steps, ", r->n);
    put_number(out, find(r, "tokens")->values[r->n - 1]);
    lc_buf_printf(out, " tokens, %s of training. Curves over tokens.</p>\n",
                  lc_show_time(time, seconds));
}

static int write_page(report *r, const char *run, const char *path, lc_err *err) {
    static const char *const losses[] = {"lm", "mtp.1", "mtp.2", "mtp.3", "held_out", NULL};
    static const char *const others[] = {"balance", "router_z", "hidden_z", "kl", NULL};
    static const char *const rate[] = {"rate", NULL}, *const norm[] = {"grad_norm", NULL};
    static const char *const speed[] = {"tokens_s", NULL}, *const flops[] = {"flop_s", NULL};
    static const char *const routed[] = {"routed", NULL};
    static const char *const load[] = {"load_high", "load_low", NULL};
    static const char *const active[] = {"active", NULL};
    const chart charts[] = {
        {.title = "Loss, nats a token", .keys = losses},
        {.title = "Other losses", .keys = others, .log_scale = true},
        {.title = "Learning rate", .keys = rate, .from_zero = true},
        {.title = "Gradient norm", .keys = norm, .log_scale = true},
        {.title = "Throughput, tokens/s", .keys = speed, .from_zero = true},
        {.title = "Throughput, flop/s", .keys = flops, .from_zero = true},
        {.title = "Routed experts a token", .keys = routed},
        {.title = "Active parameters a token", .keys = active},
        {.title = "Load of the most and the least loaded expert, over the mean",
         .keys = load,
         .from_zero = true},
    };
    lc_buf out = {0};
    lc_buf_puts(&out, head);
    put_summary(r, run, &out);
    for (size_t i = 0; i < sizeof charts / sizeof *charts; i++) put_chart(r, charts[i], &out);
    if (r->loads) put_loads(r, &out);
    lc_buf_puts(&out, "</html>\n");
    int status = out.failed ? lc_fail(err, LC_ENOMEM, "report: out of memory")
                            : lc_file_write(path, out.data, out.len, err);
    lc_buf_free(&out);
    return status;
}

int lc_train_report_cmd(int argc, char **argv) {
    const char *out = NULL;
    const lc_opt options[] = {
        {"output", 'o', LC_OPT_STRING, &out, "FILE", "the page to write, e.g. report.html", 0, 0},
        {0}};
    const lc_usage usage = {
        "longcat train report RUN -o report.html",
        "Makes one HTML page of a run's log: losses, learning rate, throughput, expert load, "
        "active\nparameters per token. The page holds everything that it shows.",
        options, 1, 1};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0 || (code = lc_cli_need(out, "--output")) >= 0) return code;
    lc_err err = {0};
    lc_buf path = {0};
    report *r = lc_calloc(1, sizeof *r);
    for (size_t i = 0; r && i < KEYS; i++)
        r->curves[i] = (curve){.key = keys[i][0], .label = keys[i][1]};
    int status = r && lc_buf_printf(&path, "%s/" LC_RUNLOG_NAME, args[0])
                     ? read_log(path.data, r, &err)
                     : lc_fail(&err, LC_ENOMEM, "report: out of memory");
    if (status == LC_OK) status = lc_make_parents(out, 0777, &err);
    if (status == LC_OK) status = write_page(r, args[0], out, &err);
    if (status == LC_OK) printf("%s: %zu steps\n", out, r->n);
    for (size_t i = 0; r && i < KEYS; i++) lc_free(r->curves[i].values);
    if (r) json_object_put(r->loads);
    lc_free(r);
    lc_buf_free(&path);
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
