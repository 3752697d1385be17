/*
 * packed.h (AMX): products whose two sides were packed before, for kv_b and for training. Both
 * sides are lists of whole tiles, each in one piece, so a tile's rows never compete for the same
 * places of the first cache, and results need no turning:
 *
 *     left    groups of 16 rows, [block of 32 k][row][32]      (a last group has fewer rows)
 *     right   panels of 32 columns, [block][half][pair of k][16 columns][2], padded with zeros
 *
 * Long contractions run in chunks whose right tiles stay in the first cache; sums wait in memory
 * meanwhile, which doesn't round them. Rounding may flush denormals: the products would.
 */
#ifndef LC_KERNELS_AMX_PACKED_H
#define LC_KERNELS_AMX_PACKED_H

enum {
    SIDE = 2 * TILE,           /* columns of a panel, rows of a pair of groups */
    BLOCK_WORDS = PAIRS * SIDE /* of a panel */
};

/* ---- packing ---- */

static void pack_rows(size_t rows, size_t k, const float *x, size_t ldx, void *out) {
    for (size_t first = 0; first < rows; first += TILE) {
        size_t n = at_most(rows - first, TILE);
        uint32_t *group = (uint32_t *)out + first * lc_pad_k(k) / 2;
        for (size_t i = 0; i < n; i++) {
            const float *row = x + (first + i) * ldx;
            uint32_t *y = group + i * PAIRS;
            for (size_t b = 0; b < k; b += LC_K_BLOCK, y += n * PAIRS)
                _mm512_storeu_si512(y, round_block(row + b, k - b));
        }
    }
}

/* 32 k of 16 rows: words of pairs of k for each row, turned. */
static inline void turn_block(const lc_turned *t, size_t first, size_t b, uint32_t *y) {
    size_t n = at_most(t->rows - first, TILE);
    __mmask16 mask = lanes_of(n);
    __m512i r[TILE];
    for (size_t i = 0; i < PAIRS; i++) {
        size_t at = b + 2 * i;
        __m512 even = _mm512_setzero_ps(), odd = even;
        if (at < t->k) even = _mm512_maskz_loadu_ps(mask, t->x + at * t->ldx + first);
        if (at + 1 < t->k) odd = _mm512_maskz_loadu_ps(mask, t->x + (at + 1) * t->ldx + first);
        r[i] = join_pairs(even, odd);
    }
    transpose_16x16(r);
    for (size_t i = 0; i < n; i++) _mm512_storeu_si512(y + i * PAIRS, r[i]);
}

static void pack_turned(const lc_turned *t, void *out) {
    for (size_t b = t->begin; b < t->end; b += LC_K_BLOCK)
        for (size_t first = 0; first < t->rows; first += TILE)
            turn_block(t, first, b,
                       (uint32_t *)out + first * lc_pad_k(t->k) / 2 +
                           b / 2 * at_most(t->rows - first, TILE));
}

/* A block of a panel: right rows across columns are words of pairs as they are needed. */
static inline void block_across(const lc_right *r, size_t column, size_t b, uint32_t *y) {
    size_t n = at_most(r->columns - column, SIDE);
    __mmask16 low = lanes_of(n), high = n > TILE ? lanes_of(n - TILE) : 0;
    const float *x = r->x + column;
    for (size_t i = 0; i < PAIRS; i++) {
        size_t at = b + 2 * i;
        __m512 even[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()}, odd[2] = {even[0], even[0]};
        if (at < r->k) {
            even[0] = _mm512_maskz_loadu_ps(low, x + at * r->ld);
            even[1] = _mm512_maskz_loadu_ps(high, x + at * r->ld + TILE);
        }
        if (at + 1 < r->k) {
            odd[0] = _mm512_maskz_loadu_ps(low, x + (at + 1) * r->ld);
            odd[1] = _mm512_maskz_loadu_ps(high, x + (at + 1) * r->ld + TILE);
        }
        for (size_t half = 0; half < 2; half++)
            _mm512_storeu_si512(y + half * TILE * PAIRS + i * TILE,
                                join_pairs(even[half], odd[half]));
    }
}

