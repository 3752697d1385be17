/*
 * golden.h: what the tests of the numerics share: a golden folder (expected.json and
 * expected.safetensors), its tensors as numbers, the rule by which floats are compared, and engines
 * that are opened with one line.
 *
 * The rule of tests/golden/model/README.md: max |got - want| <= limit * RMS(want), an entry at a
 * time. Integers are equal; chosen experts are equal as sets.
 */
#ifndef LC_TESTS_GOLDEN_H
#define LC_TESTS_GOLDEN_H

#include "base/json.h"
#include "engine/evaluate.h"
#include "test.h"

#include <math.h>

/* Sanitizers look for other things than numbers and make programs ten times slower: tests may then
 * run shorter sequences where nothing is compared with a golden value. */
enum {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GOLDEN_SANITIZED = 1,
#else
    GOLDEN_SANITIZED = 0,
#endif
#if defined(__SANITIZE_THREAD__)
    GOLDEN_THREADS_ONLY = 1, /* what one instruction set shows all do */
#else
    GOLDEN_THREADS_ONLY = 0,
#endif
};

typedef struct golden {
    char dir[320];            /* for messages */
    struct json_object *json; /* expected.json */
    lc_tensors *file;         /* expected.safetensors */
    bool *checked;            /* [tensors in file] */
} golden;

/* A file of tensors alone. */
static inline void golden_open_tensors(golden *g, const char *path) {
    lc_err err = {0};
    *g = (golden){0};
    snprintf(g->dir, sizeof g->dir, "%s", path);
    assert_ok(lc_tensors_open(path, &g->file, &err), err);
    g->checked = lc_calloc(lc_tensors_count(g->file), sizeof *g->checked);
    assert_non_null(g->checked);
}

/* dir/expected.json and dir/expected.safetensors. */
static inline void golden_open(golden *g, const char *dir) {
    char path[320];
    lc_err err = {0};
    snprintf(path, sizeof path, "%s/expected.safetensors", dir);
    golden_open_tensors(g, path);
    snprintf(path, sizeof path, "%s/expected.json", dir);
    assert_ok(lc_json_load(path, 0, &g->json, &err), err);
}

static inline void golden_close(golden *g) {
    lc_free(g->checked);
    lc_tensors_close(g->file);
    json_object_put(g->json);
    *g = (golden){0};
}

/* The tensor of that name, or NULL. */
static inline const lc_tensor *golden_find(const golden *g, const char *name) {
    return lc_tensors_find(g->file, name);
}

/* The tensor of that name, which must be there; counts as used. */
static inline const lc_tensor *golden_get(golden *g, const char *name) {
    const lc_tensor *t = golden_find(g, name);
    if (!t) fail_msg("%s: no tensor %s", g->dir, name);
    g->checked[t - lc_tensors_at(g->file, 0)] = true;
    return t;
}

/* Element i of a tensor of any of the types that golden files have; data may be unaligned. */
static inline double golden_number(const lc_tensor *t, size_t i) {
    const char *at = (const char *)t->data + i * lc_dtype_size(t->dtype);
    float f;
    double d;
    int32_t i32;
    int64_t i64;
    assert_true(i < t->count);
    switch (t->dtype) {
    case LC_F32: memcpy(&f, at, sizeof f); return (double)f;
    case LC_F64: memcpy(&d, at, sizeof d); return d;
    case LC_I32: memcpy(&i32, at, sizeof i32); return i32;
    case LC_I64: memcpy(&i64, at, sizeof i64); return (double)i64;
    case LC_U8: return *(const uint8_t *)at;
    default: fail_msg("%s: dtype %s", t->name, t->dtype_name); return 0;
    }
}

/* Whole tensors as owned arrays (lc_free). */
static inline float *golden_floats(const lc_tensor *t) {
    float *x = lc_calloc(t->count + 1, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < t->count; i++) x[i] = (float)golden_number(t, i);
    return x;
}

