/*
 * few.h (AVX512-VNNI): coded products of a few left rows, behind coded.inc. Turning codes into
 * strips costs more than using them once, so 16 weight rows are read as they lie, 64 bytes of each
 * in turn, into 16 registers of partial sums; at the end of a group those are added across and
 * turned together.
 *
 * The 16 rows are not neighbours: spread_columns has the reason. With 2 to 8 left rows the codes
 * are turned in registers and used for all of them.
 *
 * Before this file comes FEW_FETCH(p), which fetches what lies ahead of p, as the processors that
 * use it want it (decision 012).
 */
#ifndef LC_KERNELS_AVX512VNNI_FEW_H
#define LC_KERNELS_AVX512VNNI_FEW_H

enum { FEW_ROWS = TILE_ROWS }; /* left rows up to which this pays */

/* k of 64 bytes of codes. */
static inline size_t few_step(lc_code_kind kind) { return kind == LC_CODES_U4 ? 128 : 64; }

static bool few_fits(const lc_coded_product *p) {
    size_t step = few_step(p->right.kind), size = p->right.size;
    bool divides = size % step == 0 || step % size == 0;
    return p->rows <= FEW_ROWS && p->right.layout == LC_CODES_BY_ROW && (size >= p->k || divides);
}

/* quads[q] = lanes 4 q .. 4 q + 3 of the four registers, side by side. */
LC_INLINE void turn_quads(const lc_w four[4], lc_w quads[4]) {
    lc_w a = _mm512_shuffle_i32x4(four[0], four[1], 0x44);
    lc_w b = _mm512_shuffle_i32x4(four[0], four[1], 0xee);
    lc_w c = _mm512_shuffle_i32x4(four[2], four[3], 0x44);
    lc_w d = _mm512_shuffle_i32x4(four[2], four[3], 0xee);
    quads[0] = _mm512_shuffle_i32x4(a, c, 0x88);
    quads[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
    quads[2] = _mm512_shuffle_i32x4(b, d, 0x88);
    quads[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
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
    turn_quads(four, quads);
}

/* A step's operands: 64 bytes of codes of each weight row at work, the left values that they meet.
 */
typedef struct few_operands {
    const uint8_t *codes;
    size_t stride; /* bytes from weight row to weight row; a single one stands for all 16 */
    const char *left;
} few_operands;

static inline few_operands few_operands_at(const coded_work *w, size_t k, const lc_code_kind kind) {
    const lc_coded_rows *r = &w->p->right;
    return (few_operands){r->codes + w->column * r->stride + k * 64 / few_step(kind),
                          w->columns == STRIP ? r->stride * w->spread : 0,
                          (const char *)w->p->left + k};
}

/* A step of which a part is missing, zeros in its place. */
typedef struct few_tail {
    few_operands operands;
    size_t k; /* where it begins; past the end: there is none */
    uint8_t codes[STRIP][64];
    char left[2 * 64];
} few_tail;

static void copy_tail(const coded_work *w, const lc_code_kind kind, few_tail *tail) {
    size_t step = few_step(kind), rest = w->p->k % step;
    tail->k = w->p->k / step * step;
    few_operands o = few_operands_at(w, tail->k, kind);
    tail->operands = (few_operands){tail->codes[0], sizeof *tail->codes, tail->left};
    if (!rest) return;
    memset(tail->codes, 0, sizeof tail->codes);
    memset(tail->left, 0, sizeof tail->left);
    for (size_t i = 0; i < STRIP; i++)
        memcpy(tail->codes[i], o.codes + i * o.stride, (rest * 64 + step - 1) / step);
    memcpy(tail->left, o.left, w->k - tail->k);
}

/* Left values of a step: for U4 those of low halves, then of high ones (packed rows have words of
 * them in turns). */
LC_INLINE void left_values(const char *left, const lc_code_kind kind, lc_w q[2]) {
    q[0] = w_load(left);
    if (kind != LC_CODES_U4) return;
    const lc_w even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    lc_w a = q[0], b = w_load(left + 64);
    q[0] = _mm512_permutex2var_epi32(a, even, b);
    q[1] = _mm512_permutex2var_epi32(a, w_add(even, w_set(1)), b);
}

LC_INLINE lc_w row_of(const few_operands *o, size_t i) {
    const uint8_t *from = o->codes + i * o->stride;
    FEW_FETCH(from);
    return w_load(from);
}

LC_INLINE void add_step(few_operands o, const lc_code_kind kind, lc_w sum[STRIP]) {
    const lc_w low = w_set(0x0f0f0f0f), flip = w_set((int32_t)0x80808080u);
    lc_w q[2];
    left_values(o.left, kind, q);
    for (size_t i = 0; i < STRIP; i++) {
        lc_w word = row_of(&o, i);
        if (kind == LC_CODES_U4) {
            sum[i] = add_dots(sum[i], w_and(word, low), q[0]);
            sum[i] = add_dots(sum[i], w_and(w_down4(word), low), q[1]);
        } else {
            if (kind == LC_CODES_I8) word = w_xor(word, flip);
            sum[i] = add_dots(sum[i], word, q[0]);
        }
    }
}

/* Sums of neighbours in 16 bits, those of a before those of b in every 4 lanes. */
LC_INLINE lc_w add_pairs(lc_w a, lc_w b) {
    return _mm512_madd_epi16(_mm512_packs_epi32(a, b), w_set(0x00010001));
}

/* What add_across gives of a single step of U4: sums of 8 products, at most 8 * 15 * 127 in
 * magnitude, and their pairs fit in 16 bits. So 20 shuffles do instead of 32, and no 16 sums wait.
 */
LC_INLINE void short_quads(few_operands o, lc_w quads[4]) {
    const lc_w low = w_set(0x0f0f0f0f);
    lc_w q[2], four[4];
    left_values(o.left, LC_CODES_U4, q);
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        lc_w sum[4];
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++) {
            lc_w word = row_of(&o, 4 * i + j);
            sum[j] = add_dots(w_zero(), w_and(word, low), q[0]);
            sum[j] = add_dots(sum[j], w_and(w_down4(word), low), q[1]);
        }
        four[i] = add_pairs(add_pairs(sum[0], sum[1]), add_pairs(sum[2], sum[3]));
    }
    turn_quads(four, quads);
}

