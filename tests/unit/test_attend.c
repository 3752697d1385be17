/*
 * test_attend.c (uses-threads): attention over long contexts and the choice of keys, against slow
 * writings of numerics.md 3 and 4 that share no code with them (but exp, which test_kernels
 * checks), for every instruction set and for numbers of threads that share a row, a tile, or not.
 */
#include "test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "ops/attend.h"
#include "ops/indexer.h"
#include "store/kv.h"

#include <math.h>

enum { MOST_THREADS = 8 };
static const int thread_counts[] = {1, 2, 3, MOST_THREADS};

/* Uniform in -1 .. 1. */
static float uniform(uint64_t stream, uint64_t i) {
    return (float)(int32_t)lc_rng(11, stream, i).word[0] / 2147483648.0f;
}

static void *zeroed(size_t bytes) {
    void *p = calloc(1, bytes);
    assert_non_null(p);
    return p;
}

/* An operator's context with a pool. */
typedef struct bench {
    lc_op op;
    float *scratch[MOST_THREADS];
    int threads;
} bench;

/* false: this machine lacks the instruction set. */
static bool bench_open(bench *b, lc_isa isa, bool bf16, int threads) {
    lc_err err = {0};
    const lc_kernels *k = lc_kernels_of(isa);
    if (!k) return false;
    *b = (bench){.threads = threads};
    b->op = (lc_op){.k = k, .path = bf16 ? &k->bf16 : &k->f32, .scratch = b->scratch};
    assert_ok(lc_pool_new(threads, &b->op.pool, &err), err);
    return true;
}

static void bench_scratch(bench *b, size_t floats) {
    for (int i = 0; i < b->threads; i++) {
        b->scratch[i] = lc_calloc(floats, sizeof(float));
        assert_non_null(b->scratch[i]);
    }
}

static void bench_close(bench *b) {
    for (int i = 0; i < b->threads; i++) lc_free(b->scratch[i]);
    lc_pool_free(b->op.pool);
}

/* ---- attention ---- */

/* Sequences of cached rows, step rows that see parts of them, and queries. */
typedef struct attention {
    const char *name;
    size_t heads, rank, rope, rows;
    struct {
        size_t sequence, start, pos, chosen; /* chosen: keys of a list, 0: all */
    } row[40];
} attention;

enum { SEQUENCES = 3, LENGTH = 1500, MOST_KEYS = 1300 };

