/*
 * matmul.c: packs the left rows of a list of products, 16 at a time, converts fp32 right rows, then
 * hands out panels of all products. Waves bound the list that is worked on at a time.
 */
#include "train/matmul.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

enum { WAVE = 96, GROUP = 16, CONVERT_ROWS = 64 };

void *lc_space_take(lc_space *space, size_t bytes) {
    if (bytes <= space->bytes) return space->block;
    lc_free(space->block);
    space->block = lc_alloc(bytes);
    space->bytes = space->block ? bytes : 0;
    return space->block;
}

void lc_space_free(lc_space *space) {
    lc_free(space->block);
    *space = (lc_space){0};
}

void lc_elements(const lc_op *op, size_t n, size_t cols, const float *x, size_t ldx, void *out) {
    size_t ld = lc_pad_k(cols);
    for (size_t i = 0; i < n; i++, x += ldx) {
        if (op->path->element == sizeof(float)) {
            float *y = (float *)out + i * ld;
            memcpy(y, x, cols * sizeof *y);
            memset(y + cols, 0, (ld - cols) * sizeof *y);
        } else {
            uint16_t *y = (uint16_t *)out + i * ld;
            op->k->narrow_bf16(cols, x, y);
            memset(y + cols, 0, (ld - cols) * sizeof *y);
        }
    }
}

/* One product on its way. */
typedef struct work {
    const lc_matmul *m;
    const struct work *left_of; /* whose packed rows it takes: itself or an earlier one */
    char *left, *right;         /* packed; converted or NULL */
    size_t width, tasks;        /* columns of a panel; panels */
    size_t packs, converts;     /* groups of left rows; of right rows */
} work;

typedef struct run {
    const lc_op *op;
    work list[WAVE];
    size_t n;
    char *scratch; /* [threads][scratch_bytes] */
    size_t scratch_bytes;
    const float *ones;
} run;

static size_t whole(size_t bytes) { return (bytes + 63) / 64 * 64; }

static size_t right_rows(const lc_matmul *m) { return m->kn ? m->k : m->columns; }
static size_t right_cols(const lc_matmul *m) { return m->kn ? m->columns : m->k; }

/* fp32 rows can be read where they are. */
static bool in_place(const lc_op *op, const lc_matmul *m) {
    return op->path->element == sizeof(float) && (m->kn || m->k % LC_K_BLOCK == 0);
}

/* The item-th of all products' pieces: which product, and which of its own. */
#define FIND_PIECE(r, item, count, w)                                                              \
    work *w = (r)->list;                                                                           \
    while ((item) >= (w)->count) (item) -= (w)->count, (w)++

static void pack_left(const run *r, const work *w, size_t group, char *scratch) {
    const lc_matmul *m = w->m;
    const lc_gemm_path *path = r->op->path;
    size_t row = group * GROUP, n = m->rows - row < GROUP ? m->rows - row : GROUP, ldx = m->ldx;
    const float *x = m->x + row * ldx;
    if (m->turned) {
        r->op->k->transpose(m->k, n, m->x + row, ldx, (float *)(void *)scratch, m->k);
        x = (const float *)(const void *)scratch;
        ldx = m->k;
    }
    (m->kn ? path->pack_kn : path->pack_nk)(n, m->k, x, ldx,
                                            w->left + lc_left_bytes(path, row, m->k));
}

static void convert_right(const run *r, const work *w, size_t group) {
    const lc_matmul *m = w->m;
    size_t row = group * CONVERT_ROWS, left = right_rows(m) - row, cols = right_cols(m);
    lc_elements(r->op, left < CONVERT_ROWS ? left : CONVERT_ROWS, cols, m->right_rows + row * m->ld,
                m->ld, w->right + row * lc_pad_k(cols) * r->op->path->element);
}

static void prepare(void *ctx, size_t begin, size_t end, int thread) {
    run *r = ctx;
    for (size_t i = begin; i < end; i++) {
        size_t item = i, packs = 0;
        for (size_t j = 0; j < r->n; j++) packs += r->list[j].packs;
        if (item < packs) {
            FIND_PIECE(r, item, packs, w);
            pack_left(r, w, item, r->scratch + (size_t)thread * r->scratch_bytes);
        } else {
            item -= packs;
            FIND_PIECE(r, item, converts, w);
            convert_right(r, w, item);
        }
    }
}

static void multiply(void *ctx, size_t begin, size_t end, int thread) {
    run *r = ctx;
    const lc_gemm_path *path = r->op->path;
    for (size_t i = begin; i < end; i++) {
        size_t item = i;
        FIND_PIECE(r, item, tasks, w);
        const lc_matmul *m = w->m;
        size_t column = item * w->width, left = m->columns - column;
        const char *right = w->right        ? w->right
                            : m->right_rows ? (const char *)m->right_rows
                                            : (const char *)m->right;
        size_t ld = w->right ? lc_pad_k(right_cols(m)) : m->ld;
        lc_product p = {.rows = m->rows,
                        .k = m->k,
                        .columns = left < w->width ? left : w->width,
                        .left = w->left_of->left,
                        .right = right + column * (m->kn ? 1 : ld) * path->element,
                        .ld = ld,
                        .c = m->c + column,
                        .ldc = m->ldc,
                        .scratch = r->scratch + (size_t)thread * r->scratch_bytes,
                        .decay = m->add ? r->ones : NULL};
        (m->kn ? path->multiply_kn : path->multiply_nk)(&p);
    }
}