static void store_spread(float *c, lc_v v, size_t n, size_t spread) {
    float lane[STRIP];
    v_store(lane, v);
    for (size_t i = 0; i < n; i++) c[i * spread] = lane[i];
}

/* Groups of `each` quads: sums of the columns at work, to acc. */
LC_INLINE void add_quads(tile *t, const coded_work *w, const lc_w quads[4], const size_t each,
                         size_t *group) {
    const tile_shape one = {1, 1, 1, BYTES};
#pragma GCC unroll 4
    for (size_t q = 0; q < 4; q += each) {
        if (*group == w->groups) return;
        begin_group(t, w, *group, one);
#pragma GCC unroll 4
        for (size_t i = 0; i < each; i++) t->sum[0][0][0] = w_add(t->sum[0][0][0], quads[q + i]);
        end_group(t, w, *group, *group * STRIP, one);
        ++*group;
    }
}

/* The left row times the columns at work, which are w->spread apart. Groups are `each` quads of a
 * step; with 4, a step or more. */
LC_INLINE void few_strip(const coded_work *w, const lc_code_kind kind, const size_t each) {
    const size_t step = few_step(kind);
    size_t group = 0;
    tile t = {.left = w->p->left};
    few_operands o = few_operands_at(w, 0, kind);
    few_tail tail;
    copy_tail(w, kind, &tail);
    t.acc[0][0] = v_zero();
    for (size_t k = 0, end; k < w->k; k = end) {
        lc_w sum[STRIP], quads[4];
        end = k + (each < 4 ? step : coded_whole(coded_least(w->k - k, w->size), step));
        if (kind == LC_CODES_U4 && end == k + step) {
            short_quads(k < tail.k ? o : tail.operands, quads);
            o.codes += 64;
            o.left += step;
        } else {
            for (int i = 0; i < STRIP; i++) sum[i] = w_zero();
            for (; k < end && k < tail.k; k += step, o.codes += 64, o.left += step)
                add_step(o, kind, sum);
            if (k < end) add_step(tail.operands, kind, sum);
            add_across(sum, quads);
        }
        add_quads(&t, w, quads, each, &group);
    }
    store_spread(w->p->c + w->column, quiet(t.acc[0][0]), w->columns, w->spread);
}

/* The switch makes `each` a constant. */
LC_INLINE void one_row(const coded_work *w, const lc_code_kind kind) {
    switch (4 * w->size / few_step(kind)) {
    case 1: few_strip(w, kind, 1); break;
    case 2: few_strip(w, kind, 2); break;
    default: few_strip(w, kind, 4);
    }
}