/* clang-format off */
#define FOUR(pos) {1, 0, pos, 0}, {1, 0, pos + 1, 0}, {1, 0, pos + 2, 0}, {1, 0, pos + 3, 0}
static const attention attentions[] = {
    {"one row", 5, 20, 6, 1, {{0, 0, 1499, 0}}},
    {"one row, whole groups of heads", 32, 64, 32, 1, {{0, 0, 1290, 0}}},
    {"one row, 40 heads", 40, 96, 32, 1, {{1, 0, 1100, 0}}},
    {"one chosen row", 5, 20, 6, 1, {{0, 0, 1499, 1217}}},
    {"one chosen row, wide", 16, 160, 32, 1, {{0, 0, 1499, 1152}}},
    {"drafts", 16, 64, 32, 4, {{0, 0, 1145, 0}, {0, 0, 1146, 0}, {0, 0, 1147, 0}, {0, 0, 1148, 0}}},
    {"documents", 6, 20, 6, 6, {{0, 0, 60, 0}, {0, 0, 70, 0}, {0, 71, 71, 0}, {0, 71, 200, 0},
                                {0, 201, 260, 0}, {0, 260, 1300, 0}}},
    {"a batch", 4, 20, 6, 7, {{0, 0, 1400, 0}, {1, 0, 3, 0}, {1, 0, 4, 0}, {2, 0, 700, 300},
                              {2, 0, 701, 301}, {2, 0, 702, 0}, {0, 0, 64, 0}}},
    {"a prompt", 3, 20, 6, 40, {{0, 0, 30, 0}, {0, 0, 31, 0}, {0, 0, 32, 0}, {0, 0, 33, 0},
        {0, 0, 60, 0}, {0, 0, 61, 0}, {0, 0, 62, 0}, {0, 0, 63, 0}, {0, 0, 64, 0}, {0, 0, 65, 0},
        {0, 0, 66, 0}, {0, 0, 67, 0}, {0, 0, 68, 0}, {0, 0, 69, 0}, {0, 0, 70, 0}, {0, 0, 71, 0},
        {0, 0, 126, 0}, {0, 0, 127, 0}, {0, 0, 128, 0}, {0, 0, 129, 0}, {0, 0, 130, 9},
        {0, 0, 131, 80}, {0, 0, 132, 0}, {0, 0, 133, 0}, {0, 0, 134, 0}, {0, 0, 135, 0},
        {0, 0, 136, 0}, {0, 0, 137, 0}, {0, 0, 138, 0}, {0, 0, 139, 0}, {0, 0, 140, 0},
        {0, 0, 141, 0}, {0, 0, 142, 0}, {0, 0, 143, 0}, {0, 0, 144, 0}, {0, 0, 145, 0},
        {0, 0, 146, 0}, {0, 0, 147, 0}, {0, 0, 148, 0}, {1, 0, 149, 0}}},
    {"two rows, two starts", 3, 20, 6, 2, {{0, 0, 200, 0}, {0, 70, 201, 0}}},
    {"a prompt, parts of 21 heads", 21, 40, 6, 40, {FOUR(100), FOUR(104), FOUR(108), FOUR(112),
        FOUR(116), FOUR(120), FOUR(124), FOUR(128), FOUR(132), FOUR(136)}},
    {"13 rows, a part of 5 of 24 heads", 24, 4, 2, 13, {FOUR(1000), FOUR(1004), FOUR(1008),
        {1, 0, 1012, 0}}},
    {"a prompt, many rows of 8 heads", 8, 64, 32, 36, {FOUR(1000), FOUR(1004), FOUR(1008),
        FOUR(1012), FOUR(1016), FOUR(1020), FOUR(1024), FOUR(1028), FOUR(1032)}},
};
/* clang-format on */

/* The j-th of n keys among start .. pos, ascending, all different. */
static size_t chosen_key(size_t start, size_t pos, size_t n, size_t j) {
    return start + j * (pos + 1 - start) / n;
}

static float round_as(bool bf16, float x) { return bf16 ? lc_bf16_to_f32(lc_f32_to_bf16(x)) : x; }

/* numerics.md 1 over n values, padded with zeros to whole blocks. */
static float dot(const float *a, const float *b, size_t n) {
    float acc = 0.0f;
    for (size_t block = 0; block < n; block += 32) {
        float e = 0.0f, o = 0.0f;
        for (size_t j = block; j < block + 32; j += 2) {
            e = fmaf(j < n ? a[j] : 0.0f, j < n ? b[j] : 0.0f, e);
            o = fmaf(j + 1 < n ? a[j + 1] : 0.0f, j + 1 < n ? b[j + 1] : 0.0f, o);
        }
        acc = acc + (e + o);
    }
    return acc;
}

static float exp_of(float x) {
    float y;
    lc_kernels_of(LC_ISA_SCALAR)->exp_sum(1, &x, 0.0f, &y);
    return y;
}

