/*
 * matmul.c: the three loops of a list of products. Left rows of a block are packed into a thread's
 * own memory right before they are used; what is packed for all threads is cut from the space.
 * Waves bound the list that is worked on at a time.
 */
#include "train/matmul.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

enum {
    WAVE = 128,       /* products */
    ROWS = 128,       /* of a chain's block: its activations and the weights fit the second cache */
    LEAST_ROWS = 32,  /* the same where there is little to do */
    PACK = 128,       /* k of a piece of a right side */
    TURN_ROWS = 512,  /* of a turned product's piece */
    TURN_WIDTH = 128, /* columns of it, about */
};

void *lc_space_take(lc_space *space, size_t bytes) {
    if (bytes <= space->bytes) return space->block;
    lc_free(space->block);
    space->block = lc_alloc_dense(bytes, false);
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
    char *left, *right;       /* for all threads: of turned products; right sides packed here */
    bool own_left, own_right; /* false: those of the product before */
    size_t packs;             /* pieces of the right side to be packed first */
    size_t width, tasks;      /* turned: columns of a piece; pieces */
} work;

typedef struct chain {
    size_t first, n, length, block, blocks; /* works; rows in all, of a block; blocks */
    const size_t *cuts;                     /* of its turned products: blocks don't cross them */
    size_t pieces;
} chain;

typedef struct run {
    const lc_op *op;
    work list[WAVE];
    chain chains[WAVE];
    size_t n, n_chains;
    char *scratch; /* [threads][scratch_bytes]: packed left rows, then the path's own */
    size_t scratch_bytes, left_bytes;
} run;

static size_t whole(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Piece i of k: its first row, how many there are, and where its packed sides begin. */
typedef struct piece {
    size_t at, k, left, right;
} piece;
static size_t pieces_of(const lc_matmul *m) { return m->cuts ? m->pieces : 1; }

/* Piece i, p being the one before. */
static piece next_piece(const lc_gemm_path *path, const lc_matmul *m, size_t i, piece p) {
    piece next = {.k = m->k};
    if (m->cuts) next.at = m->cuts[i] - m->cuts[0], next.k = m->cuts[i + 1] - m->cuts[i];
    if (!i) return next;
    next.left = p.left + lc_left_bytes(path, lc_ceil_div(m->rows, 16) * 16, p.k);
    next.right = p.right + lc_right_bytes(path, p.k, m->columns);
    return next;
}

/* The bytes of all pieces, in left and right. */
static piece end_of(const lc_gemm_path *path, const lc_matmul *m) {
    piece p = {0};
    for (size_t i = 0; i < pieces_of(m); i++) p = next_piece(path, m, i, p);
    return (piece){.left = p.left + lc_left_bytes(path, lc_ceil_div(m->rows, 16) * 16, p.k),
                   .right = p.right + lc_right_bytes(path, p.k, m->columns)};
}
static size_t length_of(const lc_matmul *m) { return m->turned ? m->k : m->rows; }

static size_t op_threads(const lc_op *op) {
    return op->pool ? (size_t)lc_pool_threads(op->pool) : 1;
}

/* ---- right sides that all rows need ---- */

static void pack_pieces(void *ctx, size_t begin, size_t end, int thread) {
    run *r = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        size_t item = i, k;
        work *w = r->list;
        while (item >= w->packs) item -= w->packs, w++;
        const lc_matmul *m = w->m;
        k = item * PACK;
        r->op->path->pack_right(&(lc_right){.k = m->k,
                                            .columns = m->columns,
                                            .begin = k,
                                            .end = m->k - k < PACK ? m->k : k + PACK,
                                            .x = m->right_rows,
                                            .ld = m->ld,
                                            .kn = m->kn},
                                w->right);
    }
}

/* ---- chains ---- */

static void run_step(const lc_rows_step *s, size_t begin, size_t end, int thread) {
    if (s->run) s->run(s->ctx, s->at + begin, s->at + end, thread);
}

/* Rows [begin, end) of both sides of a turned product. */
static void pack_turned(const run *r, const work *w, size_t begin, size_t end) {
    const lc_matmul *m = w->m;
    const lc_gemm_path *path = r->op->path;
    piece p = {0};
    for (size_t i = 0; i < pieces_of(m); i++) {
        p = next_piece(path, m, i, p);
        size_t from = begin > p.at ? begin - p.at : 0;
        size_t to = end < p.at + p.k ? end - p.at : p.k;
        if (p.at >= end || from >= to) continue;
        lc_turned left = {m->rows, p.k, from, to, m->x + p.at * m->ldx, m->ldx};
        lc_right right = {p.k, m->columns, from, to, m->right_rows + p.at * m->ld, m->ld, true};
        if (w->own_left) path->pack_turned(&left, w->left + p.left);
        if (w->own_right) path->pack_right(&right, w->right + p.right);
    }
}

