/*
 * kernel_bits.c: prints one hash of the results of every kernel on fixed inputs, for the
 * instruction set named as argument. Built for another processor and run under an emulator, it must
 * print what this machine prints (tests/unit/test_cross.c). Uses nothing but kernels and base, so
 * it needs no libraries of the other system.
 */
#include "kernels/kernels.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a, 64 bits */

static void add(const void *data, size_t size) {
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
}

static uint32_t state = 7;

/* Mostly near one, some far away, zeros and denormals; both signs. */
static float value(void) {
    state = state * 1664525u + 1013904223u;
    float f = (float)(int32_t)(state >> 8) / 8388608.0f - 1.0f;
    uint32_t pick = state >> 3 & 255u;
    return pick < 6    ? 0.0f
           : pick < 16 ? f * 1e-38f
           : pick < 28 ? f * 1e-20f
           : pick < 40 ? f * 1e12f
                       : f;
}

/* The same right rows in strips give the same product. */
static void strips_of(const lc_gemm_path *path, const float *left, const lc_product *rows) {
    lc_product p = *rows;
    size_t strips = (p.columns + LC_STRIP_ROWS - 1) / LC_STRIP_ROWS;
    uint32_t *words = lc_calloc(strips * LC_STRIP_ROWS, p.k * sizeof(uint16_t));
    void *packed = lc_calloc(p.rows, p.k * sizeof(float));
    float *c = lc_calloc(p.rows, p.columns * sizeof *c);
    if (!words || !packed || !c) exit(1);
    for (size_t j = 0; j < p.columns; j++)
        for (size_t i = 0; i < p.k / 2; i++)
            memcpy(words + (j / LC_STRIP_ROWS * p.k / 2 + i) * LC_STRIP_ROWS + j % LC_STRIP_ROWS,
                   (const uint16_t *)p.right + j * p.ld + 2 * i, sizeof *words);
    path->pack_kn(p.rows, p.k, left, p.k, packed);
    p.left = packed;
    p.right = words;
    p.c = c;
    path->multiply_strips(&p);
    if (memcmp(c, rows->c, p.rows * p.columns * sizeof *c)) {
        printf("BF16 strips differ\n");
        exit(1);
    }
    lc_free(words), lc_free(packed), lc_free(c);
}

static void products(const lc_kernels *k, const lc_gemm_path *path, size_t rows, size_t inner,
                     size_t columns) {
    size_t padded = lc_pad_k(inner), element = path->element,
           ld = columns > padded ? columns : padded;
    size_t most = inner > columns ? padded : columns;
    float *left = lc_calloc(rows, inner * sizeof(float)),
          *packed = lc_calloc(rows, padded * sizeof(float));
    float *c = lc_calloc(rows, columns * sizeof(float)), *row = lc_calloc(ld, sizeof(float));
    char *right = lc_calloc(most, ld * element);
    void *scratch = lc_calloc(1, path->scratch_bytes(rows, inner) + 64);
    if (!left || !packed || !c || !row || !right || !scratch) exit(1);
    for (size_t i = 0; i < rows * inner; i++) left[i] = value();
    for (int kn = 0; kn < 2; kn++) {
        memset(right, 0, most * ld * element);
        for (size_t i = 0; i < (kn ? inner : columns); i++) {
            size_t n = kn ? columns : inner;
            for (size_t j = 0; j < n; j++) row[j] = value();
            if (element == 2)
                k->narrow_bf16(n, row, (uint16_t *)(void *)(right + i * ld * 2));
            else
                memcpy(right + i * ld * 4, row, n * 4);
        }
        (kn ? path->pack_kn : path->pack_nk)(rows, inner, left, inner, packed);
        lc_product p = {.rows = rows,
                        .k = inner,
                        .columns = columns,
                        .left = packed,
                        .right = right,
                        .ld = ld,
                        .c = c,
                        .ldc = columns,
                        .scratch = scratch};
        (kn ? path->multiply_kn : path->multiply_nk)(&p);
        add(c, rows * columns * sizeof *c);
        if (!kn && path->multiply_strips && inner % LC_K_BLOCK == 0) strips_of(path, left, &p);
        if (!kn) continue;
        float *decay = lc_calloc(rows, sizeof(float));
        if (!decay) exit(1);
        for (size_t i = 0; i < rows; i++) decay[i] = i % 4 ? (float)(i % 4) * 0.3f : -1.0f;
        p.decay = decay;
        path->multiply_kn(&p);
        add(c, rows * columns * sizeof *c);
        lc_free(decay);
    }
    lc_free(left), lc_free(packed), lc_free(c), lc_free(row), lc_free(right), lc_free(scratch);
}

