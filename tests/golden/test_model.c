/*
 * test_model.c: every entry of every case in tests/golden/model against the library, in f32: each
 * activation, router and index choice, logits, greedy continuations, teacher-forced and chained
 * drafts, packed documents, short sequences, every switch. The last test of a case fails if an
 * entry was looked at by nobody.
 *
 * The bf16 compute type is compared with the same numbers row by row; see test_bf16.
 */
#include "golden.h"

#define ROOT "tests/golden/model/"

enum { CHUNK = 32, DRAFTS = 3 };

typedef struct model_case {
    const char *name;
    golden g;
    double limit;
    unsigned compared, above, bad; /* entries; above twice the reference's error; that failed */
} model_case;

static model_case cases[] = {
    {.name = "flash-tiny"},    {.name = "flash-yarn"},  {.name = "int8"},    {.name = "lite-odd"},
    {.name = "lite-tiny"},     {.name = "sparse-tiny"}, {.name = "two-fp8"}, {.name = "two-tiny"},
    {.name = "two-tiny-bf16"}, {.name = "long"},
};
enum { N_CASES = sizeof cases / sizeof *cases };

/* A test: a case, and for the alt.* tests the entry's name and the switch that it stands for. */
typedef struct aspect {
    model_case *c;
    const char *alt, *setting;
} aspect;

/* ---- comparing ---- */

static void compare_floats(model_case *c, const char *name, const float *got, size_t count) {
    const lc_tensor *want = golden_get(&c->g, name);
    if (count != want->count) fail_msg("%s: %zu values, expected %zu", name, count, want->count);
    double error = golden_error(got, want);
    double reference = golden_value(&c->g, "fp32_reference_error", name);
    c->compared++;
    if (error > 2 * reference) /* false without a reference */
        printf("# %s %s: error %.1e, fp32 reference %.1e\n", c->name, name, error, reference),
            c->above++;
    if (error <= c->limit) return;
    c->bad++;
    printf("# %s %s: error %.3e of RMS, limit %.0e\n", c->name, name, error, c->limit);
}

/* set > 0: groups of `set` ids are compared as sets. */
static void compare_ids(model_case *c, const char *name, const int32_t *got, size_t count,
                        size_t set) {
    const lc_tensor *want = golden_get(&c->g, name);
    if (count != want->count) fail_msg("%s: %zu values, expected %zu", name, count, want->count);
    int32_t *a = golden_ids(want), *b = lc_alloc(count * sizeof *b);
    assert_non_null(b);
    memcpy(b, got, count * sizeof *b);
    for (size_t i = 0; set && i < count; i += set) {
        golden_sort(a + i, set);
        golden_sort(b + i, set);
    }
    size_t first = 0;
    while (first < count && a[first] == b[first]) first++;
    c->compared++;
    if (first < count) {
        c->bad++;
        printf("# %s %s: element %zu is %d, expected %d\n", c->name, name, first, b[first],
               a[first]);
    }
    lc_free(a);
    lc_free(b);
}

static void no_failures(model_case *c) {
    unsigned bad = c->bad;
    c->bad = 0;
    if (bad) fail_msg("%s: %u entries differ", c->name, bad);
}

/* ---- running ---- */

static bool has_drafts(const model_case *c) {
    return golden_find(&c->g, "mtp.1.logits") || golden_find(&c->g, "mtp.draft.next");
}

static lc_engine *open_case(const model_case *c, const char *setting, bool drafts) {
    char dir[256];
    snprintf(dir, sizeof dir, ROOT "%s", c->name);
    return golden_engine(
        dir, (golden_engine_options){.setting = setting, .chunk = 2 * CHUNK, .drafts = drafts});
}

