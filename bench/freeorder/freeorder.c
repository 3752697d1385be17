/*
 * freeorder.c: what the fixed order of sums costs. The products of src/kernels, whose bits are the
 * same everywhere, beside variants that may add in any order: dot products along k, as many
 * accumulators as hide the latency, weights read where they lie, nothing packed. This is what one
 * would write if the order didn't matter; it is in no other program.
 *
 *     freeorder [PAIRS]
 *
 * One thread; both run in turns (A B A B), PAIRS times (15). Weights are 2,048 x 2,048, again and
 * again the same ("cache") or one copy after the other of 512 MB ("memory"). Packing of left rows
 * is not counted for either: it is done once for many products. tdpbf16ps (AMX) has the order of
 * docs/numerics.md by itself: its free variant is the same instruction, so with many rows the free
 * variant here is only for processors that use vector instructions.
 */
#include "base/cpu.h"
#include "base/mem.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__) && defined(__AVX512BF16__) && defined(__AVX512BW__)
#include <immintrin.h>

enum {
    SIZE = 2048,
    MAX_ROWS = 512,
    TILE_ROWS = 6,
    TILE_COLUMNS = 4,
    BLOCK_ROWS = 96,
    MAX_PAIRS = 1001
};
static const size_t memory_bytes = (size_t)512 << 20;

typedef struct problem {
    size_t rows;
    const lc_gemm_path *path;
    const float *x;   /* [rows][SIZE] */
    const void *free; /* the same in the path's element */
    void *packed;     /* the same, packed by the path */
    const void *weights;
    size_t copies, turn; /* of the weights; the next one */
    void *scratch;
    float *ours, *theirs; /* [rows][SIZE] */
} problem;

/* Sums of four registers. */
static inline __m128 sum_4(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    __m512 all = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all),
                                _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1)));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* `element` and `rows` are constants in every call. A step is one register: 16 fp32 or 32 BF16. */
static inline __attribute__((always_inline)) void tile(const char *x, const char *w, float *c,
                                                       const size_t element, const int rows) {
    __m512 acc[TILE_ROWS][TILE_COLUMNS];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < TILE_COLUMNS; j++) acc[r][j] = _mm512_setzero_ps();
    for (size_t at = 0; at < SIZE * element; at += 64) {
        __m512i right[TILE_COLUMNS];
        for (int j = 0; j < TILE_COLUMNS; j++)
            right[j] = _mm512_loadu_si512(w + (size_t)j * SIZE * element + at);
        for (int r = 0; r < rows; r++) {
            __m512i left = _mm512_loadu_si512(x + (size_t)r * SIZE * element + at);
            for (int j = 0; j < TILE_COLUMNS; j++)
                acc[r][j] = element == 4
                                ? _mm512_fmadd_ps(_mm512_castsi512_ps(left),
                                                  _mm512_castsi512_ps(right[j]), acc[r][j])
                                : _mm512_dpbf16_ps(acc[r][j], (__m512bh)left, (__m512bh)right[j]);
        }
    }
    for (int r = 0; r < rows; r++)
        _mm_storeu_ps(c + (size_t)r * SIZE, sum_4(acc[r][0], acc[r][1], acc[r][2], acc[r][3]));
}

/* One row: BF16 is widened and multiplied by fma where that is faster than vdpbf16ps. */
static inline __attribute__((always_inline)) void row_widened(const float *x, const uint16_t *w,
                                                              float *c) {
    __m512 acc[2 * TILE_COLUMNS];
    for (int j = 0; j < 2 * TILE_COLUMNS; j++) acc[j] = _mm512_setzero_ps();
    for (size_t k = 0; k < SIZE; k += 32) {
        __m512 x0 = _mm512_loadu_ps(x + k), x1 = _mm512_loadu_ps(x + k + 16);
        for (int j = 0; j < TILE_COLUMNS; j++) {
            const uint16_t *at = w + (size_t)j * SIZE + k;
            __m512i w0 = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)at));
            __m512i w1 = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(at + 16)));
            acc[j] = _mm512_fmadd_ps(x0, _mm512_castsi512_ps(_mm512_slli_epi32(w0, 16)), acc[j]);
            acc[j + TILE_COLUMNS] = _mm512_fmadd_ps(
                x1, _mm512_castsi512_ps(_mm512_slli_epi32(w1, 16)), acc[j + TILE_COLUMNS]);
        }
    }
    for (int j = 0; j < TILE_COLUMNS; j++) acc[j] = _mm512_add_ps(acc[j], acc[j + TILE_COLUMNS]);
    _mm_storeu_ps(c, sum_4(acc[0], acc[1], acc[2], acc[3]));
}

/* Left rows of a block stay in the second-level cache while the weights pass. */
static inline __attribute__((always_inline)) void free_product(const problem *p, const char *w,
                                                               const size_t element) {
    for (size_t block = 0; block < p->rows; block += BLOCK_ROWS) {
        size_t end = block + BLOCK_ROWS < p->rows ? block + BLOCK_ROWS : p->rows;
        const char *x = p->free;
        for (size_t j = 0; j < SIZE; j += TILE_COLUMNS) {
            const char *columns = w + j * SIZE * element;
            float *c = p->theirs + j;
            size_t r = block;
            for (; r + TILE_ROWS <= end; r += TILE_ROWS)
                tile(x + r * SIZE * element, columns, c + r * SIZE, element, TILE_ROWS);
            for (; r + 2 <= end; r += 2)
                tile(x + r * SIZE * element, columns, c + r * SIZE, element, 2);
            for (; r < end; r++) tile(x + r * SIZE * element, columns, c + r * SIZE, element, 1);
        }
    }
}