/* Both sides packed: from rows, then from columns, the second time added. */
static void packed_products(const lc_gemm_path *path, size_t rows, size_t inner, size_t columns) {
    size_t n = rows > columns ? rows : columns;
    float *x = lc_calloc(inner * n, sizeof(float)), *w = lc_calloc(inner * n, sizeof(float));
    float *c = lc_calloc(rows, columns * sizeof(float));
    void *left = lc_calloc(1, lc_left_bytes(path, rows, inner)),
         *right = lc_calloc(1, lc_right_bytes(path, inner, columns)),
         *scratch = lc_calloc(1, path->scratch_bytes(rows, inner) + 64);
    if (!x || !w || !c || !left || !right || !scratch) exit(1);
    for (size_t i = 0; i < inner * n; i++) x[i] = value(), w[i] = value();
    lc_product p = {.rows = rows,
                    .k = inner,
                    .columns = columns,
                    .left = left,
                    .right = right,
                    .c = c,
                    .ldc = columns,
                    .scratch = scratch};
    path->pack_kn(rows, inner, x, inner, left);
    path->pack_right(&(lc_right){inner, columns, 0, inner, w, inner, false}, right);
    path->multiply(&p);
    add(c, rows * columns * sizeof *c);
    path->pack_turned(&(lc_turned){rows, inner, 0, inner, x, n}, left);
    path->pack_right(&(lc_right){inner, columns, 0, inner, w, n, true}, right);
    p.add = true;
    path->multiply(&p);
    add(c, rows * columns * sizeof *c);
    lc_free(x), lc_free(w), lc_free(c), lc_free(left), lc_free(right), lc_free(scratch);
}

static void rows_of(const lc_kernels *k, size_t n) {
    float x[200], w[200], y[200], g[200];
    uint16_t h[200];
    for (size_t i = 0; i < n; i++) x[i] = value(), w[i] = value(), g[i] = value() * 30.0f;
    k->rms_norm(n, x, w, 1e-5f, y), add(y, n * 4);
    k->swiglu(n, g, x, y), add(y, n * 4);
    float max = k->max(n, g), sum = k->exp_sum(n, g, max, y);
    add(&max, 4), add(&sum, 4), add(y, n * 4);
    memcpy(y, w, n * 4), k->scale_add(n, 0.7f, 1.3f, x, y), add(y, n * 4);
    memcpy(y, w, n * 4), k->add_scaled(n, 0.7f, x, y), add(y, n * 4);
    uint32_t order[200];
    int32_t picked[200];
    float row_max = 0.5f, row_sum = 2.0f, alpha;
    memcpy(y, x, n * 4);
    float lo = 0.0f, hi = (float)(n - n / 3);
    k->softmax_block(&(lc_softmax_block){.rows = 1,
                                         .n = n,
                                         .scores = y,
                                         .scale = 0.3f,
                                         .lo = &lo,
                                         .hi = &hi,
                                         .max = &row_max,
                                         .sum = &row_sum,
                                         .alpha = &alpha});
    add(y, n * 4);
    add(&row_max, 4), add(&row_sum, 4), add(&alpha, 4);
    k->sum_scaled_relu(1, n, w, x, y), add(y, n * 4);
    k->order_floats(n, x, order), add(order, n * 4);
    add(picked, k->pick_above(n, order, order[n / 2], 2, 9, picked) * 4);
    add(order, k->keep_prefix(n, order, 24, order[n / 2] >> 24, order) * 4);
    k->round_bf16(n, x, y), add(y, n * 4);
    k->narrow_bf16(n, x, h), add(h, n * 2);
    k->widen_bf16(n, h, y), add(y, n * 4);
    uint8_t codes[200];
    float zeros[13];
    for (size_t i = 0; i < 200; i++) codes[i] = (uint8_t)(i * 89 + n);
    for (size_t i = 0; i < 13; i++) zeros[i] = (float)(i * 5 % 16);
    for (int kind = LC_CODES_U4; kind <= LC_CODES_I8; kind++) {
        k->decode(&(lc_coded_row){codes, (lc_code_kind)kind, n, 16 + 8 * (n % 3), zeros, w, g}, y);
        add(y, n * 4);
    }
}