static inline int32_t *golden_ids(const lc_tensor *t) {
    int32_t *x = lc_calloc(t->count + 1, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < t->count; i++) x[i] = (int32_t)golden_number(t, i);
    return x;
}

/* max |got - want| / RMS(want); infinite if a value isn't finite or the entry is all zeros and got
 * isn't. */
static inline double golden_error(const float *got, const lc_tensor *want) {
    double worst = 0, squares = 0;
    for (size_t i = 0; i < want->count; i++) {
        double w = golden_number(want, i), d = fabs((double)got[i] - w);
        squares += w * w;
        if (!(d <= worst)) worst = isfinite(d) ? d : INFINITY;
    }
    if (worst == 0) return 0;
    return squares > 0 ? worst / sqrt(squares / (double)want->count) : INFINITY;
}

/* A number inside expected.json by its path of keys, e.g. {"tolerance", "fp32"}; NAN if absent. */
static inline double golden_value(const golden *g, const char *outer, const char *inner) {
    struct json_object *a = NULL, *b = NULL;
    if (!json_object_object_get_ex(g->json, outer, &a) ||
        !json_object_object_get_ex(a, inner, &b) || !b)
        return NAN;
    return json_object_get_double(b);
}

/* What tests vary about an engine; zero is the default of a golden run. */
typedef struct golden_engine_options {
    const char *compute; /* NULL: f32 */
    const char *isa, *setting;
    int threads; /* 0: 2 */
    size_t chunk, context;
    bool drafts;
} golden_engine_options;

static inline lc_engine *golden_engine(const char *dir, golden_engine_options o) {
    lc_err err = {0};
    lc_engine *engine = NULL;
    lc_engine_options options = {.compute = o.compute ? o.compute : "f32",
                                 .isa = o.isa,
                                 .threads = o.threads ? o.threads : 2,
                                 .chunk = o.chunk,
                                 .context = o.context,
                                 .drafts = o.drafts,
                                 .settings = &o.setting,
                                 .n_settings = o.setting ? 1 : 0};
    assert_ok(lc_engine_open(dir, &options, &engine, &err), err);
    return engine;
}

static inline const lc_eval_entry *golden_entry(const lc_eval_result *r, const char *name) {
    for (size_t i = 0; i < r->count; i++)
        if (!strcmp(r->entries[i].name, name)) return &r->entries[i];
    return NULL;
}

/* Sorts k ids in place; k is small. */
static inline void golden_sort(int32_t *ids, size_t k) {
    for (size_t i = 1; i < k; i++)
        for (size_t j = i; j > 0 && ids[j] < ids[j - 1]; j--) {
            int32_t t = ids[j];
            ids[j] = ids[j - 1];
            ids[j - 1] = t;
        }
}

/* Tests whose names and number are known only at run time. */
typedef struct golden_tests {
    struct CMUnitTest *list;
    size_t count, cap;
} golden_tests;

static inline void golden_add(golden_tests *tests, CMUnitTestFunction function, void *state,
                              const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static inline void golden_add(golden_tests *tests, CMUnitTestFunction function, void *state,
                              const char *fmt, ...) {
    char name[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    if (tests->count == tests->cap) {
        tests->cap = tests->cap ? 2 * tests->cap : 64;
        tests->list = lc_realloc(tests->list, tests->cap, sizeof *tests->list);
    }
    char *kept = lc_strdup(name);
    if (!tests->list || !kept) abort();
    tests->list[tests->count++] = (struct CMUnitTest){kept, function, NULL, NULL, state};
}

/* Runs and frees them; main's body. */
static inline int golden_run(golden_tests *tests, const char *name) {
    cmocka_set_message_output(CM_OUTPUT_TAP);
    int failed = _cmocka_run_group_tests(name, tests->list, tests->count, NULL, NULL);
    for (size_t i = 0; i < tests->count; i++) lc_free((void *)(uintptr_t)tests->list[i].name);
    lc_free(tests->list);
    return failed;
}

#endif
