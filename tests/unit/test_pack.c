/*
 * test_pack.c: `longcat pack` and `longcat quantize --pack`: what lies in strips has the values of
 * what it was made from, BF16 or codes, with every instruction set and for any rows; both ways end
 * with the same bytes; runs go on after kill -9; what can't be packed stays. uses-threads
 */
#include "unit/quantize_runs.h"

#include "base/file.h"
#include "base/json.h"
#include "format/names.h"
#include "model/model.h"

#define GOLDEN "tests/golden/quant/"
#define TWO "tests/golden/model/two-tiny-bf16"

static lc_quantize_options strips_of(lc_quantize_type type, size_t group) {
    lc_quantize_options o = options_of(type, group);
    o.strips = true;
    return o;
}

static lc_quantize_result pack(const char *model, const char *out) {
    return quantize(model, out, strips_of(LC_QUANTIZE_NONE, 0));
}

typedef struct model {
    lc_config config;
    lc_tensors *tensors;
} model;

static model open_model(const char *folder) {
    model m;
    lc_err err = {0};
    assert_ok(lc_config_load(folder, &m.config, &err), err);
    assert_ok(lc_tensors_open(folder, &m.tensors, &err), err);
    lc_tensors_set_quant(m.tensors, &m.config.quant);
    return m;
}

/* ---- values ---- */

typedef struct comparison {
    model a, b;
    size_t weights, strips, codes; /* codes: of the strips */
} comparison;

/* Equal as numbers: -0 is 0. BF16 values have equal bits. */
static void same_rows(const lc_mat *a, const lc_mat *b, size_t row, size_t n) {
    static float x[1 << 15], y[1 << 15];
    static uint16_t p[1 << 15], q[1 << 15];
    size_t count = n * a->cols;
    assert_true(count <= 1 << 15 && row + n <= a->rows);
    const lc_kernels *scalar = lc_kernels_of(LC_ISA_SCALAR);
    lc_mat_rows_f32(scalar, a, row, n, x, a->cols);
    lc_mat_rows_bf16(scalar, a, row, n, p, a->cols);
    for (int isa = LC_ISA_SCALAR; isa < LC_ISA_COUNT; isa++) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        lc_mat_rows_f32(k, b, row, n, y, a->cols);
        lc_mat_rows_bf16(k, b, row, n, q, a->cols);
        if (a->type == LC_BF16) {
            assert_memory_equal(x, y, count * sizeof *x);
            assert_memory_equal(p, q, count * sizeof *p);
        }
        for (size_t i = 0; i < count; i++)
            if (x[i] != y[i] || (p[i] != q[i] && (p[i] | q[i]) != 0x8000))
                fail_msg("%s, row %zu of %zu: %g, expected %g", b->name, row + i / a->cols, a->rows,
                         (double)y[i], (double)x[i]);
    }
}

static int compare_weight(void *ctx, const lc_name *n) {
    static const size_t blocks[] = {1, 5, 16, 33};
    comparison *c = ctx;
    lc_mat a, b;
    lc_err err = {0};
    size_t rows = n->rank == 1 ? 1 : n->shape[0], cols = n->rank == 1 ? n->shape[0] : n->shape[1];
    if (lc_mat_bind(c->a.tensors, n->name, rows, cols, &a, &err) == LC_ENOTFOUND) return LC_OK;
    assert_ok(lc_mat_bind(c->b.tensors, n->name, rows, cols, &b, &err), err);
    for (size_t i = 0; i < 4; i++)
        for (size_t row = 0; row < rows; row += blocks[i])
            same_rows(&a, &b, row, rows - row < blocks[i] ? rows - row : blocks[i]);
    if (rows * cols <= 1 << 15) same_rows(&a, &b, 0, rows);
    if (rows > 24) same_rows(&a, &b, 3, 20);
    if (lc_mat_in_strips(&b)) {
        assert_true((a.type == LC_BF16) == (b.type == LC_BF16));
        assert_int_equal((uintptr_t)b.data % 64, 0);
        c->strips++;
        c->codes += b.type != LC_BF16;
    }
    c->weights++;
    lc_mat_unbind(&a);
    lc_mat_unbind(&b);
    return LC_OK;
}