/* Right rows along k: 16 rows of 32 k are turned. */
static inline void block_along(const lc_right *r, size_t column, size_t b, uint32_t *y) {
    for (size_t half = 0; half < 2; half++, y += TILE * PAIRS) {
        __m512i w[TILE];
        for (size_t i = 0; i < TILE; i++) {
            size_t c = column + half * TILE + i;
            w[i] = _mm512_setzero_si512();
            if (c < r->columns) w[i] = round_block(r->x + c * r->ld + b, r->k - b);
        }
        transpose_16x16(w);
        for (size_t i = 0; i < PAIRS; i++) _mm512_storeu_si512(y + i * TILE, w[i]);
    }
}

static void amx_pack_right(const lc_right *r, void *out) {
    for (size_t b = r->begin; b < r->end; b += LC_K_BLOCK)
        for (size_t column = 0; column < r->columns; column += SIDE) {
            uint32_t *y =
                (uint32_t *)out + column * lc_pad_k(r->k) / 2 + b / LC_K_BLOCK * BLOCK_WORDS;
            (r->kn ? block_across : block_along)(r, column, b, y);
        }
}

/* ---- products ---- */

enum {
    CHUNK = 256 / LC_K_BLOCK, /* blocks: 16 KiB of a panel, and of a pair of groups */
    CHUNKED = 4,              /* panels */
    FETCHED = 8,              /* lines of a result a block of k */
};

/* Sums [rows][32] join c. */
static void add_sums(const float *sums, size_t rows, size_t columns, float *c, size_t ldc) {
    __mmask16 low = lanes_of(columns), high = columns > TILE ? lanes_of(columns - TILE) : 0;
    for (size_t i = 0; i < rows; i++, sums += SIDE, c += ldc) {
        __m512 a = _mm512_maskz_loadu_ps(low, c), b = _mm512_maskz_loadu_ps(high, c + TILE);
        _mm512_mask_storeu_ps(c, low, _mm512_add_ps(a, _mm512_loadu_ps(sums)));
        _mm512_mask_storeu_ps(c + TILE, high, _mm512_add_ps(b, _mm512_loadu_ps(sums + TILE)));
    }
}

/* 32 x 32 results, some blocks of the contraction. */
typedef struct packed_tile {
    const uint32_t *left[2];  /* groups, at the first block */
    size_t rows[2], columns;  /* of the groups; of the panel */
    const uint32_t *right[2]; /* 16 columns of the panel each, at the first block */
    size_t step, blocks;      /* words from block to block of them */
    bool more;                /* c holds the sums so far */
    float *c;                 /* [32][ldc] */
    size_t ldc;
    const float *result; /* where they will go in the end, 2 lines a row: fetched meanwhile */
    size_t result_ld;
} packed_tile;

static inline void load_sums(const packed_tile *t, bool two_rows, bool two_columns) {
    size_t bytes = t->ldc * sizeof *t->c;
    _tile_loadd(0, t->c, bytes);
    if (two_columns) _tile_loadd(1, t->c + TILE, bytes);
    if (two_rows) _tile_loadd(2, t->c + TILE * t->ldc, bytes);
    if (two_rows && two_columns) _tile_loadd(3, t->c + TILE * t->ldc + TILE, bytes);
}