static float lane_sum(const float *x, size_t n) {
    float lane[16] = {0};
    for (size_t i = 0; i < n; i++) lane[i % 16] += x[i];
    for (size_t half = 8; half; half /= 2)
        for (size_t i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

/* numerics.md 3 for one head: query [W], keys [n blocks of 64][W] of which `sees` says which count;
 * context [rank]. */
static void attend_slowly(const attention *x, bool bf16, float scale, const float *query,
                          const float *keys, const bool *sees, size_t blocks, float *context) {
    size_t width = x->rank + x->rope;
    float m = -INFINITY, sum = 0.0f;
    for (size_t c = 0; c < x->rank; c++) context[c] = 0.0f;
    for (size_t b = 0; b < blocks; b++) {
        float p[64], rounded[64], column[64], most = -INFINITY;
        bool any = false;
        for (size_t j = 0; j < 64; j++) {
            any |= sees[b * 64 + j];
            p[j] = -INFINITY;
            if (sees[b * 64 + j]) p[j] = dot(query, keys + (b * 64 + j) * width, width) * scale;
            if (p[j] > most) most = p[j];
        }
        if (!any) continue;
        if (m > most) most = m;
        float alpha = exp_of(m - most);
        for (size_t j = 0; j < 64; j++) {
            p[j] = exp_of(p[j] - most);
            rounded[j] = round_as(bf16, p[j]);
        }
        sum = fmaf(sum, alpha, lane_sum(p, 64));
        m = most;
        for (size_t c = 0; c < x->rank; c++) {
            for (size_t j = 0; j < 64; j++) column[j] = keys[(b * 64 + j) * width + c];
            context[c] = fmaf(context[c], alpha, dot(rounded, column, 64));
        }
    }
    for (size_t c = 0; c < x->rank; c++) context[c] = context[c] * (1.0f / sum);
}

static float cached(const attention *x, bool bf16, size_t sequence, size_t pos, size_t c) {
    return round_as(bf16, uniform(sequence, pos * (x->rank + x->rope) + c) * 2.0f);
}

/* Contexts of all step rows and heads: [heads][rows][rank]. */
static void expect_contexts(const attention *x, bool bf16, float scale, const float *queries,
                            float *out) {
    size_t width = x->rank + x->rope, blocks = LENGTH / 64 + 1;
    float *keys = zeroed(blocks * 64 * width * sizeof *keys);
    float *query = zeroed(width * sizeof *query);
    bool *sees = zeroed(blocks * 64);
    for (size_t i = 0; i < x->rows; i++) {
        size_t start = x->row[i].start, pos = x->row[i].pos, n = x->row[i].chosen;
        memset(keys, 0, blocks * 64 * width * sizeof *keys);
        memset(sees, 0, blocks * 64);
        for (size_t j = 0; j < (n ? n : pos + 1); j++) {
            size_t at = n ? chosen_key(start, pos, n, j) : j;
            sees[j] = n || j >= start;
            for (size_t c = 0; c < width; c++)
                keys[j * width + c] = cached(x, bf16, x->row[i].sequence, at, c);
        }
        for (size_t h = 0; h < x->heads; h++) {
            for (size_t c = 0; c < width; c++)
                query[c] = round_as(bf16, queries[(h * x->rows + i) * width + c]);
            attend_slowly(x, bf16, scale, query, keys, sees, blocks,
                          out + (h * x->rows + i) * x->rank);
        }
    }
    free(keys), free(query), free(sees);
}

static void fill_caches(const attention *x, bool bf16, lc_kv kv[SEQUENCES]) {
    size_t width = x->rank + x->rope;
    lc_err err = {0};
    lc_kv_layout layout = {.slots = 2, .width = width, .element = bf16 ? 2 : 4};
    for (size_t s = 0; s < SEQUENCES; s++) {
        lc_kv_init(&kv[s], &layout);
        assert_ok(lc_kv_reserve(&kv[s], 0, LENGTH, &err), err);
        for (size_t pos = 0; pos < LENGTH; pos++)
            for (size_t c = 0; c < width; c++) {
                float v = cached(x, bf16, s, pos, c);
                uint16_t half = lc_f32_to_bf16(v);
                memcpy(lc_kv_latent(&kv[s], 1, pos) + c * layout.element,
                       bf16 ? (void *)&half : (void *)&v, layout.element);
            }
    }
}

typedef struct attention_run {
    const attention *x;
    bool bf16;
    lc_mla_shape shape;
    lc_row rows[40];
    size_t count[40];
    int32_t *list; /* [rows][MOST_KEYS] */
    float *queries, *work, *want;
    lc_kv kv[SEQUENCES];
} attention_run;

static void attend_and_compare(attention_run *r, lc_isa isa, int threads) {
    const attention *x = r->x;
    size_t width = x->rank + x->rope;
    bench b;
    if (!bench_open(&b, isa, r->bf16, threads)) return;
    bench_scratch(&b, lc_attend_scratch(&b.op, &r->shape));
    memcpy(r->work, r->queries, x->rows * x->heads * width * sizeof *r->work);
    lc_mla_args args = {.rows = r->rows, .slot = 1, .keys = {r->list, MOST_KEYS, r->count}};
    lc_attend(&b.op, &r->shape, x->rows, &args, r->work);
    for (size_t i = 0; i < x->rows * x->heads; i++)
        for (size_t c = 0; c < x->rank; c++)
            if (memcmp(&r->work[i * width + c], &r->want[i * x->rank + c], sizeof(float)))
                fail_msg("%s, %s, %s, %d threads: row %zu head %zu column %zu is %a, not %a",
                         x->name, r->bf16 ? "bf16" : "f32", lc_isa_name(isa), threads, i % x->rows,
                         i / x->rows, c, (double)r->work[i * width + c],
                         (double)r->want[i * x->rank + c]);
    bench_close(&b);
}

static void check_attention(const attention *x, bool bf16) {
    size_t width = x->rank + x->rope, floats = x->rows * x->heads * width;
    attention_run r = {.x = x, .bf16 = bf16};
    r.shape = (lc_mla_shape){.heads = x->heads,
                             .kv_rank = x->rank,
                             .rope = x->rope,
                             .softmax_scale = 1.0f / sqrtf((float)width)};
    r.list = zeroed(x->rows * MOST_KEYS * sizeof *r.list);
    r.queries = zeroed(floats * sizeof *r.queries);
    r.work = zeroed(floats * sizeof *r.work);
    r.want = zeroed(floats * sizeof *r.want);
    fill_caches(x, bf16, r.kv);
    for (size_t i = 0; i < floats; i++) r.queries[i] = uniform(99, i) * 3.0f;
    for (size_t i = 0; i < x->rows; i++) {
        size_t start = x->row[i].start, pos = x->row[i].pos, n = x->row[i].chosen;
        assert_true(pos < LENGTH && n <= MOST_KEYS);
        r.rows[i] = (lc_row){.kv = &r.kv[x->row[i].sequence], .pos = pos, .start = start};
        r.count[i] = n ? n : pos + 1 - start;
        for (size_t j = 0; j < n; j++)
            r.list[i * MOST_KEYS + j] = (int32_t)chosen_key(start, pos, n, j);
    }
    expect_contexts(x, bf16, r.shape.softmax_scale, r.queries, r.want);
    for (int isa = 0; isa < LC_ISA_COUNT; isa++)
        for (size_t t = 0; t < 4; t++) attend_and_compare(&r, (lc_isa)isa, thread_counts[t]);
    for (size_t s = 0; s < SEQUENCES; s++) lc_kv_free(&r.kv[s]);
    free(r.list), free(r.queries), free(r.work), free(r.want);
}

static void attention_is_the_written_order(void **unused) {
    (void)unused;
    size_t n = sizeof attentions / sizeof *attentions;
    uint64_t fp = lc_fp_enter();
    for (size_t i = 0; i < n; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) check_attention(&attentions[i], bf16);
    lc_fp_leave(fp);
    print_message("# %zu cases in two types, 4 numbers of threads, every instruction set\n", n);
}

/* ---- choice of keys ---- */

/* Rank of a score by its bits: sign and magnitude, -0.0 as 0.0. */
static int64_t rank_of(float score) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    int64_t magnitude = bits & 0x7fffffff;
    return bits & 0x80000000u ? -magnitude - (magnitude > 0) : magnitude;
}

typedef struct candidate {
    int64_t rank;
    size_t pos;
} candidate;

static int better_first(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->rank != y->rank) return x->rank > y->rank ? -1 : 1;
    return x->pos < y->pos ? -1 : 1;
}