static void multiply_rows(const run *r, const work *w, size_t begin, size_t end, char *scratch) {
    const lc_matmul *m = w->m;
    r->op->path->multiply(&(lc_product){.rows = end - begin,
                                        .k = m->k,
                                        .columns = m->columns,
                                        .left = scratch,
                                        .right = w->right ? w->right : m->right,
                                        .c = m->c + begin * m->ldc,
                                        .ldc = m->ldc,
                                        .scratch = scratch + r->left_bytes,
                                        .add = m->add});
}

/* The left rows that the product before has packed still lie there. */
static bool same_rows(const lc_matmul *m, const lc_matmul *before) {
    return !before->turned && before->columns && before->x == m->x && before->ldx == m->ldx &&
           before->k == m->k && !before->behind.run && !m->before.run;
}

static void run_block(const run *r, const chain *c, size_t begin, size_t end, int thread) {
    char *scratch = r->scratch + (size_t)thread * r->scratch_bytes;
    for (size_t i = c->first; i < c->first + c->n; i++) {
        const work *w = &r->list[i];
        const lc_matmul *m = w->m;
        run_step(&m->before, begin, end, thread);
        if (m->turned) {
            pack_turned(r, w, begin, end);
        } else if (m->columns && m->k) {
            if (i == c->first || !same_rows(m, m - 1))
                r->op->path->pack_kn(end - begin, m->k, m->x + begin * m->ldx, m->ldx, scratch);
            multiply_rows(r, w, begin, end, scratch);
        }
        run_step(&m->behind, begin, end, thread);
    }
}

/* End of the block that begins at `begin`: whole pieces, or a part of one. */
static size_t block_end(const chain *c, size_t begin) {
    size_t i = 0, end;
    if (!c->cuts) return c->length - begin < c->block ? c->length : begin + c->block;
    while (c->cuts[i + 1] - c->cuts[0] <= begin) i++;
    end = c->cuts[i + 1] - c->cuts[0];
    if (end - begin > c->block) return begin + c->block;
    if (c->cuts[i] - c->cuts[0] < begin) return end;
    for (i++; i < c->pieces && c->cuts[i + 1] - c->cuts[0] - begin <= c->block; i++)
        end = c->cuts[i + 1] - c->cuts[0];
    return end;
}

static void run_blocks(void *ctx, size_t begin, size_t end, int thread) {
    run *r = ctx;
    for (size_t i = begin; i < end; i++) {
        size_t item = i, first = 0;
        const chain *c = r->chains;
        while (item >= c->blocks) item -= c->blocks, c++;
        if (!c->cuts) first = item * c->block, item = 0;
        while (item--) first = block_end(c, first);
        run_block(r, c, first, block_end(c, first), thread);
    }
}

/* ---- turned products ---- */

static void multiply_turned(void *ctx, size_t begin, size_t end, int thread) {
    run *r = ctx;
    const lc_gemm_path *path = r->op->path;
    for (size_t i = begin; i < end; i++) {
        size_t item = i;
        const work *w = r->list;
        while (item >= w->tasks) item -= w->tasks, w++;
        const lc_matmul *m = w->m;
        size_t across = lc_ceil_div(m->columns, w->width);
        size_t column = item % across * w->width, row = item / across * TURN_ROWS;
        size_t columns = m->columns - column, rows = m->rows - row;
        lc_product product = {.rows = rows < TURN_ROWS ? rows : TURN_ROWS,
                              .columns = columns < w->width ? columns : w->width,
                              .c = m->c + row * m->ldc + column,
                              .ldc = m->ldc,
                              .scratch = r->scratch + (size_t)thread * r->scratch_bytes,
                              .add = m->add};
        piece p = {0};
        for (size_t j = 0; j < pieces_of(m); j++) {
            p = next_piece(path, m, j, p);
            product.k = p.k;
            product.left = w->left + p.left + lc_left_bytes(path, row, p.k);
            product.right = w->right + p.right + lc_right_bytes(path, p.k, column);
            if (p.k) path->multiply(&product);
        }
    }
}

/* ---- waves ---- */

static void zero(const lc_matmul *m) {
    for (size_t i = 0; i < m->rows && !m->add; i++)
        memset(m->c + i * m->ldc, 0, m->columns * sizeof *m->c);
}

/* Adds the chain at the front of list to the wave. */
static void add_chain(run *r, const lc_matmul *list, size_t n) {
    chain *c = &r->chains[r->n_chains];
    *c = (chain){.first = r->n, .n = n, .length = length_of(list)};
    for (size_t i = 0; i < n; i++)
        if (!list[i].k && list[i].columns) zero(&list[i]);
    if (!c->length) return;
    for (size_t i = 0; i < n; i++) {
        const lc_matmul *m = &list[i], *last = i ? m - 1 : NULL;
        work *w = &r->list[r->n++];
        *w = (work){.m = m, .own_left = true, .own_right = true};
        if (m->turned && m->cuts) c->cuts = m->cuts, c->pieces = m->pieces;
        if (!m->turned || !last || !last->turned || last->behind.run || m->before.run) continue;
        w->own_left = m->x != last->x || m->ldx != last->ldx || m->rows != last->rows;
        w->own_right =
            m->right_rows != last->right_rows || m->ld != last->ld || m->columns != last->columns;
    }
    r->n_chains++;
}