/* Returns the number of weights in strips. */
static size_t compare_models(const char *a, const char *b) {
    comparison c = {open_model(a), open_model(b), 0, 0, 0};
    lc_inventory u, v;
    lc_err err = {0};
    lc_names_expected(&c.a.config, compare_weight, &c);
    assert_true(c.weights > 20);
    assert_ok(lc_inventory_take(&c.a.config, c.a.tensors, &u, &err), err);
    assert_ok(lc_inventory_take(&c.b.config, c.b.tensors, &v, &err), err);
    for (int i = 0; i < LC_PART_COUNT; i++)
        assert_int_equal(u.parts[i].elements, v.parts[i].elements);
    if (!u.dtype_bytes[LC_I32]) assert_true(!v.dtype_bytes[LC_I32] || c.codes);
    lc_inventory_free(&u);
    if (v.n_missing + v.n_unknown + v.n_wrong)
        fail_msg("%s: %s%s", b, v.wrong.data ? v.wrong.data : "",
                 v.unknown.data ? v.unknown.data : "");
    lc_inventory_free(&v);
    assert_true(c.b.config.quant.strips);
    assert_string_equal(c.a.config.quant.method, c.b.config.quant.method);
    lc_tensors_close(c.a.tensors);
    lc_tensors_close(c.b.tensors);
    return c.strips;
}

/* Every tensor of b is in a, with the same bytes. */
static void same_tensors(const char *a, const char *b) {
    model x = open_model(a), y = open_model(b);
    assert_int_equal(lc_tensors_count(x.tensors), lc_tensors_count(y.tensors));
    for (size_t i = 0; i < lc_tensors_count(x.tensors); i++) {
        const lc_tensor *s = lc_tensors_at(x.tensors, i), *t = lc_tensors_at(y.tensors, i);
        assert_string_equal(s->name, t->name);
        assert_true(s->dtype == t->dtype && s->rank == t->rank && s->size == t->size);
        assert_memory_equal(s->shape, t->shape, sizeof s->shape);
        assert_memory_equal(s->data, t->data, s->size);
    }
    lc_tensors_close(x.tensors);
    lc_tensors_close(y.tensors);
}

static void same_file(const char *a, const char *b, const char *name) {
    char path[512], x[65], y[65];
    lc_err err = {0};
    snprintf(path, sizeof path, "%s/%s", a, name);
    assert_ok(lc_quantize_hash_file(path, x, &err), err);
    snprintf(path, sizeof path, "%s/%s", b, name);
    assert_ok(lc_quantize_hash_file(path, y, &err), err);
    if (strcmp(x, y)) fail_msg("%s differs", path);
}

/* Checkpoints of other tools: symmetric weights and BF16 ones are packed, those with zero points
 * or biases stay. */
static void test_tools(void **unused) {
    (void)unused;
    static const struct {
        const char *name;
        size_t packed, unpacked;
    } tools[] = {
        {"compressed-tensors", 19, 7}, {"gptq", 20, 5}, {"auto-round", 20, 5}, {"mlx", 3, 25}};
    for (size_t i = 0; i < sizeof tools / sizeof *tools; i++) {
        char source[128];
        const char *out = in_scratch("packed"), *again = in_scratch("again");
        snprintf(source, sizeof source, GOLDEN "%s", tools[i].name);
        lc_quantize_result r = pack(source, out);
        printf("# %s: %zu packed, %zu not\n", tools[i].name, r.packed, r.unpacked);
        assert_int_equal(r.packed, tools[i].packed);
        assert_int_equal(r.unpacked, tools[i].unpacked);
        assert_int_equal(r.quantised, 0);
        assert_int_equal(compare_models(source, out), r.packed);
        refuse(out, again, strips_of(LC_QUANTIZE_NONE, 0), LC_EINVAL, "is packed already");
        assert_false(exists(again, ""));
        remove_folder(out);
    }
    refuse("tests/golden/model/flash-tiny", in_scratch("again"), strips_of(LC_QUANTIZE_NONE, 0),
           LC_EINVAL, "flash-tiny: holds no weights that can be packed");
}

/* ---- BF16 ---- */