static const char *next_weights(problem *p) {
    p->turn = (p->turn + 1) % p->copies;
    return (const char *)p->weights + p->turn * SIZE * SIZE * p->path->element;
}

static void run_free(problem *p) {
    const char *w = next_weights(p);
    if (p->path->element == 4)
        free_product(p, w, 4);
    else
        free_product(p, w, 2);
}

static void run_widened(problem *p) {
    const uint16_t *w = (const uint16_t *)(const void *)next_weights(p);
    for (size_t j = 0; j < SIZE; j += TILE_COLUMNS) row_widened(p->x, w + j * SIZE, p->theirs + j);
}

static void run_ours(problem *p) {
    const char *w = next_weights(p);
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

static void compare(const char *name, problem *p, void (*variant)(problem *p), int pairs) {
    static double a[MAX_PAIRS], b[MAX_PAIRS], ratio[MAX_PAIRS];
    size_t copies = p->copies;
    p->copies = 1, p->turn = 0;
    run_ours(p);
    variant(p);
    double error = difference(p);
    p->copies = copies;
    int times = (int)fmax(1, 0.02 / fmax(seconds(variant, p, 2), 1e-7));
    for (int i = 0; i < pairs; i++) {
        a[i] = seconds(run_ours, p, times);
        b[i] = seconds(variant, p, times);
        ratio[i] = a[i] / b[i];
    }
    qsort(a, (size_t)pairs, sizeof *a, by_size);
    qsort(b, (size_t)pairs, sizeof *b, by_size);
    qsort(ratio, (size_t)pairs, sizeof *ratio, by_size);
    double operations = 2.0 * (double)p->rows * SIZE * SIZE * 1e-9;
    printf("%-30s %5zu  %-7s %7.1f %7.1f %7.1f  %7.1f %7.1f %7.1f  %6.3f %6.3f %6.3f  %.0e\n", name,
           p->rows, copies > 1 ? "memory" : "cache", operations / a[pairs - 1],
           operations / a[pairs / 2], operations / a[0], operations / b[pairs - 1],
           operations / b[pairs / 2], operations / b[0], ratio[0], ratio[pairs / 2],
           ratio[pairs - 1], error);
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

static void compare_path(lc_isa isa, const lc_gemm_path *path, int pairs) {
    char name[64];
    float *x = aligned_alloc(64, MAX_ROWS * SIZE * sizeof *x);
    void *weights = aligned_alloc(64, memory_bytes), *same = x;
    float *out = aligned_alloc(64, 2 * MAX_ROWS * SIZE * sizeof *out);
    void *packed = aligned_alloc(64, lc_left_floats(MAX_ROWS, SIZE) * sizeof(float));
    uint16_t *halves = aligned_alloc(64, MAX_ROWS * SIZE * sizeof *halves);
    void *scratch = aligned_alloc(64, (path->scratch_bytes(MAX_ROWS, SIZE) + 127) / 64 * 64);
    if (!x || !weights || !out || !packed || !halves || !scratch) {
        fprintf(stderr, "freeorder: out of memory\n");
        exit(1);
    }
    fill(halves, MAX_ROWS * SIZE, 2);
    lc_kernels_of(LC_ISA_SCALAR)->widen_bf16(MAX_ROWS * SIZE, halves, x);
    if (path->element == 2) same = halves;
    fill(weights, memory_bytes / path->element, path->element);
    static const size_t rows[] = {1, 8, 64, MAX_ROWS};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        path->pack_nk(rows[i], SIZE, x, SIZE, packed);
        for (int memory = 0; memory < (rows[i] < 64 ? 2 : 1); memory++) {
            problem p = {.rows = rows[i],
                         .path = path,
                         .x = x,
                         .free = same,
                         .packed = packed,
                         .weights = weights,
                         .copies = memory ? memory_bytes / (SIZE * SIZE * path->element) : 1,
                         .scratch = scratch,
                         .ours = out,
                         .theirs = out + MAX_ROWS * SIZE};
            bool amx = isa == LC_ISA_AMX && path->element == 2;
            if (!amx || rows[i] < 16) {
                snprintf(name, sizeof name, "%s %s: %s", lc_isa_name(isa), path->name,
                         path->element == 4 ? "fma" : "vdpbf16ps");
                compare(name, &p, run_free, pairs);
            }
            if (path->element == 2 && rows[i] == 1) {
                snprintf(name, sizeof name, "%s %s: widen, fma", lc_isa_name(isa), path->name);
                compare(name, &p, run_widened, pairs);
            }
        }
    }
    free(x), free(weights), free(out), free(packed), free(halves), free(scratch);
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
    printf("%-30s %5s  %-7s %23s  %23s  %20s  %s\n", "ours: free variant", "rows", "weights",
           "ours", "free", "ratio", "difference");
    static const lc_isa isas[] = {LC_ISA_AVX512, LC_ISA_AVX512BF16, LC_ISA_AMX};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        const lc_kernels *kernels = lc_kernels_of(isas[i]);
        if (!kernels) continue;
        if (isas[i] == LC_ISA_AVX512) compare_path(isas[i], &kernels->f32, pairs);
        if (isas[i] != LC_ISA_AVX512) compare_path(isas[i], &kernels->bf16, pairs);
    }
    return 0;
}

#else
int main(void) {
    printf("freeorder: its variants need AVX512-F, -BW and -BF16, which this processor or build "
           "lacks\n");
    return 0;
}
#endif