/* two_rows, two_columns are constants in every call. */
LC_INLINE void multiply_tile(const packed_tile *t, const bool two_rows, const bool two_columns) {
    size_t lines = 2 * (t->rows[0] + t->rows[1]);
    finish_stores();
    if (t->more)
        load_sums(t, two_rows, two_columns);
    else
        zero_results(two_rows, two_columns);
    for (size_t b = 0; b < t->blocks; b++) {
        for (size_t i = b * FETCHED; i < (b + 1) * FETCHED && i < lines; i++)
            __builtin_prefetch(t->result + i / 2 * t->result_ld + i % 2 * TILE, 1);
        _tile_loadd(6, t->right[0] + b * t->step, 64);
        _tile_loadd(4, t->left[0] + b * t->rows[0] * PAIRS, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (two_columns) {
            _tile_loadd(7, t->right[1] + b * t->step, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (!two_rows) continue;
        _tile_loadd(5, t->left[1] + b * t->rows[1] * PAIRS, 64);
        _tile_dpbf16ps(2, 5, 6);
        if (two_columns) _tile_dpbf16ps(3, 5, 7);
    }
    store_results_at(t->c, t->ldc, two_rows, two_columns);
}

static void run_tile(const packed_tile *t, tile_config *config) {
    bool two_rows = t->rows[1] > 0, two_columns = t->columns > TILE;
    configure(config, t->rows[0], t->rows[1], at_most(t->columns, TILE),
              two_columns ? t->columns - TILE : 0, K_BYTES);
    if (two_rows && two_columns)
        multiply_tile(t, true, true);
    else if (two_rows)
        multiply_tile(t, true, false);
    else if (two_columns)
        multiply_tile(t, false, true);
    else
        multiply_tile(t, false, false);
}

/* A product's right side: panels, or strips, whose halves lie apart. */
typedef struct packed_side {
    const lc_product *p;
    bool strips;
    size_t chunk, panels; /* blocks of a chunk of k; panels that a chunk of the left side meets */
} packed_side;

/* A chunk of the panel from `column` on, against all rows. With add, sums of a long contraction
 * wait in `sums`, [rows up to 32][32], until the last chunk. */
static void run_chunk(const packed_side *side, size_t column, size_t chunk, float *sums,
                      tile_config *config) {
    const lc_product *p = side->p;
    size_t k = lc_pad_k(p->k), blocks = k / LC_K_BLOCK, n = at_most(p->columns - column, SIDE);
    size_t step = side->strips ? TILE * PAIRS : BLOCK_WORDS;
    size_t half = side->strips ? TILE * k / 2 : TILE * PAIRS;
    const uint32_t *right = (const uint32_t *)p->right + column * k / 2 + chunk * step;
    for (size_t row = 0; row < p->rows; row += SIDE) {
        size_t x0 = at_most(p->rows - row, TILE), x1 = at_most(p->rows - row - x0, TILE);
        const uint32_t *left = (const uint32_t *)p->left + row * k / 2;
        float *c = p->c + row * p->ldc + column, *to = c;
        if (p->add) to = sums + (blocks > side->chunk ? row * SIDE : 0);
        packed_tile t = {
            .left = {left + chunk * x0 * PAIRS, left + TILE * k / 2 + chunk * x1 * PAIRS},
            .rows = {x0, x1},
            .columns = n,
            .right = {right, right + half},
            .step = step,
            .blocks = at_most(blocks - chunk, side->chunk),
            .more = chunk > 0,
            .c = to,
            .ldc = p->add ? SIDE : p->ldc,
            .result = c,
            .result_ld = p->ldc};
        run_tile(&t, config);
        if (p->add && chunk + side->chunk >= blocks) add_sums(to, x0 + x1, n, c, p->ldc);
    }
}

static size_t sums_floats(size_t rows) { return (rows + SIDE - 1) / SIDE * SIDE * SIDE; }

/* A chunk of the left side serves some panels while it is in the second cache. */
static void multiply_side(const packed_side *side) {
    const lc_product *p = side->p;
    tile_config config = {0};
    for (size_t first = 0; first < p->columns; first += side->panels * SIDE)
        for (size_t chunk = 0; chunk < lc_pad_k(p->k) / LC_K_BLOCK; chunk += side->chunk)
            for (size_t i = 0; i < side->panels && first + i * SIDE < p->columns; i++)
                run_chunk(side, first + i * SIDE, chunk,
                          (float *)p->scratch + i * sums_floats(p->rows), &config);
    _tile_release();
}

static void amx_multiply(const lc_product *p) {
    multiply_side(&(packed_side){p, false, CHUNK, CHUNKED});
}

/* With a few left rows memory binds: two strips are read from end to end. */
static void amx_multiply_strips(const lc_product *p) {
    if (p->rows <= SIDE)
        multiply_side(&(packed_side){p, true, lc_pad_k(p->k) / LC_K_BLOCK, 1});
    else
        multiply_side(&(packed_side){p, true, CHUNK, CHUNKED});
}

static size_t packed_scratch(size_t rows) { return CHUNKED * sums_floats(rows) * sizeof(float); }
#endif