static int ascending(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* By sorting everything. */
static size_t choose_slowly(const lc_index_shape *s, const lc_index_scores *x, int32_t *list) {
    size_t count = 0, taken = 0;
    candidate *c = zeroed(x->n * sizeof *c);
    for (size_t i = 0; i < x->n; i++) c[i] = (candidate){rank_of(x->score[i]), i};
    qsort(c, x->n, sizeof *c, better_first);
    for (size_t i = 0; i < x->n; i++) {
        bool fixed = x->n <= s->topk || c[i].pos < s->sink || c[i].pos >= x->n - s->window;
        if (!fixed && taken == s->topk - s->sink - s->window) continue;
        taken += !fixed;
        list[count++] = (int32_t)(x->start + c[i].pos);
    }
    qsort(list, count, sizeof *list, ascending);
    free(c);
    return count;
}

/* Makes hard choices: few values, many ties, everything that a float can be. */
static float hard_score(int kind, size_t i) {
    static const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1.0f, -1.0f, 0x1p-149f};
    uint32_t random = lc_rng(5, (uint64_t)kind, i).word[0], bits = random;
    float any;
    memcpy(&any, &bits, sizeof any);
    switch (kind) {
    case 0: return 0.25f;                     /* all equal */
    case 1: return random & 1 ? 0.0f : -0.0f; /* equal, two signs */
    case 2: return -INFINITY;
    case 3: return special[random % 8];
    case 4: return random & 8 ? NAN : -NAN;
    case 5: return any;                                   /* any bits */
    case 6: return (float)(random % 3) - 1.0f;            /* three values */
    case 7: return (float)i;                              /* rising */
    case 8: return -(float)i;                             /* falling */
    case 9: return 1.0f + (float)(random % 5) * 0x1p-23f; /* last bits only */
    default: return (float)(random % 100000) / 100000.0f;
    }
}