/* Fills the wave from the front of list; returns how many products it took. */
static size_t make_wave(run *r, const lc_matmul *list, size_t n) {
    size_t taken = 0;
    r->n = r->n_chains = 0;
    while (taken < n) {
        size_t members = 1;
        while (taken + members < n && list[taken + members].chained) members++;
        if (r->n + members > WAVE) break;
        add_chain(r, list + taken, members);
        taken += members;
    }
    return taken;
}

/* Blocks so that every thread gets some, and pieces of turned products. */
static void divide_wave(run *r) {
    size_t threads = op_threads(r->op), block = 2 * ROWS, blocks = 0, panel = r->op->path->panel;
    while (block > LEAST_ROWS && blocks < 2 * threads) {
        block /= 2;
        blocks = 0;
        for (size_t i = 0; i < r->n_chains; i++) {
            chain *c = &r->chains[i];
            c->block = block;
            c->blocks = 0;
            for (size_t at = 0; at < c->length; at = block_end(c, at)) c->blocks++;
            blocks += c->blocks;
        }
    }
    for (size_t i = 0; i < r->n; i++) {
        work *w = &r->list[i];
        if (!w->m->turned || !w->m->columns) continue;
        w->width = lc_ceil_div(TURN_WIDTH, panel) * panel;
        while (w->width > panel && w->m->columns < threads * w->width && r->n < 2 * threads)
            w->width = lc_ceil_div(w->width / 2, panel) * panel;
        w->tasks = lc_ceil_div(w->m->columns, w->width) * lc_ceil_div(w->m->rows, TURN_ROWS);
    }
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Cuts the wave's memory from base; with NULL it only counts. Returns the bytes. */
static size_t place_wave(run *r, char *base) {
    const lc_gemm_path *path = r->op->path;
    size_t used = 0, own = 0;
    r->left_bytes = 0;
    for (size_t i = 0; i < r->n; i++) {
        work *w = &r->list[i];
        const lc_matmul *m = w->m;
        size_t rows = m->turned ? (m->rows < TURN_ROWS ? m->rows : TURN_ROWS) : ROWS;
        if (!m->columns || !m->k) continue;
        own = larger(own, path->scratch_bytes(rows, m->k));
        if (!m->turned) r->left_bytes = larger(r->left_bytes, lc_left_bytes(path, ROWS, m->k));
        if (m->turned && w->own_left) {
            w->left = base ? base + used : NULL;
            used += whole(end_of(path, m).left);
        }
        if (m->right_rows && w->own_right) {
            w->right = base ? base + used : NULL;
            used +=
                whole(m->turned ? end_of(path, m).right : lc_right_bytes(path, m->k, m->columns));
            w->packs = m->turned ? 0 : lc_ceil_div(m->k, PACK);
        }
        if (!w->own_left) w->left = w[-1].left;
        if (!w->own_right) w->right = w[-1].right;
    }
    r->left_bytes = whole(r->left_bytes);
    r->scratch_bytes = r->left_bytes + whole(own);
    r->scratch = base ? base + used : NULL;
    return used + op_threads(r->op) * r->scratch_bytes;
}

static void run_wave(run *r) {
    size_t packs = 0, blocks = 0, tasks = 0;
    for (size_t i = 0; i < r->n; i++) packs += r->list[i].packs, tasks += r->list[i].tasks;
    for (size_t i = 0; i < r->n_chains; i++) blocks += r->chains[i].blocks;
    lc_pool_for(r->op->pool, packs, 1, pack_pieces, r);
    lc_pool_for(r->op->pool, blocks, 1, run_blocks, r);
    lc_pool_for(r->op->pool, tasks, 1, multiply_turned, r);
}

int lc_matmul_run(const lc_op *op, lc_space *space, const lc_matmul *list, size_t n, lc_err *err) {
    run r = {.op = op};
    for (size_t i = 0; i < n; i++)
        space->operations +=
            2.0 * (double)list[i].rows * (double)list[i].k * (double)list[i].columns;
    while (n) {
        size_t taken = make_wave(&r, list, n);
        divide_wave(&r);
        size_t bytes = place_wave(&r, NULL);
        char *base = lc_space_take(space, bytes);
        if (!base && bytes)
            return lc_fail(err, LC_ENOMEM, "matrix products: no %zu bytes left", bytes);
        place_wave(&r, base);
        run_wave(&r);
        list += taken;
        n -= taken;
    }
    return LC_OK;
}