/* FP8, halves and bytes with a scale a row; every kind of codes to BF16. */
static void codes_of(const lc_kernels *k) {
    uint8_t codes[512];
    float scales[32], y[512];
    uint16_t h[4 * 256];
    for (size_t i = 0; i < 512; i++) codes[i] = (uint8_t)(i * 89 + i / 256);
    for (size_t i = 0; i < 32; i++) scales[i] = value();
    for (int kind = 0; kind < LC_CODE_KINDS; kind++)
        for (size_t n = 241; n <= 256; n += 5) {
            lc_coded_row row = {codes, (lc_code_kind)kind, n, 24, .scales = scales};
            k->decode(&row, y), add(y, n * sizeof *y);
            k->decode_bf16(&row, h), add(h, n * sizeof *h);
        }
    for (size_t rows = 1; rows <= 4; rows += 3) {
        k->decode_f8_rows(&(lc_f8_rows){rows, 253, codes, 50, scales, h, 253});
        add(h, rows * 253 * sizeof *h);
    }
}

/* The same codes and scales in strips give the same product. */
static void same_in_strips(const lc_coded_path *path, const lc_coded_product *by_row) {
    const lc_coded_rows *r = &by_row->right;
    size_t strips = (by_row->columns + LC_STRIP_ROWS - 1) / LC_STRIP_ROWS, words = r->stride / 4;
    size_t groups = r->scale_row, scale = r->scale_type == LC_SCALES_F32 ? 4 : 2;
    size_t cells = by_row->rows * by_row->columns;
    lc_coded_product p = *by_row;
    uint8_t *codes = lc_calloc(strips * LC_STRIP_ROWS, r->stride);
    char *scales = lc_calloc(strips * LC_STRIP_ROWS, groups * scale);
    p.c = lc_calloc(cells, sizeof *p.c);
    if (!codes || !scales || !p.c) exit(1);
    for (size_t row = 0; row < by_row->columns; row++) {
        size_t strip = row / LC_STRIP_ROWS, lane = row % LC_STRIP_ROWS;
        for (size_t w = 0; w < words; w++)
            memcpy(codes + ((strip * words + w) * LC_STRIP_ROWS + lane) * 4,
                   r->codes + row * r->stride + 4 * w, 4);
        for (size_t g = 0; g < groups; g++)
            memcpy(scales + ((strip * groups + g) * LC_STRIP_ROWS + lane) * scale,
                   (const char *)r->scales + (row * groups + g) * scale, scale);
    }
    p.right.layout = LC_CODES_IN_STRIPS;
    p.right.codes = codes, p.right.stride = 64 * words, p.right.scales = scales;
    path->multiply(&p);
    if (memcmp(p.c, by_row->c, cells * sizeof *p.c)) {
        printf("strips differ\n");
        exit(4);
    }
    lc_free(codes), lc_free(scales), lc_free(p.c);
}