/* Whether a BF16 matrix should be in strips: products in BF16 read it, and its width fits. */
static bool belongs_in_strips(const lc_name *n) {
    static const char *const by_row[] = {"embed_tokens", "embedders",    "oe_embed_tokens",
                                         "router",       "weights_proj", "kv_b_proj"};
    if (n->rank != 2 || n->shape[1] % 32 || !strncmp(n->name, "model.mtp.oe_", 13)) return false;
    for (size_t i = 0; i < sizeof by_row / sizeof *by_row; i++)
        if (strstr(n->name, by_row[i])) return false;
    return true;
}

typedef struct placing {
    model source, packed;
    size_t strips, by_row;
} placing;

/* In strips it is one tensor, else the source's one. */
static int check_place(void *ctx, const lc_name *n) {
    placing *p = ctx;
    char name[300];
    const lc_tensor *from = lc_tensors_find(p->source.tensors, n->name);
    const lc_tensor *to = lc_tensors_find(p->packed.tensors, n->name);
    if (!from || from->dtype == LC_I8) return LC_OK; /* codes, or not there */
    bool strips = from->dtype == LC_BF16 && belongs_in_strips(n);
    if (strips == (to != NULL)) fail_msg("%s is %s", n->name, to ? "by row" : "not by row");
    p->strips += strips;
    p->by_row += !strips;
    if (!strips) {
        assert_true(to->dtype == from->dtype && to->size == from->size);
        assert_memory_equal(to->data, from->data, from->size);
        return LC_OK;
    }
    snprintf(name, sizeof name, "%s_strip_scale", n->name);
    assert_null(lc_tensors_find(p->packed.tensors, name));
    snprintf(name, sizeof name, "%s_strips", n->name);
    to = lc_tensors_find(p->packed.tensors, name);
    assert_true(to && to->dtype == LC_I32 && to->rank == 3);
    assert_int_equal(to->shape[0], (n->shape[0] + 15) / 16);
    assert_int_equal(to->shape[1], n->shape[1] / 2);
    assert_int_equal(to->shape[2], 16);
    return LC_OK;
}

static void no_source(const char *folder) {
    char path[512];
    struct json_object *json, *q, *method;
    lc_err err = {0};
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_ok(lc_json_load(path, 1 << 20, &json, &err), err);
    assert_true(json_object_object_get_ex(json, "quantization_config", &q));
    assert_int_equal(json_object_object_length(q), 1);
    assert_true(json_object_object_get_ex(q, "quant_method", &method));
    assert_string_equal(json_object_get_string(method), "longcat-strips");
    json_object_put(json);
}

/* What goes into strips and what stays, for any number of threads; then it can't be packed or
 * quantised again. FP8 and int8 ones have BF16 left for strips. */
static void test_bf16(void **unused) {
    (void)unused;
    static const struct {
        const char *source;
        size_t packed, unpacked; /* by counting names and widths in the source */
        bool plain;
    } cases[] = {{GOLDEN "source", 25, 0, true},
                 {TWO, 66, 47, true},
                 {"tests/golden/model/two-fp8", 4, 11, false},
                 {"tests/golden/model/int8", 66, 39, false}};
    const char *out = in_scratch("bf16"), *same = in_scratch("same"), *no = in_scratch("no");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lc_err err = {0};
        lc_quantize_options o = strips_of(LC_QUANTIZE_NONE, 0), q = options_of(LC_QUANTIZE_INT8, 0);
        lc_quantize_result r = quantize(cases[i].source, out, o);
        placing p = {open_model(cases[i].source), open_model(out), 0, 0};
        lc_names_expected(&p.source.config, check_place, &p);
        printf("# %s: %zu packed, %zu not, %zu by row\n", cases[i].source, r.packed, r.unpacked,
               p.by_row);
        assert_int_equal(r.packed, cases[i].packed);
        assert_int_equal(r.unpacked, cases[i].unpacked);
        assert_int_equal(r.quantised, 0);
        if (cases[i].plain) assert_int_equal(r.packed, p.strips);
        lc_tensors_close(p.source.tensors);
        lc_tensors_close(p.packed.tensors);
        assert_int_equal(compare_models(cases[i].source, out), r.packed);
        assert_ok(lc_pool_new(3, &o.pool, &err), err);
        quantize(cases[i].source, same, o);
        lc_pool_free(o.pool);
        o.pool = NULL;
        same_tensors(out, same);
        refuse(out, no, o, LC_EINVAL, "bf16: is packed already");
        if (cases[i].plain) {
            no_source(out);
            refuse(out, no, q, LC_EINVAL,
                   "is packed: quantise the checkpoint that it was packed from");
            q.strips = true;
            refuse(out, no, q, LC_EINVAL,
                   "is packed: quantise the checkpoint that it was packed from");
        }
        assert_false(exists(no, ""));
        remove_folder(out);
        remove_folder(same);
    }
}

