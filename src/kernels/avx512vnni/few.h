/*
 * few.h (AVX512-VNNI): coded products of a few left rows, behind coded.inc. Turning codes into
 * strips costs more than using them once, so 16 weight rows are read as they lie, 64 bytes of each
 * in turn, into 16 registers of partial sums; at the end of a group those are added across and
 * turned together.
 *
 * The 16 rows are not neighbours: spread_columns has the reason.
 */
#ifndef LC_KERNELS_AVX512VNNI_FEW_H
#define LC_KERNELS_AVX512VNNI_FEW_H

enum { FEW_ROWS = 8 }; /* left rows up to which this pays */

/* k of 64 bytes of codes. */
static inline size_t few_step(lc_code_kind kind) { return kind == LC_CODES_U4 ? 128 : 64; }

static bool few_fits(const lc_coded_product *p) {
    size_t step = few_step(p->right.kind), size = p->right.size;
    bool divides = size % step == 0 || step % size == 0;
    return p->rows <= FEW_ROWS && !p->right.by_column && (size >= p->k || divides);
}

/* quads[q] = lanes 4 q .. 4 q + 3 of every register added up, one row a lane. */
LC_INLINE void add_across(const lc_w sum[STRIP], lc_w quads[4]) {
    lc_w pair[8], four[4];
    for (int i = 0; i < 8; i++)
        pair[i] = w_add(_mm512_unpacklo_epi32(sum[2 * i], sum[2 * i + 1]),
                        _mm512_unpackhi_epi32(sum[2 * i], sum[2 * i + 1]));
    for (int i = 0; i < 4; i++)
        four[i] = w_add(_mm512_unpacklo_epi64(pair[2 * i], pair[2 * i + 1]),
                        _mm512_unpackhi_epi64(pair[2 * i], pair[2 * i + 1]));
    lc_w a = _mm512_shuffle_i32x4(four[0], four[1], 0x44);
    lc_w b = _mm512_shuffle_i32x4(four[0], four[1], 0xee);
    lc_w c = _mm512_shuffle_i32x4(four[2], four[3], 0x44);
    lc_w d = _mm512_shuffle_i32x4(four[2], four[3], 0xee);
    quads[0] = _mm512_shuffle_i32x4(a, c, 0x88);
    quads[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
    quads[2] = _mm512_shuffle_i32x4(b, d, 0x88);
    quads[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
}

/* Left values of a step: for U4 those of low halves, then of high ones (packed rows have words of
 * them in turns). `n`: values that are there. */
LC_INLINE void left_values(const char *left, size_t n, const lc_code_kind kind, lc_w q[2]) {
    size_t first = coded_least(n, 64);
    lc_w a = w_load_n((const uint8_t *)left, first);
    q[0] = a;
    if (kind != LC_CODES_U4) return;
    lc_w b = n > 64 ? w_load_n((const uint8_t *)left + 64, n - 64) : w_zero();
    const lc_w even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    q[0] = _mm512_permutex2var_epi32(a, even, b);
    q[1] = _mm512_permutex2var_epi32(a, w_add(even, w_set(1)), b);
}

/* One step of 16 weight rows, `stride` bytes apart (`rows` of them there). */
LC_INLINE void add_step(const uint8_t *codes, size_t stride, size_t rows, size_t bytes,
                        const lc_code_kind kind, const lc_w q[2], lc_w sum[STRIP]) {
    const lc_w low = w_set(0x0f0f0f0f), flip = w_set((int32_t)0x80808080u);
    bool whole = rows == STRIP && bytes == 64;
    for (size_t i = 0; i < STRIP; i++) {
        const uint8_t *from = codes + i * stride;
        __builtin_prefetch(from + PART_AHEAD);
        lc_w word = whole ? w_load(from) : i < rows ? w_load_n(from, bytes) : w_zero();
        if (kind == LC_CODES_U4) {
            sum[i] = add_dots(sum[i], w_and(word, low), q[0]);
            sum[i] = add_dots(sum[i], w_and(w_down4(word), low), q[1]);
        } else {
            if (kind == LC_CODES_I8) word = w_xor(word, flip);
            sum[i] = add_dots(sum[i], word, q[0]);
        }
    }
}

static void store_spread(float *c, lc_v v, size_t n, size_t spread) {
    float lane[STRIP];
    v_store(lane, v);
    for (size_t i = 0; i < n; i++) c[i * spread] = lane[i];
}

/* Left row `row` times the columns at work, which are w->spread apart. */
LC_INLINE void few_strip(const coded_work *w, size_t row, const lc_code_kind kind) {
    const lc_coded_rows *r = &w->p->right;
    const size_t step = few_step(kind), per_byte = step / 64;
    size_t row_codes = (w->p->k + per_byte - 1) / per_byte, group = 0, place = 0;
    tile t = {.left = (const char *)w->p->left + row * w->row_bytes, .row = row};
    const tile_shape one = {1, 1, 1};
    const uint8_t *codes = r->codes + w->column * r->stride;
    t.acc[0][0] = v_zero();
    for (size_t k = 0; k < w->k;) {
        lc_w sum[STRIP], quads[4];
        for (int i = 0; i < STRIP; i++) sum[i] = w_zero();
        size_t end = coded_least(w->k, k + (w->size > step ? w->size : step));
        for (; k < end; k += step) {
            lc_w q[2];
            left_values(t.left + k, coded_least(end - k, step), kind, q);
            size_t at = k / per_byte;
            add_step(codes + at, r->stride * w->spread, w->columns, coded_least(row_codes - at, 64),
                     kind, q, sum);
        }
        add_across(sum, quads);
        size_t groups = w->size >= step ? 1 : coded_whole(step - (k - end), w->size) / w->size;
        size_t each = w->size >= step ? 4 : 4 * w->size / step;
        for (size_t g = 0; g < groups; g++, group++, place += STRIP) {
            begin_group(&t, w, group, one);
            for (size_t j = 0; j < each; j++)
                t.sum[0][0][0] = w_add(t.sum[0][0][0], quads[g * each + j]);
            end_group(&t, w, group, place, one);
        }
    }
    store_spread(w->p->c + row * w->p->ldc + w->column, quiet(t.acc[0][0]), w->columns, w->spread);
}

/* 64 bytes of codes of 16 weight rows as words of a row's codes. */
LC_INLINE void turned_step(const coded_work *w, const uint8_t *codes, size_t bytes, lc_w flip,
                           lc_w word[STRIP]) {
    const size_t stride = w->p->right.stride * w->spread;
    bool whole = w->columns == STRIP && bytes == 64;
    for (size_t i = 0; i < STRIP; i++) {
        const uint8_t *from = codes + i * stride;
        __builtin_prefetch(from + PART_AHEAD);
        word[i] = whole ? w_load(from) : i < w->columns ? w_load_n(from, bytes) : w_zero();
    }
    w_transpose(word);
    for (size_t i = 0; i < STRIP; i++) word[i] = w_xor(word[i], flip);
}

/* n words against the left rows' values from k on. */
LC_INLINE void add_turned(tile *t, const coded_work *w, size_t k, const lc_w *word, size_t n,
                          const bool halves, const tile_shape shape) {
    const lc_w low = w_set(0x0f0f0f0f);
    const char *left = t->left + k;
#pragma GCC unroll 16
    for (size_t i = 0; i < n; i++, left += halves ? 8 : 4) {
        lc_w even = halves ? w_and(word[i], low) : word[i];
        lc_w odd = w_and(w_down4(word[i]), low);
        LC_EACH_SUM {
            const char *q = left + (size_t)r * w->row_bytes;
            t->sum[r][s][0] = w_dot(t->sum[r][s][0], even, q);
            if (halves)
                t->sum[r][s][shape.chains - 1] = w_dot(t->sum[r][s][shape.chains - 1], odd, q + 4);
        }
    }
}

/* Some left rows times the columns at work. `rows` and `halves`, whether a byte has two codes, are
 * constants in every call. */
LC_INLINE void turned_strip(const coded_work *w, size_t row, const int rows, const bool halves) {
    const lc_coded_rows *right = &w->p->right;
    const size_t per_byte = halves ? 2 : 1, step = 64 * per_byte;
    const tile_shape shape = {rows, 1, rows < 4 && halves ? 2 : 1};
    const uint8_t *codes = right->codes + w->column * right->stride;
    const lc_w flip = w_set(right->kind == LC_CODES_I8 ? (int32_t)0x80808080u : 0);
    size_t row_codes = (w->p->k + per_byte - 1) / per_byte, group = 0, place = 0;
    tile t; /* its sums stay in registers: nothing clears them */
    t.left = (const char *)w->p->left + row * w->row_bytes;
    t.row = row;
    t.c = w->p->c;
    t.columns[0] = w->columns;
    LC_EACH_SUM t.acc[r][s] = v_zero();
    begin_group(&t, w, group, shape);
    for (size_t k = 0, end = coded_least(w->k, w->size); k < w->k; k += step) {
        lc_w word[STRIP];
        size_t bytes = coded_least(row_codes - k / per_byte, 64), last = coded_least(w->k, k + step);
        turned_step(w, codes + k / per_byte, bytes, flip, word);
        for (size_t at = k, to; at < last; at = to) {
            to = coded_least(end, last);
            if (to - at == step)
                add_turned(&t, w, at, word, STRIP, halves, shape);
            else
                add_turned(&t, w, at, word + (at - k) / 4 / per_byte, (to - at) / 4 / per_byte,
                           halves, shape);
            if (to < end) break;
            LC_EACH_SUM if (shape.chains > 1) t.sum[r][s][0] =
                w_add(t.sum[r][s][0], t.sum[r][s][1]);
            end_group(&t, w, group, place, shape);
            end = coded_least(w->k, to + w->size);
            place += STRIP;
            if (to < end) begin_group(&t, w, ++group, shape);
        }
    }
    LC_EACH_SUM store_spread(w->p->c + (row + (size_t)r) * w->p->ldc + w->column,
                             quiet(t.acc[r][s]), w->columns, w->spread);
}

LC_INLINE void turned_rows(const coded_work *w, size_t row, size_t rows, const bool halves) {
    switch (rows) {
    case 2: turned_strip(w, row, 2, halves); break;
    case 3: turned_strip(w, row, 3, halves); break;
    case 4: turned_strip(w, row, 4, halves); break;
    case 5: turned_strip(w, row, 5, halves); break;
    case 6: turned_strip(w, row, 6, halves); break;
    case 7: turned_strip(w, row, 7, halves); break;
    case 8: turned_strip(w, row, 8, halves); break;
    }
}

static void few_rows(const coded_work *w) {
    size_t rows = w->p->rows;
    take_groups(w, 0);
    if (rows > 1 && w->p->right.kind == LC_CODES_U4)
        turned_rows(w, 0, rows, true);
    else if (rows > 1)
        turned_rows(w, 0, rows, false);
    else if (w->p->right.kind == LC_CODES_U4)
        few_strip(w, 0, LC_CODES_U4);
    else if (w->p->right.kind == LC_CODES_U8)
        few_strip(w, 0, LC_CODES_U8);
    else
        few_strip(w, 0, LC_CODES_I8);
}

static void few_columns(coded_work *w) {
    w->k1 = w->k;
    for (size_t first = 0; first < w->p->columns;) {
        w->spread = part_of(w->p->columns - first);
        w->columns = coded_least(w->p->columns - first, STRIP);
        for (size_t i = 0; i < w->spread; i++) {
            w->column = first + i;
            fetch_groups(w, w->column + 1);
            few_rows(w);
        }
        first += w->columns * w->spread;
    }
}

#endif