/* Products with codes: every kind, by row and by column, groups of 32, 64 and the whole row. */
static void coded_products(const lc_coded_path *path, size_t rows, size_t inner, size_t columns) {
    static const size_t sizes[] = {32, 64, 4096};
    size_t bytes = inner * columns + 8 * columns;
    float *x = lc_calloc(rows, inner * sizeof(float)), *c = lc_calloc(rows, columns * sizeof *c),
          *scales = lc_calloc(inner, columns * sizeof *scales);
    uint8_t *codes = lc_calloc(1, bytes);
    int16_t *zeros = lc_calloc(inner, columns * sizeof *zeros);
    if (!x || !c || !scales || !codes || !zeros) exit(1);
    for (size_t i = 0; i < rows * inner; i++) x[i] = value();
    for (size_t i = 0; i < inner * columns; i++) scales[i] = value(), zeros[i] = (int16_t)(i % 29);
    for (size_t i = 0; i < bytes; i++) codes[i] = (uint8_t)(i * 89 + i / 256);
    for (int way = 0; way < 18; way++) {
        lc_code_kind kind = (lc_code_kind)(way % 3);
        size_t size = sizes[way / 6], row = kind == LC_CODES_U4 ? (inner + 1) / 2 : inner;
        size_t groups = size >= inner ? 1 : (inner + size - 1) / size;
        bool by_column = way / 3 % 2;
        void *left = lc_alloc(path->left_bytes(rows, inner, size)),
             *scratch = lc_alloc(path->scratch_bytes(rows, inner, size));
        if (!left || !scratch) exit(1);
        path->pack(kind, size, rows, inner, x, inner, left);
        lc_coded_product p = {
            .rows = rows,
            .k = inner,
            .columns = columns,
            .left = left,
            .right = {.kind = kind,
                      .layout = by_column ? LC_CODES_BY_COLUMN : LC_CODES_BY_ROW,
                      .codes = codes,
                      .stride = by_column ? 4 * columns : row,
                      .size = size,
                      .scale_type = (lc_scale_type)(way % 2 ? LC_SCALES_F32 : LC_SCALES_BF16),
                      .scales = scales,
                      .biases = way % 4 == 1 ? scales + 7 : NULL,
                      .scale_row = groups,
                      .scale_group = 1,
                      .zeros = way % 5 == 2 ? zeros : NULL,
                      .zero = 8},
            .c = c,
            .ldc = columns,
            .scratch = scratch};
        path->multiply(&p);
        if (!by_column && !p.right.zeros && !p.right.biases && row % 4 == 0)
            same_in_strips(path, &p);
        add(c, rows * columns * sizeof *c);
        lc_free(left), lc_free(scratch);
    }
    lc_free(x), lc_free(c), lc_free(scales), lc_free(codes), lc_free(zeros);
}

/* ISA: all kernels but coded products; ISA coded: those. */
int main(int argc, char **argv) {
    lc_isa isa;
    if (argc < 2 || argc > 3 || !lc_isa_from_name(argv[1], &isa)) return 2;
    const lc_kernels *k = lc_kernels_of(isa);
    if (!k) return 3;
    uint64_t fp = lc_fp_enter();
    if (argc == 3) {
        static const size_t coded[][3] = {
            {1, 96, 33}, {2, 700, 20}, {7, 256, 17}, {19, 130, 40}, {37, 2080, 16}};
        for (size_t i = 0; i < sizeof coded / sizeof *coded; i++)
            coded_products(&k->coded, coded[i][0], coded[i][1], coded[i][2]);
        lc_fp_leave(fp);
        printf("%016llx\n", (unsigned long long)hash);
        return 0;
    }
    for (size_t n = 1; n <= 200; n += 13) rows_of(k, n);
    codes_of(k);
    static const size_t shapes[][3] = {
        {1, 32, 16}, {3, 20, 5}, {17, 100, 33}, {40, 320, 64}, {9, 577, 31}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        products(k, &k->f32, shapes[i][0], shapes[i][1], shapes[i][2]);
        products(k, &k->bf16, shapes[i][0], shapes[i][1], shapes[i][2]);
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        packed_products(&k->f32, shapes[i][0], shapes[i][1], shapes[i][2]);
        packed_products(&k->bf16, shapes[i][0], shapes[i][1], shapes[i][2]);
    }
    lc_fp_leave(fp);
    printf("%016llx\n", (unsigned long long)hash);
    return 0;
}