/* ---- our own codes ---- */

/* Quantised, then packed; and both at once: the same bytes, on any number of threads. */
static void test_quantize(void **unused) {
    (void)unused;
    static const struct {
        const char *source;
        lc_quantize_type type;
        size_t group;
        bool all; /* embeddings, head, draft module */
    } cases[] = {{GOLDEN "source", LC_QUANTIZE_INT8, 0, false},
                 {GOLDEN "source", LC_QUANTIZE_INT8, 32, true},
                 {GOLDEN "source", LC_QUANTIZE_INT4, 0, true},
                 {GOLDEN "source", LC_QUANTIZE_MIXED, 32, false},
                 {"tests/golden/model/lite-odd", LC_QUANTIZE_INT4, 64, true},
                 {"tests/golden/model/int8", LC_QUANTIZE_INT4, 32, false},
                 {"tests/golden/model/two-fp8", LC_QUANTIZE_INT8, 0, false}};
    const char *rows = in_scratch("rows"), *after = in_scratch("after"), *once = in_scratch("once");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lc_err err = {0};
        lc_quantize_options o = options_of(cases[i].type, cases[i].group);
        o.embeddings = o.head = o.mtp = cases[i].all;
        lc_quantize_result plain = quantize(cases[i].source, rows, o);
        lc_quantize_result packed = pack(rows, after);
        o.strips = true;
        assert_ok(lc_pool_new((int)i % 3 + 1, &o.pool, &err), err);
        lc_quantize_result both = quantize(cases[i].source, once, o);
        lc_pool_free(o.pool);
        printf("# %s: %zu quantised, %zu by row, %zu packed\n", cases[i].source, plain.quantised,
               plain.by_row, packed.packed);
        assert_true(packed.packed > 0 && packed.packed == both.packed);
        assert_int_equal(plain.quantised, both.quantised);
        assert_int_equal(compare_models(rows, after), packed.packed);
        same_tensors(after, once);
        /* scales of codes that are kept are listed there while they are tensors of their own */
        if (!strstr(cases[i].source, "int8")) same_file(after, once, "config.json");
        remove_folder(rows);
        remove_folder(after);
        remove_folder(once);
    }
}

/* A table's rows are looked up one at a time: even quantised ones stay by row. */
static void test_tables(void **unused) {
    (void)unused;
    static const char *const tables[] = {"model.embed_tokens.weight",
                                         "model.ngram_embeddings.embedders.0.weight"};
    const char *out = in_scratch("tables");
    lc_tensors *tensors = NULL;
    lc_err err = {0};
    lc_quantize_options o = strips_of(LC_QUANTIZE_INT8, 0);
    o.embeddings = o.strips = true;
    assert_int_equal(quantize(GOLDEN "source", out, o).unpacked, 0);
    assert_ok(lc_tensors_open(out, &tensors, &err), err);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        const lc_tensor *t = lc_tensors_find(tensors, tables[i]);
        assert_non_null(t);
        assert_int_equal(t->dtype, LC_I8);
    }
    lc_tensors_close(tensors);
    remove_folder(out);
}

/* The layout that docs/formats.md gives, word by word; rows behind the last are zero. Two BF16
 * values by row are a word, too. */