static void choice_is_that_of_sorting(void **unused) {
    (void)unused;
    static const struct {
        size_t n, topk, sink, window;
    } shapes[] = {{9, 8, 2, 3},          {10, 9, 0, 0},      {17, 1, 0, 0},
                  {40, 16, 5, 11},       {300, 128, 16, 64}, {128, 128, 16, 64},
                  {129, 128, 0, 64},     {4096, 100, 1, 2},  {4200, 4097, 0, 4096},
                  {6000, 2048, 16, 1024}};
    size_t cases = 0, most = 40000;
    float *score = zeroed(most * sizeof *score);
    uint32_t *work = zeroed(2 * most * sizeof *work);
    int32_t *want = zeroed(most * sizeof *want), *got = zeroed(most * sizeof *got);
    for (size_t s = 0; s <= sizeof shapes / sizeof *shapes; s++)
        for (int kind = 0; kind <= 10; kind++) {
            bool huge = s == sizeof shapes / sizeof *shapes;
            lc_index_shape shape = {.topk = 2048, .sink = 16, .window = 1024};
            lc_index_scores x = {70 + s, most, score};
            if (!huge) {
                shape.topk = shapes[s].topk;
                shape.sink = shapes[s].sink;
                shape.window = shapes[s].window;
                x.n = shapes[s].n;
            }
            for (size_t i = 0; i < x.n; i++) score[i] = hard_score(kind, i);
            size_t count = choose_slowly(&shape, &x, want);
            for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
                const lc_kernels *k = lc_kernels_of((lc_isa)isa);
                if (!k) continue;
                assert_int_equal(lc_index_select(k, &shape, &x, work, got), count);
                if (memcmp(want, got, count * sizeof *got))
                    fail_msg("%zu of %zu scores of kind %d: choice differs with %s", shape.topk,
                             x.n, kind, lc_isa_name((lc_isa)isa));
                cases++;
            }
        }
    print_message("# %zu choices equal sorting\n", cases);
    free(score), free(work), free(want), free(got);
}

/* ---- the indexer's scores and lists, shared by threads ---- */

enum { HIDDEN = 32, INDEX_HEADS = 3, INDEX_DIM = 20, INDEX_ROPE = 6, INDEX_ROWS = 7 };

typedef struct index_run {
    lc_index_shape shape;
    lc_kv kv[2];
    lc_row rows[INDEX_ROWS];
    float *x, *weights; /* [rows][HIDDEN]; of all three matrices */
    float *scores;      /* [rows][LENGTH] */
    int32_t *list;      /* [rows][topk] */
    size_t count[INDEX_ROWS];
} index_run;