/* A step's codes as words of one weight row each. */
LC_INLINE void turn_step(few_operands o, lc_w flip, lc_w word[STRIP]) {
    for (size_t i = 0; i < STRIP; i++) word[i] = row_of(&o, i);
    w_transpose(word);
    for (size_t i = 0; i < STRIP; i++) word[i] = w_xor(word[i], flip);
}

/* All left rows times the columns at work. `rows` and `halves`, whether a byte has two codes, are
 * constants in every call. */
LC_INLINE void turned_strip(const coded_work *w, const int rows, const bool halves) {
    const lc_code_kind kind = halves ? LC_CODES_U4 : LC_CODES_U8;
    const size_t step = few_step(kind), each = halves ? 8 : 4; /* k of a word */
    const tile_shape shape = {rows, 1, rows < 4 && halves ? 2 : 1, halves ? NIBBLES : BYTES};
    const lc_w flip = w_set(w->p->right.kind == LC_CODES_I8 ? (int32_t)0x80808080u : 0);
    size_t group = 0, place = 0;
    few_operands o = few_operands_at(w, 0, kind);
    few_tail tail;
    tile t; /* its sums stay in registers: nothing clears them */
    t.left = w->p->left;
    t.row = 0;
    t.c = w->p->c;
    t.columns[0] = w->columns;
    copy_tail(w, kind, &tail);
    LC_EACH_SUM t.acc[r][s] = v_zero();
    begin_group(&t, w, group, shape);
    for (size_t k = 0, end = coded_least(w->k, w->size); k < w->k; k += step) {
        lc_w word[STRIP];
        const char *left = t.left + k;
        size_t last = coded_least(w->k, k + step);
        turn_step(k < tail.k ? o : tail.operands, flip, word);
        o.codes += 64;
        for (size_t at = k, to; at < last; at = to) {
            to = coded_least(end, last);
            const lc_w *from = word + (at - k) / each;
            const char *q = left + (at - k);
            size_t n = (to - at) / each;
#pragma GCC unroll 8
            for (size_t i = 0; i < n; i++, q += each) add_word(&t, w, q, from[i], 0, 0, shape);
            if (to < end) break;
            LC_EACH_SUM if (shape.chains > 1) t.sum[r][s][0] =
                w_add(t.sum[r][s][0], t.sum[r][s][1]);
            end_group(&t, w, group, place, shape);
            end = coded_least(w->k, to + w->size);
            place += STRIP;
            if (to < end) begin_group(&t, w, ++group, shape);
        }
    }
    LC_EACH_SUM store_spread(w->p->c + (size_t)r * w->p->ldc + w->column, quiet(t.acc[r][s]),
                             w->columns, w->spread);
}

LC_INLINE void turned_rows(const coded_work *w, const bool halves) {
    switch (w->p->rows) {
    case 2: turned_strip(w, 2, halves); break;
    case 3: turned_strip(w, 3, halves); break;
    case 4: turned_strip(w, 4, halves); break;
    case 5: turned_strip(w, 5, halves); break;
    case 6: turned_strip(w, 6, halves); break;
    case 7: turned_strip(w, 7, halves); break;
    case 8: turned_strip(w, 8, halves); break;
    }
}

static void few_rows(const coded_work *w) {
    const lc_code_kind kind = w->p->right.kind;
    take_groups(w, 0);
    fetch_groups(w, w->column + 1); /* this strip's own would wait behind that */
    if (w->p->rows > 1 && kind == LC_CODES_U4)
        turned_rows(w, true);
    else if (w->p->rows > 1)
        turned_rows(w, false);
    else if (kind == LC_CODES_U4)
        one_row(w, LC_CODES_U4);
    else if (kind == LC_CODES_U8)
        one_row(w, LC_CODES_U8);
    else
        one_row(w, LC_CODES_I8);
}

/* Columns that make no whole strip are taken one at a time. */
static void few_columns(coded_work *w) {
    w->k1 = w->k;
    for (size_t first = 0; first < w->p->columns;) {
        w->columns = w->p->columns - first < STRIP ? 1 : STRIP;
        w->spread = part_of(w->p->columns - first);
        for (size_t i = 0; i < w->spread; i++) {
            w->column = first + i;
            few_rows(w);
        }
        first += w->columns * w->spread;
    }
}

#endif