static void test_layout(void **unused) {
    (void)unused;
    const char *rows = in_scratch("rows"), *out = in_scratch("strips");
    size_t checked = 0, values = 0;
    for (int four = 0; four < 2; four++) {
        quantize(GOLDEN "source", rows, options_of(four ? LC_QUANTIZE_INT4 : LC_QUANTIZE_INT8, 32));
        pack(rows, out);
        model a = open_model(rows), b = open_model(out);
        for (size_t t = 0; t < lc_tensors_count(b.tensors); t++) {
            const lc_tensor *s = lc_tensors_at(b.tensors, t), *from, *scales;
            char name[300];
            size_t len = strlen(s->name);
            if (len < 7 || strcmp(s->name + len - 7, "_strips")) continue;
            snprintf(name, sizeof name, "%.*s_strip_scale", (int)len - 7, s->name);
            scales = lc_tensors_find(b.tensors, name);
            snprintf(name, sizeof name, "%.*s%s", (int)len - 7, s->name,
                     four && scales ? "_packed" : "");
            from = lc_tensors_find(a.tensors, name);
            assert_true(from && s->rank == 3 && (!scales || scales->rank == 3));
            assert_true((scales == NULL) == (from->dtype == LC_BF16));
            values += from->dtype == LC_BF16;
            assert_int_equal((uintptr_t)s->data % 64, 0);
            size_t words = s->shape[1];
            assert_int_equal(words * 4 * from->shape[0], from->size);
            assert_int_equal(s->shape[0], (from->shape[0] + 15) / 16);
            for (size_t r = 0; r < 16 * s->shape[0]; r++)
                for (size_t w = 0; w < words; w++) {
                    uint32_t got, want = 0;
                    memcpy(&got, (const char *)s->data + r / 16 * words * 64 + 64 * w + r % 16 * 4,
                           4);
                    if (r < from->shape[0])
                        memcpy(&want, (const char *)from->data + 4 * (r * words + w), 4);
                    assert_int_equal(got, want);
                    checked++;
                }
        }
        lc_tensors_close(a.tensors);
        lc_tensors_close(b.tensors);
        remove_folder(rows);
        remove_folder(out);
    }
    assert_true(checked > 1000 && values == 4); /* twice head and projection */
}

/* ---- gate_proj and up_proj ---- */