/* The sequences of tensor `prefix`input_ids, with `prefix`document if there is one. */
static void run(model_case *c, lc_engine *engine, const char *prefix, bool activations, bool mtp,
                lc_eval_result *result) {
    char name[64];
    lc_err err = {0};
    snprintf(name, sizeof name, "%sinput_ids", prefix);
    const lc_tensor *ids = golden_get(&c->g, name);
    snprintf(name, sizeof name, "%sdocument", prefix);
    int32_t *tokens = golden_ids(ids), *document = NULL;
    if (golden_find(&c->g, name)) document = golden_ids(golden_get(&c->g, name));
    assert_int_equal(ids->rank, 2);
    lc_eval_input input = {.tokens = tokens,
                           .document = document,
                           .batch = ids->shape[0],
                           .length = ids->shape[1],
                           .chunk = CHUNK,
                           .together = 2};
    assert_ok(lc_eval_logits(engine, &input, activations, mtp, result, &err), err);
    lc_free(tokens);
    lc_free(document);
}

/* Compares a result under the name `entry` of it with the expected `name`. */
static void compare_entry(model_case *c, const lc_eval_result *result, const char *entry,
                          const char *name, size_t batch) {
    const lc_eval_entry *e = golden_entry(result, entry);
    if (!e) fail_msg("%s: the library gives no %s", c->name, entry);
    size_t count = batch * e->rows * e->cols;
    if (e->type == LC_F32)
        compare_floats(c, name, e->data, count);
    else
        compare_ids(c, name, e->data, count, strstr(name, "router.ids") ? e->cols : 0);
}

/* ---- aspects ---- */

