/*
 * freeorder.c: what the fixed order of sums costs. The products of src/kernels, whose bits are the
 * same everywhere, beside variants that may add in any order: dot products along k, as many
 * accumulators as hide the latency, weights read where they lie, nothing packed. This is what one
 * would write if the order didn't matter; it is in no other program.
 *
 *     freeorder [PAIRS]
 *
 * One thread; both run in turns (A B A B), PAIRS times (15). Weights are 2,048 x 2,048, again and
 * again the same ("cache") or one copy after the other of 512 MB ("memory"); ours take them by row,
 * or in the strips of `longcat pack`. Packing of left rows is not counted for either: it is done
 * once for many products. tdpbf16ps (AMX) has the order of docs/numerics.md by itself: its free
 * variant is the same instruction, so with many rows the free variant here is only for processors
 * that use vector instructions.
 */
#include "base/cpu.h"
#include "base/mem.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __AVX2__
#include <immintrin.h>

enum { SIZE = 2048, MAX_ROWS = 512, TILE_COLUMNS = 4, BLOCK_ROWS = 96, MAX_PAIRS = 1001 };
static const size_t memory_bytes = (size_t)512 << 20;

/* How a variant multiplies: fp32; BF16 weights widened, left rows in fp32; BF16 in pairs. */
typedef enum variant_kind { BY_FMA, BY_WIDENED, BY_PAIRS, VARIANTS } variant_kind;
static const char *const variant_names[VARIANTS] = {"fma", "widen, fma", "vdpbf16ps"};

typedef struct problem {
    size_t rows;
    const lc_gemm_path *path;
    variant_kind variant;
    bool strips;
    const void *left;             /* [rows][SIZE], as the variant takes it */
    void *packed;                 /* the same, packed by the path */
    const void *by_row, *ours_of; /* weights by row, and as ours take them */
    size_t copies, turn;          /* of the weights; the next one */
    void *scratch;
    float *ours, *theirs; /* [rows][SIZE] */
} problem;

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512BF16__)
typedef __m512 vector;
enum { LANES = 16, TILE_ROWS = 6, HAS_PAIRS = 1 };

static inline vector load(const void *x) { return _mm512_loadu_ps(x); }
static inline vector fma_of(vector a, vector b, vector c) { return _mm512_fmadd_ps(a, b, c); }
static inline vector add_pairs(vector a, vector b, vector c) {
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}
static inline vector widen(const void *w) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(w)), 16));
}
static inline __m256 halve(vector a) {
    __m256d high = _mm512_extractf64x4_pd(_mm512_castps_pd(a), 1);
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm256_castpd_ps(high));
}
#else
typedef __m256 vector;
enum { LANES = 8, TILE_ROWS = 3, HAS_PAIRS = 0 };

static inline vector load(const void *x) { return _mm256_loadu_ps(x); }
static inline vector fma_of(vector a, vector b, vector c) { return _mm256_fmadd_ps(a, b, c); }
static inline vector add_pairs(vector a, vector b, vector c) {
    (void)a, (void)b;
    return c;
}
static inline vector widen(const void *w) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(w)), 16));
}
static inline __m256 halve(vector a) { return a; }
#endif

/* Sums of four vectors. */
static inline __m128 sum_4(const vector v[4]) {
    __m256 ab = _mm256_hadd_ps(halve(v[0]), halve(v[1]));
    __m256 cd = _mm256_hadd_ps(halve(v[2]), halve(v[3])), all = _mm256_hadd_ps(ab, cd);
    return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
}

static inline size_t left_element(variant_kind kind) { return kind == BY_PAIRS ? 2 : 4; }
static inline size_t weight_element(variant_kind kind) { return kind == BY_FMA ? 4 : 2; }

/* `kind` and `rows` are constants in every call. A single row has two chains a column. */
static inline __attribute__((always_inline)) void tile(const char *x, const char *w, float *c,
                                                       const variant_kind kind, const int rows) {
    const size_t step = kind == BY_PAIRS ? 2 * LANES : LANES;
    const size_t in_left = left_element(kind), in_weights = weight_element(kind);
    const int chains = rows == 1 ? 2 : 1;
    vector acc[2][TILE_ROWS][TILE_COLUMNS] = {0};
    for (size_t k = 0; k < SIZE;)
        for (int i = 0; i < chains; i++, k += step) {
            vector left[TILE_ROWS];
            for (int r = 0; r < rows; r++) left[r] = load(x + ((size_t)r * SIZE + k) * in_left);
            for (int j = 0; j < TILE_COLUMNS; j++) {
                const char *at = w + ((size_t)j * SIZE + k) * in_weights;
                vector right = kind == BY_WIDENED ? widen(at) : load(at);
                for (int r = 0; r < rows; r++)
                    acc[i][r][j] = kind == BY_PAIRS ? add_pairs(left[r], right, acc[i][r][j])
                                                    : fma_of(left[r], right, acc[i][r][j]);
            }
        }
    if (chains == 2)
        for (int j = 0; j < TILE_COLUMNS; j++) acc[0][0][j] += acc[1][0][j];
    for (int r = 0; r < rows; r++) _mm_storeu_ps(c + (size_t)r * SIZE, sum_4(acc[0][r]));
}

