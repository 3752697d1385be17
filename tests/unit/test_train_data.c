/*
 * test_train_data.c: the reading side of training data: shuffle, shards, sets, sequences. What a
 * sequence must hold is worked out here from the documents and the rules of data.h, by plain loops.
 * uses-threads
 */
#include "train/data.h"

#include "base/pool.h"
#include "base/rng.h"
#include "train/shuffle.h"
#include "train_files.h"

static lc_err err;
static char folder[256];

static int set_up(void **state) {
    (void)state;
    make_folder(folder);
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* ---- shuffle ---- */

static void test_shuffle_is_a_permutation(void **state) {
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 1000, 4096, 65537};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        lc_shuffle s;
        uint64_t n = sizes[k], same = 0;
        uint8_t *seen = calloc(n, 1);
        lc_shuffle_init(&s, n, 7, k);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t to = lc_shuffle_at(&s, i);
            assert_true(to < n && !seen[to]);
            seen[to] = 1;
            same += to == i;
        }
        if (n >= 1000) assert_true(same < 12); /* one is expected */
        free(seen);
    }
}

/* Where 8 elements go, over many keys: each place 1/8 of the time. */
static void test_shuffle_is_even(void **state) {
    (void)state;
    enum { N = 8, KEYS = 40000 };
    int count[N][N] = {{0}};
    for (uint64_t key = 0; key < KEYS; key++) {
        lc_shuffle s;
        lc_shuffle_init(&s, N, 1, key);
        for (uint64_t i = 0; i < N; i++) count[i][lc_shuffle_at(&s, i)]++;
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            assert_true(abs(count[i][j] - KEYS / N) < 400); /* 6 standard deviations */
}

/* ---- made-up sources ---- */

enum { DOCS_MAX = 400 };
typedef struct made {
    size_t n, length[DOCS_MAX];
    int32_t *tokens[DOCS_MAX];
    uint8_t *mask[DOCS_MAX];
} made;

static const lc_shard_kind kind = {2, 60000, 2, {1, 2, 3}};

/* Documents whose tokens tell where they are from. */
static void make_docs(made *m, size_t n, uint64_t seed, bool masked) {
    m->n = n;
    for (size_t d = 0; d < n; d++) {
        m->length[d] = 2 + lc_rng(seed, 1, d).word[0] % 40; /* one token tells which it is */
        if (d % 50 == 49) m->length[d] = 300;
        m->tokens[d] = calloc(m->length[d], sizeof(int32_t));
        m->mask[d] = calloc(m->length[d], 1);
        for (size_t i = 0; i < m->length[d]; i++) {
            m->tokens[d][i] = (int32_t)(3 + d * 100 + i % 100);
            m->mask[d][i] = !masked || (d + i) % 3 == 0;
        }
        m->tokens[d][m->length[d] - 1] = 2;
    }
}
static void free_docs(made *m) {
    for (size_t d = 0; d < m->n; d++) {
        free(m->tokens[d]);
        free(m->mask[d]);
    }
}

static uint64_t write_shard(const char *path, const made *m, size_t from, size_t to, bool masked) {
    lc_shard_writer *w;
    uint64_t sum;
    assert_ok(lc_shard_create(path, &kind, 0, &w, &err), err);
    for (size_t d = from; d < to; d++)
        assert_ok(lc_shard_add(w, m->tokens[d], masked ? m->mask[d] : NULL, m->length[d], &err),
                  err);
    assert_ok(lc_shard_finish(w, &sum, &err), err);
    return sum;
}

/* A set of three shards. */
static void write_set(const char *path, const made *m, bool masked) {
    lc_buf manifest = {0};
    mkdir(path, 0777);
    lc_buf_puts(&manifest, "{\"format\": \"longcat-train-data\", \"version\": 1, \"name\": \"x\", "
                           "\"shards\": [");
    for (size_t k = 0; k < 3; k++) {
        char name[32];
        size_t from = m->n * k / 3, to = m->n * (k + 1) / 3, tokens = 0;
        snprintf(name, sizeof name, "%zu.tokens", k);
        uint64_t sum = write_shard(in(path, name), m, from, to, masked);
        for (size_t d = from; d < to; d++) tokens += m->length[d];
        lc_buf_printf(&manifest,
                      "%s{\"file\": \"%s\", \"documents\": %zu, \"tokens\": %zu, \"xxh3\": "
                      "\"%016llx\"}",
                      k ? ", " : "", name, to - from, tokens, (unsigned long long)sum);
    }
    lc_buf_puts(&manifest, "]}");
    put_text(in(path, "manifest.json"), manifest.data);
    lc_buf_free(&manifest);
}

/* ---- shards ---- */

static void check_shard(const lc_shard *s, const made *m, bool masked) {
    assert_int_equal(lc_shard_documents(s), m->n);
    for (size_t d = 0; d < m->n; d++) {
        size_t n = m->length[d], first = n / 3;
        int32_t tokens[512];
        uint8_t mask[512];
        assert_int_equal(lc_shard_length(s, d), n);
        lc_shard_part part = {d, first, n - first, tokens, mask};
        assert_ok(lc_shard_read(s, &part, &err), err);
        assert_memory_equal(tokens, m->tokens[d] + first, (n - first) * sizeof *tokens);
        for (size_t i = first; i < n; i++)
            assert_int_equal(mask[i - first], masked ? m->mask[d][i] : 1);
    }
}

static void test_shard_round_trip(void **state) {
    (void)state;
    for (int masked = 0; masked < 2; masked++) {
        made m;
        lc_shard *s;
        make_docs(&m, 200, 1, masked);
        uint64_t sum = write_shard(in(folder, "a.tokens"), &m, 0, m.n, masked);
        assert_ok(lc_shard_open(in(folder, "a.tokens"), &s, &err), err);
        assert_true(lc_shard_checksum(s) == sum);
        check_shard(s, &m, masked);
        lc_shard_close(s);
        free_docs(&m);
    }
}

static void test_mask_may_come_late(void **state) {
    (void)state;
    static const int32_t a[] = {5, 6, 2}, b[] = {7, 2};
    static const uint8_t mask[] = {0, 1};
    lc_shard_writer *w;
    lc_shard *s;
    uint64_t sum;
    const lc_shard_kind wide = {4, 200000, 2, {0}};
    assert_ok(lc_shard_create(in(folder, "w.tokens"), &wide, 3, &w, &err), err);
    assert_ok(lc_shard_add(w, a, NULL, 3, &err), err);
    assert_ok(lc_shard_add(w, b, mask, 2, &err), err);
    assert_ok(lc_shard_add(w, a, NULL, 3, &err), err);
    assert_ok(lc_shard_finish(w, &sum, &err), err);
    assert_ok(lc_shard_open(in(folder, "w.tokens"), &s, &err), err);
    for (uint64_t d = 0; d < 3; d++) {
        int32_t tokens[3];
        uint8_t got[3] = {9, 9, 9};
        lc_shard_part part = {d, 0, d == 1 ? 2 : 3, tokens, got};
        assert_ok(lc_shard_read(s, &part, &err), err);
        assert_memory_equal(tokens, d == 1 ? b : a, part.count * sizeof *tokens);
        assert_int_equal(got[0], d == 1 ? 0 : 1);
        assert_int_equal(got[1], 1);
    }
    lc_shard_close(s);
}

static void test_writer_refuses(void **state) {
    (void)state;
    static const int32_t bad[] = {60000}, good[] = {2};
    lc_shard_writer *w;
    uint64_t sum;
    assert_ok(lc_shard_create(in(folder, "a.tokens"), &kind, 0, &w, &err), err);
    assert_int_equal(lc_shard_add(w, bad, NULL, 1, &err), LC_EINVAL);
    assert_int_equal(lc_shard_add(w, good, NULL, 0, &err), LC_ELIMIT);
    assert_int_equal(lc_shard_finish(w, &sum, &err), LC_EINVAL); /* no documents */
    assert_int_equal(access(in(folder, "a.tokens"), F_OK), -1);
    assert_int_equal(access(in(folder, "a.tokens.part"), F_OK), -1);
    assert_int_equal(lc_shard_create(in(folder, "no/a.tokens"), &kind, 0, &w, &err), LC_EIO);
}

/* Every byte changed, every length cut: an error that names the file, or (padding) equal data. */
static void test_damage_is_named(void **state) {
    (void)state;
    made m;
    size_t refused = 0, harmless = 0;
    make_docs(&m, 12, 3, true);
    write_shard(in(folder, "a.tokens"), &m, 0, m.n, true);
    lc_buf file = get_file(in(folder, "a.tokens"));
    for (size_t i = 0; i < 2 * file.len; i++) {
        lc_shard *s;
        bool cut = i >= file.len;
        char old = file.data[i % file.len];
        if (!cut) file.data[i] ^= (char)(1 << i % 8);
        put_file(in(folder, "b.tokens"), file.data, cut ? i - file.len : file.len);
        file.data[i % file.len] = old;
        int status = lc_shard_open(in(folder, "b.tokens"), &s, &err);
        for (size_t d = 0; !status && d < m.n; d++) {
            int32_t tokens[512];
            uint8_t mask[512];
            lc_shard_part part = {d, 0, m.length[d], tokens, mask};
            status = lc_shard_read(s, &part, &err);
            if (status) continue;
            assert_memory_equal(tokens, m.tokens[d], m.length[d] * sizeof *tokens);
            assert_memory_equal(mask, m.mask[d], m.length[d]);
        }
        if (status) assert_non_null(strstr(err.text, "b.tokens"));
        refused += status != 0;
        harmless += !status;
        lc_shard_close(s);
    }
    printf("# %zu damaged files refused, %zu changes of padding harmless\n", refused, harmless);
    assert_true(harmless < 3 * 64);
    lc_buf_free(&file);
    free_docs(&m);
}

/* ---- sequences ---- */

typedef struct setup {
    size_t n;
    const made *made[3];
    lc_train_source source[3];
    uint64_t seed;
    size_t length, extra, window;
} setup;

static lc_train_data *open_data(const setup *s) {
    lc_train_data *data;
    lc_train_spec spec = {s->source, s->n, s->seed, s->length, s->extra, s->window};
    assert_ok(lc_train_data_open(&spec, &data, &err), err);
    return data;
}

enum { ROOM = 600 };
typedef struct row {
    int32_t tokens[ROOM], starts[ROOM];
    uint8_t mask[ROOM];
    lc_train_row r;
} row;

static const row *get(lc_train_data *data, uint64_t number, row *out) {
    memset(out, 0, sizeof *out);
    out->r = (lc_train_row){.tokens = out->tokens, .starts = out->starts, .mask = out->mask};
    assert_ok(lc_train_sequence(data, number, &out->r, &err), err);
    return out;
}

/* The document of a made source that a token other than EOS is from. */
static size_t doc_of(int32_t token) { return (size_t)(token - 3) / 100; }

/* Goes through the stream of a cut source for `epochs` epochs and checks every token, start and
 * mask; each document must come once an epoch, in another order. */
static void test_cut_stream(void **state) {
    (void)state;
    made m;
    make_docs(&m, 130, 5, true);
    write_set(in(folder, "s"), &m, true);
    setup s = {1, {&m}, {{in(folder, "s"), 1, false, 0, 0}}, 11, 64, 2, 0};
    lc_train_data *data = open_data(&s);
    size_t total = 0, at = 0, doc = 0, orders[2][DOCS_MAX], seen[2] = {0}, checked = 0;
    for (size_t d = 0; d < m.n; d++) total += m.length[d];
    bool inside = false;
    row r;
    for (uint64_t k = 0; k * 64 + 64 <= 2 * total; k++) {
        get(data, k, &r);
        assert_int_equal(r.r.epoch, k * 64 / total);
        int32_t start = 0;
        for (size_t i = 0; i < 64; i++, checked++) {
            if (!inside) {
                doc = doc_of(r.tokens[i]);
                at = 0;
                start = (int32_t)i;
                size_t epoch = (k * 64 + i) / total;
                assert_true(epoch < 2);
                orders[epoch][seen[epoch]++] = doc;
            }
            assert_true(doc < m.n);
            assert_int_equal(r.tokens[i], m.tokens[doc][at]);
            assert_int_equal(r.starts[i], start);
            assert_int_equal(r.mask[i], (int)i == start ? 0 : m.mask[doc][at]);
            inside = ++at < m.length[doc];
        }
        row next; /* the extra tokens are the next sequence's first */
        get(data, k + 1, &next);
        assert_memory_equal(r.tokens + 64, next.tokens, 2 * sizeof(int32_t));
    }
    size_t equal = 0;
    assert_int_equal(seen[0], m.n);
    for (size_t i = 0; i < m.n; i++) {
        for (size_t j = 0; j < i; j++) assert_true(orders[0][i] != orders[0][j]);
        equal += i < seen[1] && orders[0][i] == orders[1][i];
    }
    assert_true(equal < 10);
    printf("# %zu tokens of two epochs, %zu documents\n", checked, m.n);
    lc_train_data_close(data);
    free_docs(&m);
}

/* With windows the same sequences come, each once in its window; neighbours part; a following stage
 * begins behind the window that was begun. */
static void test_windows(void **state) {
    (void)state;
    enum { LENGTH = 32, WINDOW = 40 /* sequences */ };
    made m;
    make_docs(&m, 130, 5, true);
    write_set(in(folder, "s"), &m, true);
    setup s = {1, {&m}, {{in(folder, "s"), 1, false, 0, 0}}, 11, LENGTH, 2, 0};
    lc_train_data *plain = open_data(&s);
    s.window = WINDOW * LENGTH + 7;
    lc_train_data *mixed = open_data(&s);
    assert_true(lc_train_data_checksum(plain) != lc_train_data_checksum(mixed));
    row r, want;
    size_t neighbours = 0;
    for (uint64_t first = 0; first < 5 * WINDOW; first += WINDOW) {
        bool seen[WINDOW] = {false};
        size_t last = 0;
        for (uint64_t k = first; k < first + WINDOW; k++) {
            get(mixed, k, &r);
            size_t place = 0;
            while (place < WINDOW && (seen[place] || memcmp(get(plain, first + place, &want), &r,
                                                            offsetof(row, r)) != 0))
                place++;
            assert_true(place < WINDOW);
            seen[place] = true;
            neighbours += place == last + 1;
            last = place;
        }
    }
    printf("# %zu of %d sequences follow their neighbour\n", neighbours, 5 * WINDOW);
    assert_true(neighbours < 5 * WINDOW / 8); /* one in a window is expected */
    for (uint64_t stop = 0; stop < 3 * WINDOW; stop += 7) {
        uint64_t used;
        assert_ok(lc_train_used(mixed, stop, &used, &err), err);
        assert_int_equal(used, (stop + WINDOW - 1) / WINDOW * WINDOW * LENGTH);
    }
    lc_train_data_close(plain);
    lc_train_data_close(mixed);
    free_docs(&m);
}

static void test_whole_documents(void **state) {
    (void)state;
    made m;
    make_docs(&m, 150, 6, false);
    write_set(in(folder, "s"), &m, false);
    setup s = {1, {&m}, {{in(folder, "s"), 1, true, 0, 0}}, 4, 100, 1, 0};
    lc_train_data *data = open_data(&s);
    size_t docs = 0, filled = 0;
    row r;
    for (uint64_t k = 0; docs < 2 * m.n; k++) {
        get(data, k, &r);
        assert_true(r.r.documents >= 1);
        size_t i = 0;
        for (size_t n = 0; n < r.r.documents; n++) {
            size_t start = i;
            while (i < 101 && r.starts[i] == (int32_t)start) i++;
            size_t len = i - start, doc = m.n; /* it must be a document, whole or cut at the end */
            for (size_t d = 0; d < m.n && doc == m.n; d++) {
                size_t want = m.length[d] < 101 ? m.length[d] : 101;
                bool last =
                    n + 1 == r.r.documents && len >= want; /* its filling has other starts */
                if ((want == len || last) &&
                    !memcmp(m.tokens[d], r.tokens + start, want * sizeof(int32_t)))
                    doc = d;
            }
            assert_true(doc < m.n);
            assert_int_equal(r.mask[start], 0);
        }
        for (; i < 101; i++, filled++) {
            assert_int_equal(r.tokens[i], 2);
            assert_int_equal(r.mask[i], 0);
        }
        docs += r.r.documents;
    }
    printf("# %zu documents whole, %zu places filled\n", docs, filled);
    assert_true(filled > 0);
    lc_train_data_close(data);
    free_docs(&m);
}

static void test_mix_and_order(void **state) {
    (void)state;
    made a, b;
    make_docs(&a, 100, 7, false);
    make_docs(&b, 90, 8, false);
    write_set(in(folder, "a"), &a, false);
    write_set(in(folder, "b"), &b, false);
    setup s = {2, {&a, &b}, {{in(folder, "a"), 3, false, 0, 0}, {in(folder, "b"), 1, true, 0, 0}},
               9, 32,       1,
               0};
    lc_train_data *data = open_data(&s);
    size_t of_b = 0, runs = 0, last = 2;
    row r, again;
    for (uint64_t k = 0; k < LC_TRAIN_MIX_BLOCK; k++) {
        get(data, k, &r);
        of_b += r.r.source;
        runs += r.r.source != last;
        last = r.r.source;
    }
    assert_int_equal(of_b, LC_TRAIN_MIX_BLOCK / 4);
    assert_true(runs > LC_TRAIN_MIX_BLOCK / 4); /* 2 * 3/4 * 1/4 of them are expected */
    lc_train_data *other = open_data(&s);       /* any order, another handle: the same sequences */
    for (uint64_t k = 9000; k-- > 0; k -= k > 97 ? 97 : k) {
        get(other, k, &r);
        get(data, k, &again);
        assert_memory_equal(&r, &again, offsetof(row, r));
    }
    assert_true(lc_train_data_checksum(data) == lc_train_data_checksum(other));
    lc_train_data_close(other);
    s.seed++;
    other = open_data(&s);
    assert_true(lc_train_data_checksum(data) != lc_train_data_checksum(other));
    size_t same = 0;
    for (uint64_t k = 0; k < 50; k++)
        same += !memcmp(get(data, k, &r)->tokens, get(other, k, &again)->tokens, 32 * 4);
    assert_true(same < 5);
    lc_train_data_close(other);
    lc_train_data_close(data);
    free_docs(&a);
    free_docs(&b);
}

/* A second stage with `start` from lc_train_used goes on where the first stopped, wherever that
 * is; two sources, so that the mix matters. */
static void test_stages(void **state) {
    (void)state;
    made m;
    make_docs(&m, 150, 6, false);
    write_set(in(folder, "s"), &m, false);
    setup s = {2, {&m}, {{in(folder, "s"), 1, false, 0, 0}, {in(folder, "s"), 2, true, 0, 0}},
               4, 50,   1,
               0};
    lc_train_data *first = open_data(&s);
    for (uint64_t stop = 0; stop < 9000; stop = stop * 2 + 1) {
        row r, want;
        uint64_t used[2], after[2];
        assert_ok(lc_train_used(first, stop, used, &err), err);
        setup t = s;
        t.source[0].start = used[0];
        t.source[1].start = used[1];
        lc_train_data *second = open_data(&t);
        for (size_t source = 0; source < 2; source++)
            for (uint64_t i = 0, k = 0, n = stop; i < 10; i++, k++, n++) {
                while (get(second, k, &r)->r.source != source) k++;
                while (get(first, n, &want)->r.source != source) n++;
                assert_memory_equal(&r, &want, offsetof(row, r));
            }
        assert_ok(lc_train_used(second, 0, after, &err), err);
        assert_true(after[0] == used[0] && after[1] == used[1]);
        lc_train_data_close(second);
    }
    lc_train_data_close(first);
    free_docs(&m);
}

typedef struct job {
    lc_train_data *data;
    row *rows;
} job;
static void fetch(void *ctx, size_t begin, size_t end, int thread) {
    job *j = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) get(j->data, i * 37 % 512, &j->rows[i * 37 % 512]);
}