static lc_mat matrix(const float *data, size_t rows) {
    return (lc_mat){.name = "test",
                    .type = LC_F32,
                    .place = LC_PLACE_RESIDENT,
                    .rows = rows,
                    .cols = HIDDEN,
                    .data = data};
}

/* Every score from the queries and weights that the run left in its buffers, and the lists by
 * sorting them. */
static void check_scores(const index_run *r, const lc_index_buffers *b, bool bf16, size_t m) {
    float q[INDEX_DIM], key[INDEX_DIM];
    int32_t *list = zeroed(r->shape.topk * sizeof *list);
    for (size_t i = 0; i < m; i++) {
        const lc_row *row = &r->rows[i];
        const float *got = r->scores + i * LENGTH;
        for (size_t p = 0; p <= row->pos; p++) {
            float want = 0.0f;
            const char *at = lc_kv_index(row->kv, 0, p);
            for (size_t c = 0; c < INDEX_DIM; c++) {
                uint16_t half;
                memcpy(&half, at + c * 2, sizeof half);
                if (bf16)
                    key[c] = lc_bf16_to_f32(half);
                else
                    memcpy(&key[c], at + c * 4, sizeof *key);
            }
            for (size_t h = 0; h < INDEX_HEADS; h++) {
                for (size_t c = 0; c < INDEX_DIM; c++)
                    q[c] = round_as(bf16, b->q[(i * INDEX_HEADS + h) * INDEX_DIM + c]);
                float d = dot(q, key, INDEX_DIM);
                want = fmaf(b->weights[i * INDEX_HEADS + h], d > 0 ? d : 0.0f, want);
            }
            assert_memory_equal(&want, &got[p], sizeof want);
        }
        size_t count = choose_slowly(&r->shape, &(lc_index_scores){0, row->pos + 1, got}, list);
        assert_int_equal(b->count[i], count);
        assert_memory_equal(list, b->list + i * r->shape.topk, count * sizeof *list);
    }
    free(list);
}

static bool run_indexer(index_run *r, lc_isa isa, bool bf16, int threads, size_t m) {
    bench b;
    size_t floats[LC_INDEX_BUFFERS];
    float ones[INDEX_DIM], cosines[INDEX_ROWS * INDEX_ROPE], *parts[LC_INDEX_BUFFERS], *space;
    lc_err err = {0};
    if (!bench_open(&b, isa, bf16, threads)) return false;
    lc_op exact = lc_op_exact(&b.op);
    bench_scratch(&b, lc_index_scratch(&b.op, &r->shape, LENGTH) +
                          lc_columns_floats(&b.op, INDEX_ROWS, HIDDEN) +
                          lc_columns_floats(&exact, INDEX_ROWS, HIDDEN));
    lc_index_floats(&r->shape, INDEX_ROWS, floats);
    for (int i = 0; i < LC_INDEX_BUFFERS; i++) parts[i] = lc_calloc(floats[i], sizeof(float));
    size_t operand = lc_operand_floats(&b.op, INDEX_ROWS, HIDDEN);
    space = lc_calloc(2 * operand, sizeof *space);
    for (size_t i = 0; i < INDEX_DIM; i++) ones[i] = 1.0f;
    for (size_t i = 0; i < INDEX_ROWS * INDEX_ROPE; i++) cosines[i] = 0.5f;
    lc_indexer_weights weights = {
        .wq_b = matrix(r->weights, INDEX_HEADS * INDEX_DIM),
        .wk = matrix(r->weights + INDEX_HEADS * INDEX_DIM * HIDDEN, INDEX_DIM),
        .weights = matrix(r->weights + 200, INDEX_HEADS),
        .k_norm = ones};
    lc_index_buffers buffers = {parts[0], parts[1], parts[2], parts[3], r->list, r->count};
    lc_probe probe = {.scores = r->scores, .ld_scores = LENGTH};
    lc_operand x = lc_operand_of(m, HIDDEN, r->x, HIDDEN, space),
               c_q = lc_operand_of(m, HIDDEN, r->x, HIDDEN, space + operand);
    lc_index_args args = {.rows = r->rows,
                          .rope = {cosines, cosines},
                          .x = &x,
                          .c_q = &c_q,
                          .context = LENGTH,
                          .probe = &probe};
    assert_ok(lc_index(&b.op, &r->shape, &weights, &args, &buffers, &err), err);
    check_scores(r, &buffers, bf16, m);
    for (int i = 0; i < LC_INDEX_BUFFERS; i++) lc_free(parts[i]);
    lc_free(space);
    bench_close(&b);
    return true;
}