static size_t op_threads(const lc_op *op) {
    return op->pool ? (size_t)lc_pool_threads(op->pool) : 1;
}

/* Panels so that the threads get about equal shares, wide ones with many rows. */
static size_t panel_width(const lc_op *op, const lc_matmul *m, size_t products) {
    size_t step = op->path->panel, most = op->path->wide, threads = op_threads(op);
    if (m->rows <= LC_FEW_ROWS && !m->kn) return step;
    size_t tasks = lc_ceil_div(m->columns, most);
    if (products < 2 * threads) tasks = lc_ceil_div(tasks, threads) * threads;
    size_t width = lc_ceil_div(lc_ceil_div(m->columns, tasks), step) * step;
    return width < most ? width : most;
}

/* Fills r->list from the front of list; returns how many products it took. */
static size_t make_wave(run *r, const lc_matmul *list, size_t n) {
    size_t taken = 0;
    r->n = 0;
    for (; taken < n && r->n < WAVE; taken++) {
        const lc_matmul *m = &list[taken];
        if (!m->rows || !m->columns) continue;
        if (!m->k) {
            for (size_t i = 0; i < m->rows && !m->add; i++)
                memset(m->c + i * m->ldc, 0, m->columns * sizeof *m->c);
            continue;
        }
        work *w = &r->list[r->n++];
        *w = (work){.m = m, .left_of = w};
        for (size_t j = 0; m->same_left && j + 1 < r->n; j++)
            if (r->list[j].m == m->same_left) w->left_of = &r->list[j];
        if (w->left_of == w) w->packs = lc_ceil_div(m->rows, GROUP);
        if (m->right_rows && !in_place(r->op, m))
            w->converts = lc_ceil_div(right_rows(m), CONVERT_ROWS);
    }
    return taken;
}

/* Cuts the wave's memory from base; with NULL it only counts. Returns the bytes. */
static size_t place_wave(run *r, char *base) {
    const lc_gemm_path *path = r->op->path;
    size_t used = 0, most_rows = 0;
    r->scratch_bytes = 0;
    for (size_t i = 0; i < r->n; i++) {
        work *w = &r->list[i];
        const lc_matmul *m = w->m;
        if (w->packs) {
            w->left = base ? base + used : NULL;
            used += whole(lc_left_bytes(path, lc_ceil_div(m->rows, GROUP) * GROUP, m->k));
        }
        if (w->converts) {
            w->right = base ? base + used : NULL;
            used += whole(right_rows(m) * lc_pad_k(right_cols(m)) * path->element);
        }
        size_t scratch = path->scratch_bytes(m->rows, m->k);
        size_t turn = m->turned ? GROUP * m->k * sizeof(float) : 0;
        if (turn > scratch) scratch = turn;
        if (whole(scratch) > r->scratch_bytes) r->scratch_bytes = whole(scratch);
        if (m->add && m->rows > most_rows) most_rows = m->rows;
    }
    r->ones = base ? (float *)(void *)(base + used) : NULL;
    for (size_t i = 0; base && i < most_rows; i++) ((float *)(void *)(base + used))[i] = 1.0f;
    used += whole(most_rows * sizeof(float));
    r->scratch = base ? base + used : NULL;
    return used + op_threads(r->op) * r->scratch_bytes;
}

static void run_wave(run *r) {
    size_t pieces = 0, tasks = 0;
    for (size_t i = 0; i < r->n; i++) {
        work *w = &r->list[i];
        w->width = panel_width(r->op, w->m, r->n);
        w->tasks = lc_ceil_div(w->m->columns, w->width);
        pieces += w->packs + w->converts;
        tasks += w->tasks;
    }
    lc_pool_for(r->op->pool, pieces, 1, prepare, r);
    lc_pool_for(r->op->pool, tasks, 1, multiply, r);
}

int lc_matmul_run(const lc_op *op, lc_space *space, const lc_matmul *list, size_t n, lc_err *err) {
    run r = {.op = op};
    while (n) {
        size_t taken = make_wave(&r, list, n);
        size_t bytes = place_wave(&r, NULL);
        char *base = lc_space_take(space, bytes);
        if (!base && bytes)
            return lc_fail(err, LC_ENOMEM, "matrix products: no %zu bytes left", bytes);
        for (size_t i = 0; i < r.n; i++)
            space->operations += 2.0 * (double)r.list[i].m->rows * (double)r.list[i].m->k *
                                 (double)r.list[i].m->columns;
        if (r.n) {
            place_wave(&r, base);
            run_wave(&r);
        }
        list += taken;
        n -= taken;
    }
    return LC_OK;
}