/* A checkpoint of one file with its tensors changed by `change`. */
static void write_changed(const char *folder, const char *source, void (*change)(lc_tensor *)) {
    lc_tensors *t;
    lc_err err = {0};
    char path[512];
    lc_buf config = {0};
    assert_int_equal(mkdir(folder, 0755), 0);
    snprintf(path, sizeof path, "%s/model.safetensors", source);
    assert_ok(lc_tensors_open(path, &t, &err), err);
    size_t n = lc_tensors_count(t);
    lc_tensor *out = calloc(n, sizeof *out);
    for (size_t i = 0; i < n; i++) {
        out[i] = *lc_tensors_at(t, i);
        out[i].data = memcpy(malloc(out[i].size + 1), out[i].data, out[i].size);
        change(&out[i]);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_ok(lc_safetensors_write(path, out, n, &err), err);
    snprintf(path, sizeof path, "%s/config.json", source);
    assert_ok(lc_file_read(path, 0, &config, &err), err);
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_ok(lc_file_write(path, config.data, config.len, &err), err);
    lc_buf_free(&config);
    for (size_t i = 0; i < n; i++) free((void *)(uintptr_t)out[i].data);
    free(out);
    lc_tensors_close(t);
}

/* pack-quantized int8 of the second FFN gets the zero point 128, except for rows of gate_proj. */
static bool asymmetric;
static void change_zeros(lc_tensor *t) {
    if (!strstr(t->name, "mlps.1.") || !strstr(t->name, "zero_point")) return;
    memset((void *)(uintptr_t)t->data, 0x80, t->size);
    if (asymmetric && strstr(t->name, "gate_proj")) memset((void *)(uintptr_t)t->data, 0x81, 4);
}

/* gate_proj and up_proj must have codes of one kind: both become signed bytes or neither. */
static void test_pairs(void **unused) {
    (void)unused;
    const char *source = in_scratch("changed"), *out = in_scratch("pairs");
    for (int i = 0; i < 2; i++) {
        asymmetric = i == 1;
        write_changed(source, GOLDEN "compressed-tensors", change_zeros);
        lc_quantize_result r = pack(source, out);
        assert_int_equal(r.packed, asymmetric ? 20 : 22); /* 19 and down_proj, or all three */
        assert_int_equal(compare_models(source, out), r.packed);
        model m = open_model(out);
        lc_mat gate, up;
        lc_err err = {0};
        size_t f = m.config.ffn, h = m.config.hidden;
        assert_ok(
            lc_mat_bind(m.tensors, "model.layers.0.mlps.1.gate_proj.weight", f, h, &gate, &err),
            err);
        assert_ok(lc_mat_bind(m.tensors, "model.layers.0.mlps.1.up_proj.weight", f, h, &up, &err),
                  err);
        assert_true(lc_mat_same_groups(&gate, &up));
        assert_int_equal(lc_mat_in_strips(&up), !asymmetric);
        lc_mat_unbind(&gate);
        lc_mat_unbind(&up);
        lc_tensors_close(m.tensors);
        remove_folder(source);
        remove_folder(out);
    }
}

static void make_f16(lc_tensor *t) {
    if (strstr(t->name, "mlps.1.up_proj")) t->dtype = LC_F16;
}

static void lay_by_row(lc_tensor *t) {
    if (strcmp(t->name, "model.layers.0.mlps.1.up_proj.weight_strips")) return;
    t->name = "model.layers.0.mlps.1.up_proj.weight";
    t->dtype = LC_BF16;
    t->rank = 2;
    t->shape[0] = t->shape[1] = 64;
}

/* BF16 in strips for both, or for neither; a file with one of each is refused. */
static void test_bf16_pairs(void **unused) {
    (void)unused;
    const char *source = in_scratch("changed"), *out = in_scratch("pairs"),
               *odd = in_scratch("odd");
    write_changed(source, GOLDEN "source", make_f16);
    lc_quantize_result r = pack(source, out);
    assert_int_equal(r.packed, 23); /* not gate_proj and up_proj */
    assert_int_equal(r.unpacked, 1);
    assert_int_equal(compare_models(source, out), r.packed);
    model m = open_model(out);
    assert_non_null(lc_tensors_find(m.tensors, "model.layers.0.mlps.1.gate_proj.weight"));
    assert_non_null(lc_tensors_find(m.tensors, "model.layers.0.mlps.0.gate_proj.weight_strips"));
    lc_tensors_close(m.tensors);
    remove_folder(source);
    remove_folder(out);

    lc_model *opened;
    lc_err err = {0};
    pack(GOLDEN "source", out);
    assert_ok(lc_model_open(out, NULL, 0, &opened, &err), err);
    lc_model_close(opened);
    write_changed(odd, out, lay_by_row);
    assert_int_equal(lc_model_open(odd, NULL, 0, &opened, &err), LC_EFORMAT);
    assert_non_null(strstr(err.text, "mlps.1: of gate_proj and up_proj one is BF16 in strips"));
    remove_folder(odd);
    remove_folder(out);
}

/* ---- kill -9, memory ---- */

/* Killed after each shard. */
static void pack_and_die(const char *folder) {
    const char *whole = in_scratch("whole"), *out = in_scratch("some");
    lc_quantize_options o = strips_of(LC_QUANTIZE_NONE, 0);
    o.shard_bytes = 20000;
    lc_quantize_result all = quantize(folder, whole, o);
    assert_true(all.shards >= 5);
    for (size_t shards = 0; shards < all.shards; shards++) {
        run_and_die(folder, out, o, (killing){0, shards});
        assert_false(exists(out, "config.json"));
        assert_int_equal(quantize(folder, out, o).kept, shards);
        same_tensors(whole, out);
        same_file(whole, out, "config.json");
        remove_folder(out);
    }
    printf("# killed after each of %zu shards, the same tensors\n", all.shards);
    remove_folder(whole);
}

static void test_resume(void **unused) {
    (void)unused;
    const char *rows = in_scratch("rows"), *out = in_scratch("some");
    quantize(GOLDEN "source", rows, options_of(LC_QUANTIZE_MIXED, 32));
    pack_and_die(rows);
    pack_and_die(GOLDEN "source");
    /* other options are refused: without strips, another type */
    lc_quantize_options q = strips_of(LC_QUANTIZE_INT4, 32);
    q.shard_bytes = 20000;
    q.progress = stop;
    refuse(GOLDEN "source", out, q, LC_ECANCELED, "cancelled");
    q.progress = NULL;
    q.strips = false;
    refuse(GOLDEN "source", out, q, LC_EINVAL, "other options");
    q.strips = true;
    assert_int_equal(quantize(GOLDEN "source", out, q).kept, 1);
    remove_folder(out);
    remove_folder(rows);
}

/* Every allocation fails once. */
static void test_memory(void **unused) {
    (void)unused;
    const char *out = in_scratch("memory");
    lc_quantize_options o = strips_of(LC_QUANTIZE_NONE, 0);
    lc_quantize_result r;
    lc_err err = {0};
    size_t before = lc_mem_current();
    int status = LC_ENOMEM, failures = 0;
    for (long n = 0; status != LC_OK; n += n < 60 ? 1 : 23) {
        lc_mem_fail_after(n);
        status = lc_quantize(GOLDEN "gptq", out, &o, &r, &err);
        lc_mem_fail_after(-1);
        if (status != LC_OK && status != LC_ENOMEM) fail_msg("allocation %ld: %s", n, err.text);
        assert_int_equal(lc_mem_current(), before);
        failures += status == LC_ENOMEM;
        remove_folder(out);
    }
    assert_true(failures > 60);
    printf("# %d failing allocations\n", failures);
}

/* ---- the command ---- */

static void test_command(void **unused) {
    (void)unused;
    char line[256];
    const char *out = in_scratch("command");
    assert_int_equal(run_command("pack " GOLDEN "gptq"), 2);
    snprintf(line, sizeof line, "pack tests/golden/model/flash-tiny %s", out);
    assert_int_equal(run_command(line), 1);
    said("stderr", "holds no weights that can be packed");
    snprintf(line, sizeof line, "pack " GOLDEN "gptq %s", out);
    assert_int_equal(run_command(line), 0);
    said("stdout", "20 of 55 tensors packed");
    said("stderr", "weights that are not packed: 5; BF16 and symmetric codes");
    snprintf(line, sizeof line, "inspect %s", out);
    assert_int_equal(run_command(line), 0);
    said("stdout", "quantised: gptq");
    said("stdout", "in strips");
    said("stdout", "all that the config asks for, and no others");
    snprintf(line, sizeof line, "inspect --json %s", out);
    assert_int_equal(run_command(line), 0);
    said("stdout", "\"strips\":true");
    remove_folder(out);
    snprintf(line, sizeof line, "quantize " GOLDEN "source %s --type int4 --group 32 --pack", out);
    assert_int_equal(run_command(line), 0);
    said("stdout", "25 of 40 tensors quantised, 27 packed");
    remove_folder(out);
}

/* The hash of all weights tells whether training reads the same ones, the draft module's too. */
static void weights_hash(const char *folder, char hash[64]) {
    char line[256];
    lc_buf text = {0};
    lc_err err = {0};
    snprintf(line, sizeof line, "eval hash %s --weights", folder);
    assert_int_equal(run_command(line), 0);
    assert_ok(lc_file_read(in_scratch("stdout"), 0, &text, &err), err);
    assert_true(text.len > 30);
    snprintf(hash, 64, "%s", text.data);
    lc_buf_free(&text);
}

static void test_bf16_command(void **unused) {
    (void)unused;
    char line[256], plain[64], packed[64];
    const char *out = in_scratch("command");
    snprintf(line, sizeof line, "pack " TWO " %s", out);
    assert_int_equal(run_command(line), 0);
    said("stdout", "66 of 202");
    said("stdout", " tensors packed, ");
    said("stderr", "weights that are not packed: 47; BF16 and symmetric codes");
    weights_hash(TWO, plain);
    weights_hash(out, packed);
    assert_string_equal(plain, packed);
    snprintf(line, sizeof line, "inspect %s", out);
    assert_int_equal(run_command(line), 0);
    said("stdout", "Tensors: 202; F32 18.85 KiB, BF16 1.39 MiB\n");
    said("stdout", "  in strips of 16 rows");
    said("stdout", "all that the config asks for, and no others");
    snprintf(line, sizeof line, "inspect --json %s", out);
    assert_int_equal(run_command(line), 0);
    said("stdout", "\"strips\":true");
    said("stdout", "\"BF16\":");
    snprintf(line, sizeof line, "quantize %s %s --type int8", out, in_scratch("no"));
    assert_int_equal(run_command(line), 1);
    said("stderr", "quantise the checkpoint that it was packed from");
    remove_folder(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tools),        cmocka_unit_test(test_quantize),
        cmocka_unit_test(test_tables),       cmocka_unit_test(test_layout),
        cmocka_unit_test(test_pairs),        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_memory),       cmocka_unit_test(test_command),
        cmocka_unit_test(test_bf16),         cmocka_unit_test(test_bf16_pairs),
        cmocka_unit_test(test_bf16_command),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, make_scratch, drop_scratch);
}