static void test_threads(void **state) {
    (void)state;
    made a;
    lc_pool *pool;
    make_docs(&a, 300, 7, false);
    write_set(in(folder, "a"), &a, false);
    setup s = {2, {&a, &a}, {{in(folder, "a"), 1, true, 0, 0}, {in(folder, "a"), 1, false, 9, 0}},
               9, 128,      2,
               0};
    job j = {open_data(&s), calloc(512, sizeof(row))};
    lc_train_data *alone = open_data(&s);
    assert_ok(lc_pool_new(3, &pool, &err), err);
    lc_pool_for(pool, 512, 1, fetch, &j);
    row r;
    for (uint64_t k = 0; k < 512; k++)
        assert_memory_equal(get(alone, k, &r), &j.rows[k], offsetof(row, r));
    lc_pool_free(pool);
    lc_train_data_close(alone);
    lc_train_data_close(j.data);
    free(j.rows);
    free_docs(&a);
}

static void refuse(const setup *s, int code, const char *text) {
    lc_train_data *data;
    lc_train_spec spec = {s->source, s->n, s->seed, s->length, s->extra, s->window};
    assert_int_equal(lc_train_data_open(&spec, &data, &err), code);
    assert_non_null(strstr(err.text, text));
    assert_null(data);
}

static void test_refusals(void **state) {
    (void)state;
    made m;
    make_docs(&m, 20, 1, false);
    write_set(in(folder, "s"), &m, false);
    setup s = {1, {&m}, {{in(folder, "s"), 0, false, 0, 0}}, 1, 64, 1, 0};
    refuse(&s, LC_EINVAL, "weight");
    s.source[0].weight = 1;
    s.length = 0;
    refuse(&s, LC_EINVAL, "sequences");
    s.length = 64;
    s.source[0].folder = in(folder, "none");
    refuse(&s, LC_ENOTFOUND, "manifest.json");
    s.source[0].folder = in(folder, "s");
    write_shard(in(in(folder, "s"), "1.tokens"), &m, 0, 5, false); /* a good shard, another one */
    refuse(&s, LC_EFORMAT, "1.tokens");
    put_text(in(in(folder, "s"), "manifest.json"),
             "{\"format\": \"longcat-train-data\", \"version\": 1, \"name\": \"x\", \"shards\": "
             "[{\"file\": \"../a\"}]}");
    refuse(&s, LC_EFORMAT, "file name");
    put_text(in(in(folder, "s"), "manifest.json"), "{\"format\": \"other\"}");
    refuse(&s, LC_EFORMAT, "longcat-train-data");
    free_docs(&m);
}