/* Left rows of a block stay in the second-level cache while the weights pass. */
static inline __attribute__((always_inline)) void free_product(const problem *p, const char *w,
                                                               const variant_kind kind) {
    const size_t left_row = SIZE * left_element(kind);
    for (size_t block = 0; block < p->rows; block += BLOCK_ROWS) {
        size_t end = block + BLOCK_ROWS < p->rows ? block + BLOCK_ROWS : p->rows;
        for (size_t j = 0; j < SIZE; j += TILE_COLUMNS) {
            const char *columns = w + j * SIZE * weight_element(kind), *x = p->left;
            float *c = p->theirs + j;
            size_t r = block;
            for (; r + TILE_ROWS <= end; r += TILE_ROWS)
                tile(x + r * left_row, columns, c + r * SIZE, kind, TILE_ROWS);
            for (; r + 2 <= end; r += 2) tile(x + r * left_row, columns, c + r * SIZE, kind, 2);
            for (; r < end; r++) tile(x + r * left_row, columns, c + r * SIZE, kind, 1);
        }
    }
}

static size_t next_copy(problem *p) {
    p->turn = (p->turn + 1) % p->copies;
    return p->turn * SIZE * SIZE * p->path->element;
}

static void run_free(problem *p) {
    const char *w = (const char *)p->by_row + next_copy(p);
    switch (p->variant) {
    case BY_FMA: free_product(p, w, BY_FMA); break;
    case BY_WIDENED: free_product(p, w, BY_WIDENED); break;
    default: free_product(p, w, BY_PAIRS);
    }
}

static void run_ours(problem *p) {
    const char *w = (const char *)p->ours_of + next_copy(p);
    size_t panel = lc_panel(p->path, p->rows);
    for (size_t j = 0; j < SIZE; j += panel) {
        lc_product product = {.rows = p->rows,
                              .k = SIZE,
                              .columns = SIZE - j < panel ? SIZE - j : panel,
                              .left = p->packed,
                              .right = w + j * SIZE * p->path->element,
                              .ld = SIZE,
                              .c = p->ours + j,
                              .ldc = SIZE,
                              .scratch = p->scratch};
        if (p->strips)
            p->path->multiply_strips(&product);
        else
            p->path->multiply_nk(&product);
    }
}

static double seconds(void (*run)(problem *p), problem *p, int times) {
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < times; i++) run(p);
    clock_gettime(CLOCK_MONOTONIC, &b);
    return ((double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec)) / times;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Largest difference of the two, in units of the result's RMS: they must compute the same. */
static double difference(const problem *p) {
    double most = 0, square = 0;
    for (size_t i = 0; i < p->rows * SIZE; i++) {
        most = fmax(most, fabs((double)p->ours[i] - (double)p->theirs[i]));
        square += (double)p->ours[i] * (double)p->ours[i];
    }
    return most / sqrt(square / (double)(p->rows * SIZE));
}

static void compare(const char *name, problem *p, int pairs) {
    static double a[MAX_PAIRS], b[MAX_PAIRS], ratio[MAX_PAIRS];
    size_t copies = p->copies;
    p->copies = 1, p->turn = 0;
    run_ours(p);
    run_free(p);
    double error = difference(p);
    p->copies = copies;
    int times = (int)fmax(1, 0.02 / fmax(seconds(run_free, p, 2), 1e-7));
    for (int i = 0; i < pairs; i++) {
        a[i] = seconds(run_ours, p, times);
        b[i] = seconds(run_free, p, times);
        ratio[i] = a[i] / b[i];
    }
    qsort(a, (size_t)pairs, sizeof *a, by_size);
    qsort(b, (size_t)pairs, sizeof *b, by_size);
    qsort(ratio, (size_t)pairs, sizeof *ratio, by_size);
    double operations = 2.0 * (double)p->rows * SIZE * SIZE * 1e-9;
    printf("%-30s %5zu  %-6s  %-7s %7.1f %7.1f %7.1f  %7.1f %7.1f %7.1f  %6.3f %6.3f %6.3f  %.0e\n",
           name, p->rows, p->strips ? "strips" : "rows", copies > 1 ? "memory" : "cache",
           operations / a[pairs - 1], operations / a[pairs / 2], operations / a[0],
           operations / b[pairs - 1], operations / b[pairs / 2], operations / b[0], ratio[0],
           ratio[pairs / 2], ratio[pairs - 1], error);
    fflush(stdout);
}

static void fill(void *out, size_t n, size_t element) {
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        float v = (float)(int32_t)state * 0x1p-31f;
        if (element == 4)
            ((float *)out)[i] = v;
        else {
            uint32_t bits;
            memcpy(&bits, &v, sizeof bits);
            ((uint16_t *)out)[i] = (uint16_t)(bits >> 16);
        }
    }
}