/* Entries that another aspect looks at. */
static bool is_other(const char *name) {
    static const char *const prefixes[] = {"input_ids", "greedy.", "mtp.draft.", "packed.",
                                           "short.",    "alt.",    "positions"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (!strncmp(name, prefixes[i], strlen(prefixes[i]))) return true;
    return false;
}

/* Activations, choices, logits and the teacher-forced draft steps of input_ids. */
static void test_sequence(void **state) {
    model_case *c = ((const aspect *)*state)->c;
    lc_engine *engine = open_case(c, NULL, has_drafts(c));
    lc_eval_result result;
    run(c, engine, "", true, has_drafts(c), &result);
    size_t batch = golden_get(&c->g, "input_ids")->shape[0];
    for (size_t i = 0; i < lc_tensors_count(c->g.file); i++) {
        const char *name = lc_tensors_at(c->g.file, i)->name;
        if (!is_other(name)) compare_entry(c, &result, name, name, batch);
    }
    lc_eval_free(&result);
    lc_engine_close(engine);
    no_failures(c);
}

/* The same continuation token by token and from lc_generate. */
static void test_greedy(void **state) {
    model_case *c = ((const aspect *)*state)->c;
    lc_engine *engine = open_case(c, NULL, false);
    lc_err err = {0};
    lc_session *session;
    assert_ok(lc_session_open(engine, &session, &err), err);
    const lc_tensor *prompt = golden_get(&c->g, "greedy.prompt");
    size_t vocab = lc_engine_vocab(engine), n = golden_get(&c->g, "greedy.tokens")->count;
    int32_t *ids = golden_ids(prompt), *list = lc_alloc((prompt->count + n) * sizeof *list);
    float *logits = lc_alloc(n * vocab * sizeof *logits);
    assert_true(list && logits);
    memcpy(list, ids, prompt->count * sizeof *list);
    for (size_t i = 0; i < n; i++) {
        assert_ok(lc_session_sync(session, list, prompt->count + i, &err), err);
        memcpy(logits + i * vocab, lc_session_logits(session), vocab * sizeof *logits);
        list[prompt->count + i] = lc_argmax(logits + i * vocab, vocab);
    }
    compare_floats(c, "greedy.logits", logits, n * vocab);
    compare_ids(c, "greedy.tokens", list + prompt->count, n, 0);
    lc_session_close(session);

    assert_ok(lc_session_open(engine, &session, &err), err);
    lc_generation how = {.max_tokens = n, .ignore_eos = true};
    lc_finish finish;
    size_t count;
    assert_ok(lc_generate(session, ids, prompt->count, &how, list, &count, &finish, &err), err);
    assert_int_equal(finish, LC_FINISH_LENGTH);
    compare_ids(c, "greedy.tokens", list, count, 0);
    lc_session_close(session);
    lc_free(ids);
    lc_free(list);
    lc_free(logits);
    lc_engine_close(engine);
    no_failures(c);
}

/* The draft chain after a prompt, twice: drafting must leave the session as it was. */
static void test_draft(void **state) {
    model_case *c = ((const aspect *)*state)->c;
    lc_engine *engine = open_case(c, NULL, true);
    lc_err err = {0};
    lc_session *session;
    assert_ok(lc_session_open(engine, &session, &err), err);
    const lc_tensor *prompt = golden_get(&c->g, "mtp.draft.prompt");
    size_t vocab = lc_engine_vocab(engine), topk = engine->model->index.topk;
    int32_t *ids = golden_ids(prompt), *sets = lc_calloc(DRAFTS * topk + 1, sizeof *sets);
    float *logits = lc_calloc(DRAFTS * vocab, sizeof *logits);
    assert_true(sets && logits);
    assert_ok(lc_session_sync(session, ids, prompt->count, &err), err);
    for (int repeat = 0; repeat < 2; repeat++) {
        int32_t next = lc_argmax(lc_session_logits(session), vocab), tokens[DRAFTS];
        lc_draft_trace trace = {topk ? sets : NULL, logits};
        assert_ok(lc_session_draft_traced(session, next, DRAFTS, tokens, &trace, &err), err);
        compare_ids(c, "mtp.draft.next", &next, 1, 0);
        compare_ids(c, "mtp.draft.tokens", tokens, DRAFTS, 0);
        compare_floats(c, "mtp.draft.logits", logits, DRAFTS * vocab);
        for (size_t i = 0; topk && i < DRAFTS; i++) {
            char name[48];
            snprintf(name, sizeof name, "mtp.draft.set.%zu", i + 1);
            compare_ids(c, name, sets + i * topk, topk, 0);
        }
    }
    lc_free(ids);
    lc_free(sets);
    lc_free(logits);
    lc_session_close(session);
    lc_engine_close(engine);
    no_failures(c);
}

/* packed.* and short.*: logits of sequences of their own. */
static void test_logits(void **state) {
    const aspect *a = *state;
    char prefix[32], name[64];
    lc_engine *engine = open_case(a->c, NULL, false);
    lc_eval_result result;
    snprintf(prefix, sizeof prefix, "%s.", a->alt);
    snprintf(name, sizeof name, "%s.logits", a->alt);
    run(a->c, engine, prefix, false, false, &result);
    compare_entry(a->c, &result, "logits", name, 1);
    lc_eval_free(&result);
    lc_engine_close(engine);
    no_failures(a->c);
}

/* alt.NAME.*: input_ids with one switch turned. */
static void test_switch(void **state) {
    const aspect *a = *state;
    model_case *c = a->c;
    char prefix[64];
    size_t length = (size_t)snprintf(prefix, sizeof prefix, "alt.%s.", a->alt);
    lc_engine *engine = open_case(c, a->setting, has_drafts(c));
    lc_eval_result result;
    unsigned before = c->compared;
    run(c, engine, "", false, has_drafts(c), &result);
    size_t batch = golden_get(&c->g, "input_ids")->shape[0];
    for (size_t i = 0; i < lc_tensors_count(c->g.file); i++) {
        const char *name = lc_tensors_at(c->g.file, i)->name;
        if (!strncmp(name, prefix, length)) compare_entry(c, &result, name + length, name, batch);
    }
    lc_eval_free(&result);
    lc_engine_close(engine);
    assert_true(c->compared > before);
    no_failures(c);
}

static void test_complete(void **state) {
    model_case *c = ((const aspect *)*state)->c;
    size_t count = lc_tensors_count(c->g.file), checked = 0;
    for (size_t i = 0; i < count; i++) {
        checked += c->g.checked[i];
        if (!c->g.checked[i])
            printf("# %s: nobody checked %s\n", c->name, lc_tensors_at(c->g.file, i)->name);
    }
    printf("# %s: %zu of %zu entries, inputs included; %u above twice the fp32 reference's error\n",
           c->name, checked, count, c->above);
    assert_int_equal(checked, count);
}

/* ---- the long case: values are stored for 16 of 6,000 positions only ---- */

typedef struct long_run {
    model_case *c;
    lc_engine *engine;
    int32_t *positions;
    size_t n, first; /* positions; the present step's first one */
    size_t filled;   /* rows of logits that are there */
    bool exact_angles;
    float *logits; /* [n][V] */
    struct {
        char name[64];
        lc_dtype type;
        size_t cols;
        void *data; /* [n][cols] */
    } kept[8];
    size_t n_kept;
} long_run;

/*
 * Near ties of the switch exact_rope_angles. The case's inputs keep index scores apart by 1e-5 with
 * the default angles only; with exact ones a float64 run of the equations finds the last chosen and
 * the first refused key of layer 1 these distances apart, at scores near 1, where fp32 steps are
 * 1.2e-7 and the fp32 reference's scores are off by 2e-6. So fp32 can't decide them; what hangs on
 * them is one of the 16 stored rows (5990, which attends to these two). The test puts the
 * reference's key in, so that all else of the entry is compared at the full limit.
 */
static const struct {
    int32_t position, chosen, refused; /* keys of the float64 run */
    double distance;
} near_ties[] = {{4162, 353, 3080, 2.9e-7}, {5905, 3646, 1626, 1.8e-6}};

/* Makes the choice of row `position` the reference's. */
static void settle_near_tie(int32_t *list, size_t topk, size_t tie) {
    for (size_t j = 0; j < topk; j++) {
        if (list[j] == near_ties[tie].chosen) return;
        if (list[j] != near_ties[tie].refused) continue;
        printf("# long: exact_rope_angles, row %d of layer 1: key %d for %d, %.1e apart\n",
               near_ties[tie].position, near_ties[tie].chosen, near_ties[tie].refused,
               near_ties[tie].distance);
        list[j] = near_ties[tie].chosen;
        golden_sort(list, topk);
        return;
    }
}

/* Keeps the rows at the wanted positions of entries that the golden file has. */
static void keep(void *ctx, const char *name, lc_dtype type, size_t rows, size_t cols,
                 size_t stride, const void *data) {
    long_run *r = ctx;
    if (r->exact_angles) { /* logits are all that is compared */
        for (size_t i = 0; i < sizeof near_ties / sizeof *near_ties; i++) {
            size_t at = (size_t)near_ties[i].position - r->first;
            if (!strcmp(name, "layers.1.index.selected") &&
                (size_t)near_ties[i].position >= r->first && at < rows)
                settle_near_tie((int32_t *)(uintptr_t)data + at * stride, cols, i);
        }
        return;
    }
    if (!golden_find(&r->c->g, name)) return;
    size_t k = 0, element = lc_dtype_size(type);
    while (k < r->n_kept && strcmp(r->kept[k].name, name)) k++;
    if (k == r->n_kept) {
        assert_true(++r->n_kept <= sizeof r->kept / sizeof *r->kept);
        snprintf(r->kept[k].name, sizeof r->kept[k].name, "%s", name);
        r->kept[k].type = type;
        r->kept[k].cols = cols;
        r->kept[k].data = lc_calloc(r->n * cols, element);
        assert_non_null(r->kept[k].data);
    }
    for (size_t i = 0; i < r->n; i++) {
        size_t at = (size_t)r->positions[i] - r->first;
        if ((size_t)r->positions[i] >= r->first && at < rows)
            memcpy((char *)r->kept[k].data + i * cols * element,
                   (const char *)data + at * stride * element, cols * element);
    }
}

/* Positions first .. first+m-1; `filled` logits of earlier positions are there. */
static void long_step(long_run *r, lc_kv *kv, const int32_t *tokens, size_t m, bool probed) {
    lc_engine *e = r->engine;
    lc_err err = {0};
    size_t vocab = lc_engine_vocab(e), n_logits = 0;
    for (size_t i = 0; i < m; i++) e->rows[i] = (lc_row){kv, r->first + i, 0, tokens, r->first + i};
    for (size_t i = 0; i < r->n; i++) {
        size_t at = (size_t)r->positions[i] - r->first;
        if ((size_t)r->positions[i] >= r->first && at < m) e->logit_rows[n_logits++] = at;
    }
    lc_probe probe = {.emit = keep, .ctx = r};
    lc_step step = {.rows = e->rows,
                    .m = m,
                    .logit_rows = e->logit_rows,
                    .n_logits = n_logits,
                    .logits = r->logits + r->filled * vocab,
                    .probe = probed || r->exact_angles ? &probe : NULL};
    assert_ok(lc_forward(e->model, e->work, &step, &err), err);
    r->filled += n_logits;
}

static void test_long(void **state) {
    const aspect *a = *state;
    model_case *c = a->c;
    char name[64] = "logits";
    if (a->alt) snprintf(name, sizeof name, "alt.%s.logits", a->alt);
    lc_err err = {0};
    const lc_tensor *ids = golden_get(&c->g, "input_ids");
    const lc_tensor *positions = golden_get(&c->g, "positions");
    long_run r = {.c = c, .positions = golden_ids(positions), .n = positions->count};
    r.exact_angles = a->alt && !strcmp(a->alt, "exact_rope_angles");
    r.engine = open_case(c, a->setting, false);
    r.logits = lc_calloc(r.n * lc_engine_vocab(r.engine), sizeof *r.logits);
    assert_non_null(r.logits);
    int32_t *tokens = golden_ids(ids);
    lc_kv kv;
    lc_kv_layout layout = lc_model_kv_layout(r.engine->model, false);
    lc_kv_init(&kv, &layout);
    assert_ok(lc_kv_reserve(&kv, 0, ids->count, &err), err);
    for (size_t m; r.first < ids->count; r.first += m) {
        m = ids->count - r.first < r.engine->chunk ? ids->count - r.first : r.engine->chunk;
        long_step(&r, &kv, tokens, m, !a->alt);
    }
    assert_int_equal(r.filled, r.n);
    compare_floats(c, name, r.logits, r.n * lc_engine_vocab(r.engine));
    for (size_t k = 0; k < r.n_kept; k++) {
        size_t count = r.n * r.kept[k].cols, set = strstr(r.kept[k].name, "router") ? 3 : 0;
        if (r.kept[k].type == LC_F32)
            compare_floats(c, r.kept[k].name, r.kept[k].data, count);
        else
            compare_ids(c, r.kept[k].name, r.kept[k].data, count, set);
        lc_free(r.kept[k].data);
    }
    lc_kv_free(&kv);
    lc_free(r.positions);
    lc_free(r.logits);
    lc_free(tokens);
    lc_engine_close(r.engine);
    no_failures(c);
}

/* ---- the bf16 compute type ---- */

/*
 * In bf16 near choices flip, and a flipped choice of one row reaches all later ones. So a row is
 * compared where its own choices and those of all rows before it are the reference's.
 *
 * BF16 has 8 significant bits: rounding moves a value by at most 2^-9 of it, by 2^-9 / sqrt(3) =
 * 1.1e-3 of it in the mean (RMS). Weights of these cases are BF16 values already, so each product
 * adds one such error, that of its activations. From embedding to logits a row goes through about
 * 13 products a layer in series (attention 7: c_q, q, absorbed query, cache, probabilities,
 * context, heads; FFN 2; times 2 sublayers, less what runs in parallel), some 30 for two layers;
 * independent errors add to sqrt(30) * 1.1e-3 = 6e-3 of the RMS. A softmax turns an absolute error
 * of its scores into a relative one of its weights, so it multiplies by the size of the scores,
 * here 2 to 4: 2e-2 at most in the mean over rows. Rows differ: one with a large score has more,
 * and twice and a half that is allowed. A wrong operator moves rows by 0.1 to 5 of the RMS
 * (test_bf16_control); what moves them by 0.01, as another eps of a norm, only f32 can tell.
 */
static const double bf16_median = 0.02, bf16_row = 0.05;

/* Which rows (b, t) of a result have the reference's choices, and all rows before them too: ok
 * [B][T]. Returns how many have, and in *alone how many have without a look at earlier rows. */
static size_t agreeing_rows(model_case *c, const lc_eval_result *result, const char *prefix,
                            size_t batch, size_t length, bool *ok, size_t *alone) {
    for (size_t i = 0; i < lc_tensors_count(c->g.file); i++) {
        const lc_tensor *t = lc_tensors_at(c->g.file, i);
        bool router = strstr(t->name, "router.ids"), index = strstr(t->name, "index.selected");
        if (strncmp(t->name, prefix, strlen(prefix)) || (!router && !index)) continue;
        const lc_eval_entry *e = golden_entry(result, t->name);
        assert_true(e && e->cols == t->shape[2] && e->rows == length);
        int32_t *want = golden_ids(t), *got = e->data;
        for (size_t row = 0; row < batch * length; row++) {
            if (router) golden_sort(want + row * e->cols, e->cols);
            if (router) golden_sort(got + row * e->cols, e->cols);
            if (memcmp(want + row * e->cols, got + row * e->cols, e->cols * sizeof *got))
                ok[row] = false;
        }
        lc_free(want);
    }
    size_t count = 0;
    *alone = 0;
    for (size_t row = 0; row < batch * length; row++) {
        *alone += ok[row];
        if (row % length && !ok[row - 1]) ok[row] = false;
        count += ok[row];
    }
    return count;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sets *median and *worst over rows with ok of RMS(got - want) of the row / RMS(want) of the
 * entry. */
static void row_errors(const lc_tensor *want, const float *got, const bool *ok, size_t count,
                       double *median, double *worst) {
    size_t cols = want->shape[2], rows = want->count / cols, n = 0;
    double *errors = lc_calloc(count, sizeof *errors), squares = 0;
    assert_non_null(errors);
    for (size_t i = 0; i < want->count; i++)
        squares += golden_number(want, i) * golden_number(want, i);
    for (size_t row = 0; row < rows; row++) {
        double sum = 0;
        for (size_t j = row * cols; j < (row + 1) * cols; j++) {
            double d = (double)got[j] - golden_number(want, j);
            sum += d * d;
        }
        if (ok[row]) errors[n++] = sqrt(sum / (double)cols / (squares / (double)want->count));
    }
    assert_true(n == count);
    qsort(errors, n, sizeof *errors, compare_doubles);
    *median = errors[n / 2];
    *worst = errors[n - 1];
    lc_free(errors);
}

/* Whether the case passes in bf16 with a switch turned (NULL: as it is). */
static bool bf16_passes(model_case *c, const char *setting, bool quiet) {
    char dir[256];
    snprintf(dir, sizeof dir, ROOT "%s", c->name);
    lc_engine *engine = golden_engine(dir, (golden_engine_options){.compute = "bf16",
                                                                   .setting = setting,
                                                                   .chunk = 2 * CHUNK,
                                                                   .drafts = has_drafts(c)});
    lc_eval_result result;
    run(c, engine, "", true, has_drafts(c), &result);
    const lc_tensor *logits = golden_get(&c->g, "logits");
    size_t batch = logits->shape[0], length = logits->shape[1], rows = batch * length, alone;
    bool *ok = lc_alloc(rows);
    assert_non_null(ok);
    memset(ok, true, rows);
    double median = 0, worst = 0;
    size_t count = agreeing_rows(c, &result, "layers.", batch, length, ok, &alone);
    if (count)
        row_errors(logits, golden_entry(&result, "logits")->data, ok, count, &median, &worst);
    bool good =
        4 * count >= rows && 10 * alone >= 7 * rows && median <= bf16_median && worst <= bf16_row;
    if (!quiet || good)
        printf("# %s bf16%s%s: own choices of %zu of %zu rows as in float64, of %zu those of all "
               "rows before too: error %.4f RMS (median), %.4f (worst)\n",
               c->name, setting ? " " : "", setting ? setting : "", alone, rows, count, median,
               worst);
    lc_free(ok);
    lc_eval_free(&result);
    lc_engine_close(engine);
    return good;
}

static void test_bf16(void **state) {
    model_case *c = ((const aspect *)*state)->c;
    assert_true(bf16_passes(c, NULL, false));
}

/* The bounds notice small wrongs: each of these switches changes one operator a little. */
static void test_bf16_control(void **state) {
    const aspect *a = *state;
    assert_false(bf16_passes(a->c, a->setting, true));
}

/* ---- the list of tests ---- */

static const struct {
    const char *alt, *setting;
} settings[] = {
    {"identity_unscaled", "identity_scaled=false"},
    {"ngram_full_word", "ngram_fusion=full_word"},
    {"ngram_no_eos_reset", "ngram_eos_reset=false"},
    {"exact_rope_angles", "rope_angles=exact"},
    {"dense_attention", "dense_attention=true"},
    {"mtp_concat_he", "mtp_concat=he"},
    {"mtp_ngram", "mtp_ngram=true"},
    {"mla_eps_1e-2", "mla_eps=1e-2"},
    {"k_norm_eps_1", "k_norm_eps=1"},
    {"dequantised_to_bf16", "dequantised_to_bf16=true"},
    {"rope_frequency_rounded_once", "rope_frequency_rounded_once=true"},
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };

static bool has_alt(const golden *g, const char *alt) {
    char prefix[64];
    size_t length = (size_t)snprintf(prefix, sizeof prefix, "alt.%s.", alt);
    for (size_t i = 0; i < lc_tensors_count(g->file); i++)
        if (!strncmp(lc_tensors_at(g->file, i)->name, prefix, length)) return true;
    return false;
}

static void add(golden_tests *tests, CMUnitTestFunction function, model_case *c, const char *what,
                const char *alt, const char *setting) {
    static aspect aspects[128];
    static size_t used;
    if (used == sizeof aspects / sizeof *aspects) abort();
    aspect *a = &aspects[used++];
    *a = (aspect){c, alt, setting};
    golden_add(tests, function, a, "%s: %s%s", c->name, what, alt ? alt : "");
}

static void add_case(golden_tests *tests, model_case *c) {
    const golden *g = &c->g;
    bool is_long = golden_find(g, "positions") != NULL;
    add(tests, is_long ? test_long : test_sequence, c, "sequences", NULL, NULL);
    if (golden_find(g, "greedy.tokens")) add(tests, test_greedy, c, "greedy", NULL, NULL);
    if (golden_find(g, "mtp.draft.next")) add(tests, test_draft, c, "draft chain", NULL, NULL);
    if (golden_find(g, "packed.logits")) add(tests, test_logits, c, "", "packed", NULL);
    if (golden_find(g, "short.logits")) add(tests, test_logits, c, "", "short", NULL);
    for (size_t i = 0; i < N_SETTINGS; i++)
        if (has_alt(g, settings[i].alt))
            add(tests, is_long ? test_long : test_switch, c, "switch ", settings[i].alt,
                settings[i].setting);
    if (!is_long) add(tests, test_bf16, c, "bf16", NULL, NULL);
    if (!strcmp(c->name, "flash-tiny"))
        add(tests, test_bf16_control, c, "bf16 notices ", "unscaled identity experts",
            "identity_scaled=false");
    if (!strcmp(c->name, "two-tiny")) {
        add(tests, test_bf16_control, c, "bf16 notices ", "n-grams across EOS",
            "ngram_eos_reset=false");
        add(tests, test_bf16_control, c, "bf16 notices ", "another fusion",
            "ngram_fusion=full_word");
    }
    add(tests, test_complete, c, "every entry checked", NULL, NULL);
}

int main(void) {
    golden_tests tests = {0};
    for (size_t i = 0; i < N_CASES; i++) {
        char dir[256];
        snprintf(dir, sizeof dir, ROOT "%s", cases[i].name);
        golden_open(&cases[i].g, dir);
        cases[i].limit = golden_value(&cases[i].g, "tolerance", "fp32");
        if (!(cases[i].limit > 0)) return 1;
        add_case(&tests, &cases[i]);
    }
    int failed = golden_run(&tests, "model");
    for (size_t i = 0; i < N_CASES; i++) golden_close(&cases[i].g);
    return failed;
}