/* A shard that is damaged after it was opened is named when the document is read. */
static void test_late_damage(void **state) {
    (void)state;
    made m;
    make_docs(&m, 20, 1, false);
    write_set(in(folder, "s"), &m, false);
    setup s = {1, {&m}, {{in(folder, "s"), 1, false, 0, 0}}, 1, 512, 1, 0};
    lc_train_data *data = open_data(&s);
    assert_int_equal(truncate(in(in(folder, "s"), "0.tokens"), 130), 0);
    row r = {.r = {.tokens = r.tokens, .starts = r.starts, .mask = r.mask}};
    assert_int_equal(lc_train_sequence(data, 3, &r.r, &err), LC_EFORMAT);
    assert_non_null(strstr(err.text, "0.tokens"));
    assert_non_null(strstr(err.text, "sequence 3"));
    lc_train_data_close(data);
    free_docs(&m);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_shuffle_is_a_permutation),
        T(test_shuffle_is_even),
        T(test_shard_round_trip),
        T(test_mask_may_come_late),
        T(test_writer_refuses),
        T(test_damage_is_named),
        T(test_cut_stream),
        T(test_windows),
        T(test_whole_documents),
        T(test_mix_and_order),
        T(test_stages),
        T(test_threads),
        T(test_refusals),
        T(test_late_damage),
    };
    return test_main(tests);
}