/* Rows of BF16 weights, copy after copy, to the strips of `longcat pack`. */
static void to_strips(const uint16_t *rows, size_t n, uint32_t *strips) {
    for (size_t row = 0; row < n; row++, rows += SIZE)
        for (size_t i = 0; i < SIZE / 2; i++)
            memcpy(strips + (row / LC_STRIP_ROWS * SIZE / 2 + i) * LC_STRIP_ROWS +
                       row % LC_STRIP_ROWS,
                   rows + 2 * i, sizeof *strips);
}

static void *memory(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) {
        fprintf(stderr, "freeorder: out of memory\n");
        exit(1);
    }
    return p;
}

/* One number of rows, against every variant that there is. */
static void compare_rows(lc_isa isa, problem p, const float *x, const uint16_t *halves, int pairs) {
    const size_t copies = memory_bytes / (SIZE * SIZE * p.path->element);
    (p.strips ? p.path->pack_kn : p.path->pack_nk)(p.rows, SIZE, x, SIZE, p.packed);
    for (int far = 0; far < (p.rows < 64 ? 2 : 1); far++)
        for (variant_kind kind = BY_FMA; kind < VARIANTS; kind++) {
            if (weight_element(kind) != p.path->element) continue;
            if (kind == BY_PAIRS && !HAS_PAIRS) continue;
            if (kind == BY_WIDENED && HAS_PAIRS && p.rows > 1) continue; /* the slower one */
            if (isa == LC_ISA_AMX && p.rows >= 16) continue;
            char name[64];
            snprintf(name, sizeof name, "%s %s: %s", lc_isa_name(isa), p.path->name,
                     variant_names[kind]);
            p.variant = kind;
            p.left = kind == BY_PAIRS ? (const void *)halves : x;
            p.copies = far ? copies : 1;
            compare(name, &p, pairs);
        }
}

static void compare_path(lc_isa isa, const lc_gemm_path *path, int pairs) {
    static const size_t rows[] = {1, 8, 64, MAX_ROWS};
    const size_t results = MAX_ROWS * SIZE, row_bytes = SIZE * path->element;
    float *x = memory(results * sizeof *x), *out = memory(2 * results * sizeof *out);
    uint16_t *halves = memory(results * sizeof *halves);
    void *by_row = memory(memory_bytes), *packed = memory(lc_left_bytes(path, MAX_ROWS, SIZE));
    void *strips = path->multiply_strips ? memory(memory_bytes) : NULL;
    void *scratch = memory(path->scratch_bytes(MAX_ROWS, SIZE) + 64);
    fill(halves, results, 2);
    lc_kernels_of(LC_ISA_SCALAR)->widen_bf16(results, halves, x);
    fill(by_row, memory_bytes / path->element, path->element);
    if (strips) to_strips(by_row, memory_bytes / row_bytes, strips);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int in_strips = 0; in_strips < (strips ? 2 : 1); in_strips++)
            compare_rows(isa,
                         (problem){.rows = rows[i],
                                   .path = path,
                                   .strips = in_strips,
                                   .packed = packed,
                                   .by_row = by_row,
                                   .ours_of = in_strips ? strips : by_row,
                                   .scratch = scratch,
                                   .ours = out,
                                   .theirs = out + results},
                         x, halves, pairs);
    free(x), free(out), free(halves), free(by_row), free(packed), free(strips), free(scratch);
}

int main(int argc, char **argv) {
    int pairs = argc > 1 ? atoi(argv[1]) : 15;
    if (pairs < 1 || pairs > MAX_PAIRS) {
        fprintf(stderr, "usage: freeorder [PAIRS]   (1 to %d, default 15)\n", MAX_PAIRS);
        return 2;
    }
    lc_fp_enter();
    printf("one thread, weights %d x %d, %d pairs; Gop/s min, median, max; time of ours / free\n",
           SIZE, SIZE, pairs);
    printf("%-30s %5s  %-6s  %-7s %23s  %23s  %20s  %s\n", "ours: free variant", "rows", "by",
           "weights", "ours", "free", "ratio", "difference");
    static const lc_isa isas[] = {LC_ISA_AVX2, LC_ISA_AVX512, LC_ISA_AVX512BF16, LC_ISA_AMX};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        const lc_kernels *kernels = lc_kernels_of(isas[i]);
        bool own_width = isas[i] == LC_ISA_AVX2 ? LANES == 8 : LANES == 16;
        if (!kernels || !own_width) continue;
        if (isas[i] <= LC_ISA_AVX512) compare_path(isas[i], &kernels->f32, pairs);
        if (isas[i] != LC_ISA_AVX512) compare_path(isas[i], &kernels->bf16, pairs);
    }
    return 0;
}

#else
int main(void) {
    printf("freeorder: its variants need AVX2, which this processor or build lacks\n");
    return 0;
}
#endif
