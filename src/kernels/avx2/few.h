/*
 * few.h (AVX2): coded products of a few left rows with codes by row, behind coded.inc. Turning
 * codes into strips costs more than using them a few times, so dot products go along k: the sums of
 * a group are whole numbers, and their order is free. Of four weight rows at a time units of 32
 * bytes of codes are unpacked once for all left rows, and the products of each are added across.
 *
 * Before this file comes LC_FEW_DOT(acc, codes, values), if there is a dot product of bytes in 32
 * bits.
 */
#ifndef LC_KERNELS_AVX2_FEW_H
#define LC_KERNELS_AVX2_FEW_H

enum {
    QUAD = 4,  /* weight rows at a time */
    UNIT = 32, /* bytes of codes */
};

/* Left rows up to which this pays. */
LC_INLINE size_t most_rows(const lc_code_kind kind) {
    if (!HAS_PAIRS) return 1;
    return kind == LC_CODES_U4 ? 3 : TILE_ROWS;
}

/* k of a unit. */
static inline size_t unit_of(lc_code_kind kind) { return kind == LC_CODES_U4 ? 64 : 32; }

/* Bytes of the left values that meet a unit. */
LC_INLINE size_t left_unit(const lc_code_kind kind) {
    return unit_of(kind) * value_bytes(kind == LC_CODES_U4);
}

static bool few_fits(const lc_coded_product *p) {
    const lc_coded_rows *r = &p->right;
    size_t unit = unit_of(r->kind);
    bool divides = r->size >= p->k || r->size % unit == 0 || 2 * r->size == unit;
    return p->rows <= most_rows(r->kind) && r->layout == LC_CODES_BY_ROW && p->k % unit == 0 &&
           divides;
}

/* Of 64 bytes of left values the words that meet low halves (even bytes) come first, then those
 * that meet high ones (odd bytes). */
static void split_left(const coded_work *w, size_t bytes, char *out) {
    for (size_t row = 0; row < w->p->rows; row++) {
        const char *left = (const char *)w->p->left + row * w->row_bytes;
        for (size_t at = 0; at < bytes; at += 2 * UNIT, out += 2 * UNIT) {
            __m256 a = _mm256_castsi256_ps(load_8(left + at));
            __m256 b = _mm256_castsi256_ps(load_8(left + at + UNIT));
            __m256i even = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
            __m256i odd = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
            w_store(out, (lc_w){_mm256_permute4x64_epi64(even, 0xd8),
                                _mm256_permute4x64_epi64(odd, 0xd8)});
        }
    }
}