static void index_caches(index_run *r, bool bf16) {
    lc_kv_layout layout = {.indexers = 1, .index_dim = INDEX_DIM, .element = bf16 ? 2 : 4};
    lc_err err = {0};
    for (size_t s = 0; s < 2; s++) {
        lc_kv_init(&r->kv[s], &layout);
        assert_ok(lc_kv_reserve(&r->kv[s], 0, LENGTH, &err), err);
        for (size_t i = 0; i < LENGTH * INDEX_DIM; i++) {
            float v = uniform(20 + s, i);
            uint16_t half = lc_f32_to_bf16(v);
            memcpy(lc_kv_index(&r->kv[s], 0, i / INDEX_DIM) + i % INDEX_DIM * layout.element,
                   bf16 ? (void *)&half : (void *)&v, layout.element);
        }
    }
}

/* Rows at the ends of two sequences, m of them, on one thread with scalar kernels first. */
static void check_threads(bool bf16, size_t m) {
    index_run r = {.shape = {.hidden = HIDDEN,
                             .heads = INDEX_HEADS,
                             .dim = INDEX_DIM,
                             .q_rank = HIDDEN,
                             .rope = INDEX_ROPE,
                             .topk = 100,
                             .sink = 3,
                             .window = 20,
                             .norm_eps = 1e-6f,
                             .q_scale = 1.0f}};
    size_t list = INDEX_ROWS * r.shape.topk, scores = INDEX_ROWS * LENGTH;
    size_t weights = (INDEX_HEADS + 1) * INDEX_DIM * HIDDEN;
    int32_t *want_list = zeroed(list * sizeof *want_list);
    float *want_scores = zeroed(scores * sizeof *want_scores);
    r.list = zeroed(list * sizeof *r.list);
    r.scores = zeroed(scores * sizeof *r.scores);
    r.x = zeroed(INDEX_ROWS * HIDDEN * sizeof *r.x);
    r.weights = zeroed(weights * sizeof *r.weights);
    for (size_t i = 0; i < INDEX_ROWS * HIDDEN; i++) r.x[i] = uniform(30, i);
    for (size_t i = 0; i < weights; i++) r.weights[i] = uniform(31, i);
    index_caches(&r, bf16);
    for (size_t i = 0; i < INDEX_ROWS; i++)
        r.rows[i] = (lc_row){.kv = &r.kv[i >= 5], .pos = i < 5 ? 1300 + i : 700 + i};
    assert_true(run_indexer(&r, LC_ISA_SCALAR, bf16, 1, m));
    memcpy(want_list, r.list, list * sizeof *r.list);
    memcpy(want_scores, r.scores, scores * sizeof *r.scores);
    for (int isa = 0; isa < LC_ISA_COUNT; isa++)
        for (size_t t = 0; t < 4; t++) {
            memset(r.list, 0, list * sizeof *r.list);
            if (!run_indexer(&r, (lc_isa)isa, bf16, thread_counts[t], m)) continue;
            assert_memory_equal(r.scores, want_scores, m * LENGTH * sizeof *r.scores);
            assert_memory_equal(r.list, want_list, m * r.shape.topk * sizeof *r.list);
        }
    for (size_t s = 0; s < 2; s++) lc_kv_free(&r.kv[s]);
    free(want_list), free(want_scores), free(r.list), free(r.scores), free(r.x), free(r.weights);
}

static void threads_share_the_choice(void **unused) {
    (void)unused;
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (size_t m = 1; m <= INDEX_ROWS; m += 2) check_threads(bf16, m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_the_written_order),
        cmocka_unit_test(choice_is_that_of_sorting),
        cmocka_unit_test(threads_share_the_choice),
    };
    return test_main(tests);
}