/* What codes become in front of a product. */
LC_INLINE lc_w unpack(__m256i codes, const lc_code_kind kind) {
    const __m256i low = _mm256_set1_epi8(0x0f);
    if (kind == LC_CODES_U4)
        return (lc_w){_mm256_and_si256(codes, low),
                      _mm256_and_si256(_mm256_srli_epi16(codes, 4), low)};
    if (kind == LC_CODES_I8) codes = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
    if (!HAS_PAIRS) return (lc_w){codes, codes};
    return (lc_w){_mm256_and_si256(codes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(codes, 8)};
}

/* Products of a unit, added up to 8 words, or to 16 halves (of 4 products of U4). */
#ifdef LC_FEW_DOT
LC_INLINE __m256i unit_products(lc_w codes, const char *left, const lc_code_kind kind) {
    __m256i sum = LC_FEW_DOT(_mm256_setzero_si256(), codes.lo, load_8(left));
    return kind == LC_CODES_U4 ? LC_FEW_DOT(sum, codes.hi, load_8(left + UNIT)) : sum;
}
#else
LC_INLINE __m256i unit_products(lc_w codes, const char *left, const lc_code_kind kind) {
    __m256i first = load_8(left), second = load_8(left + UNIT);
    if (kind == LC_CODES_U4)
        return _mm256_add_epi16(_mm256_maddubs_epi16(codes.lo, first),
                                _mm256_maddubs_epi16(codes.hi, second));
    return _mm256_add_epi32(_mm256_madd_epi16(codes.lo, first),
                            _mm256_madd_epi16(codes.hi, second));
}
#endif

LC_INLINE bool in_halves(const lc_code_kind kind) { return HAS_PAIRS && kind == LC_CODES_U4; }

LC_INLINE __m256i sum_of(__m256i a, __m256i b, const lc_code_kind kind) {
    return in_halves(kind) ? _mm256_add_epi16(a, b) : _mm256_add_epi32(a, b);
}

/* Of four weight rows, added across: [half of the unit][weight row]. Halves of U4 hold the sums of
 * 16 products, 16 * 15 * 127 at most. */
LC_INLINE __m256i across(const __m256i p[QUAD], const lc_code_kind kind) {
    __m256i pair[2];
    for (int i = 0; i < 2; i++) {
        __m256i crossed = _mm256_blend_epi32(p[i], p[i + 2], 0x33);
        pair[i] = sum_of(_mm256_blend_epi32(p[i], p[i + 2], 0xcc),
                         _mm256_shuffle_epi32(crossed, _MM_SHUFFLE(1, 0, 3, 2)), kind);
    }
    __m256i crossed = _mm256_blend_epi32(pair[0], pair[1], 0x55);
    __m256i sum = sum_of(_mm256_blend_epi32(pair[0], pair[1], 0xaa),
                         _mm256_shuffle_epi32(crossed, _MM_SHUFFLE(2, 3, 0, 1)), kind);
    return in_halves(kind) ? _mm256_madd_epi16(sum, _mm256_set1_epi16(1)) : sum;
}

/* What a product of a few left rows works with. */
typedef struct few_work {
    const coded_work *w;
    const uint8_t *codes[QUAD], *next; /* next: the quad behind this one, fetched as it lies */
    size_t units, group_units;         /* of a row, of a group */
    const char *left;                  /* [row][unit][left_unit] */
    int32_t *sums;                     /* [row][group][16] */
} few_work;

/* Groups of half a unit: both sums of a unit are whole. */
static inline void store_sums(int32_t *to, __m256i sum, bool halves) {
    __m128i first = _mm256_castsi256_si128(sum), second = _mm256_extracti128_si256(sum, 1);
    if (halves)
        _mm_storeu_si128((__m128i *)(void *)(to + STRIP), second);
    else
        first = _mm_add_epi32(first, second);
    _mm_storeu_si128((__m128i *)(void *)to, first);
}

/* Sums of four weight rows. `rows`, of the left, and `kind` are constants in every call. */
LC_INLINE void quad_sums(few_work *f, int32_t *sums, const int rows, const lc_code_kind kind) {
    if ((size_t)rows > most_rows(kind)) return;
    const bool halves = f->w->groups > f->units;
    for (size_t unit = 0, end; unit < f->units; sums += (1 + halves) * STRIP) {
        __m256i sum[TILE_ROWS];
        for (int r = 0; r < rows; r++) sum[r] = _mm256_setzero_si256();
        for (end = coded_least(f->units, unit + f->group_units); unit < end; unit++) {
            lc_w codes[QUAD];
            for (int i = 0; i < QUAD; i++)
                codes[i] = unpack(load_8(f->codes[i] + unit * UNIT), kind);
            for (int i = 0; i < QUAD * UNIT; i += 64) __builtin_prefetch(f->next + i, 0, 2);
            f->next += QUAD * UNIT;
            for (int r = 0; r < rows; r++) {
                const char *left = f->left + ((size_t)r * f->units + unit) * left_unit(kind);
                __m256i products[QUAD];
                for (int i = 0; i < QUAD; i++) products[i] = unit_products(codes[i], left, kind);
                sum[r] = _mm256_add_epi32(sum[r], across(products, kind));
            }
        }
        for (int r = 0; r < rows; r++)
            store_sums(sums + (size_t)r * f->w->groups * STRIP, sum[r], halves);
    }
}

/* Constants of quad_sums. */
LC_INLINE void quad_rows(few_work *f, int32_t *sums, const lc_code_kind kind) {
    switch (f->w->p->rows) {
    case 1: quad_sums(f, sums, 1, kind); break;
    case 2: quad_sums(f, sums, 2, kind); break;
    case 3: quad_sums(f, sums, 3, kind); break;
    case 4: quad_sums(f, sums, 4, kind); break;
    case 5: quad_sums(f, sums, 5, kind); break;
    case 6: quad_sums(f, sums, 6, kind); break;
    case 7: quad_sums(f, sums, 7, kind); break;
    case 8: quad_sums(f, sums, 8, kind); break;
    }
}
LC_APART void quad_u4(few_work *f, int32_t *sums) { quad_rows(f, sums, LC_CODES_U4); }
LC_APART void quad_u8(few_work *f, int32_t *sums) { quad_rows(f, sums, LC_CODES_U8); }
LC_APART void quad_i8(few_work *f, int32_t *sums) { quad_rows(f, sums, LC_CODES_I8); }

/* The columns at work, which are neighbours. Of a quad that isn't whole the last row is repeated.
 */
static void few_strip(few_work *f) {
    const coded_work *w = f->w;
    const lc_coded_rows *r = &w->p->right;
    for (size_t first = 0; first < w->columns; first += QUAD) {
        const uint8_t *codes = r->codes + w->column * r->stride;
        for (size_t i = 0; i < QUAD; i++)
            f->codes[i] = codes + coded_least(first + i, w->columns - 1) * r->stride;
        f->next = codes + (first + QUAD) * r->stride;
        switch (r->kind) {
        case LC_CODES_U4: quad_u4(f, f->sums + first); break;
        case LC_CODES_U8: quad_u8(f, f->sums + first); break;
        default: quad_i8(f, f->sums + first);
        }
    }
    for (size_t row = 0; row < w->p->rows; row++) {
        const tile_shape one = {1, 1, 1, BYTES};
        const int32_t *sums = f->sums + row * w->groups * STRIP;
        tile t = {.left = (const char *)w->p->left + row * w->row_bytes,
                  .c = w->p->c + row * w->p->ldc + w->column,
                  .row = row,
                  .columns = {w->columns}};
        t.acc[0][0] = v_zero();
        for (size_t group = 0; group < w->groups; group++) {
            begin_group(&t, w, group, one);
            t.sum[0][0][0] = w_add(t.sum[0][0][0], w_load(sums + group * STRIP));
            end_group(&t, w, group, group * STRIP, one);
        }
        store_c(&t, w, 0, 0, quiet(t.acc[0][0]));
    }
}

static void few_columns(coded_work *w) {
    const lc_code_kind kind = w->p->right.kind;
    size_t unit = unit_of(kind), units = w->k / unit, bytes = units * left_unit(kind);
    few_work f = {.w = w,
                  .units = units,
                  .group_units = coded_whole(w->size, unit) / unit,
                  .left = w->p->left, /* a single row, if it isn't split */
                  .sums = (int32_t *)(void *)(w->words + w->p->rows * bytes)};
    if (left_unit(kind) == 2 * UNIT) {
        split_left(w, bytes, (char *)w->words);
        f.left = (const char *)w->words;
    }
    w->k1 = w->k;
    for (; w->column < w->p->columns; w->column += STRIP) {
        w->columns = coded_least(w->p->columns - w->column, STRIP);
        take_groups(w, 0);
        fetch_groups(w, w->column + STRIP);
        few_strip(&f);
    }
}

#endif
