/*
 * test_sched.c (uses-threads): many answers at once. What lc_generate gives to a task alone, on
 * another engine with other threads and step sizes, is what the scheduler must give under any load;
 * log probabilities are computed here from the logits by their definition.
 */
#include "sched_kit.h"
#include "unit/train_files.h"

#define TINY "tests/golden/tiny-code"
#define CASES "tests/golden/model/"

enum { TASKS = 16 };

static lc_engine *engine; /* tests/golden/tiny-code, bf16 */
static int32_t *text;     /* source code, as ids */
static size_t n_text;

static void expect(int status, int want, const lc_err *err, const char *words) {
    if (status != want) fail_msg("status %d (%s), expected %d", status, err->text, want);
    if (!strstr(err->text, words)) fail_msg("\"%s\" doesn't say \"%s\"", err->text, words);
}

static int set_up(void **state) {
    (void)state;
    golden g;
    golden_open(&g, TINY);
    const lc_tensor *ids = golden_get(&g, "0.ids"), *more = golden_get(&g, "1.ids");
    int32_t *a = golden_ids(ids), *b = golden_ids(more);
    n_text = 2048;
    text = lc_calloc(n_text, sizeof *text);
    if (!text) return -1;
    for (size_t i = 0; i < n_text; i++) /* one text, then the other, again and again */
        text[i] = i / 256 % 2 ? b[i % more->count] : a[i % ids->count];
    lc_free(a);
    lc_free(b);
    golden_close(&g);
    engine = golden_engine(TINY, (golden_engine_options){.compute = "bf16"});
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    lc_engine_close(engine);
    lc_free(text);
    return 0;
}

/* A plain task: the text's tokens from `from` on. */
static lc_task plain(size_t from, size_t count, size_t max_tokens) {
    return (lc_task){.tokens = text + from,
                     .count = count,
                     .how = {.max_tokens = max_tokens, .ignore_eos = true}};
}

/* A cache for the engine's sessions; folder NULL: in memory only. */
static lc_cache *cache_of(const lc_engine *e, const char *folder) {
    lc_err err = {0};
    lc_cache *cache = NULL;
    lc_cache_options o = {.layout = lc_model_kv_layout(e->model, e->bf16),
                          .identity = "test",
                          .identity_size = 4,
                          .ram_bytes = 256 << 20,
                          .folder = folder,
                          .disk_bytes = 256 << 20};
    assert_ok(lc_cache_open(&o, &cache, &err), err);
    return cache;
}

/* What of a prompt can come from the cache. */
static size_t cacheable(size_t count) { return (count - 1) / LC_CACHE_BLOCK * LC_CACHE_BLOCK; }

/* ---- answers under load ---- */

typedef struct load {
    const char *name, *dir, *compute;
    bool drafts;
    int threads;
    size_t chunk, running, budget, kv_positions; /* 0: no limit worth naming */
    bool cache;
} load;

static void run_load(const load *l, uint64_t seed) {
    static drawn tasks[TASKS];
    static answer answers[TASKS];
    static alone wants[TASKS];
    golden_engine_options how = {.compute = l->compute, .threads = 1};
    lc_engine *reference = golden_engine(l->dir, how);
    bool tiny = !strcmp(l->dir, TINY);
    for (size_t i = 0; i < TASKS; i++) {
        draw_task(seed * 100 + i, reference, text, tiny ? n_text : 0, &tasks[i]);
        alone_run(reference, &tasks[i].task, &wants[i]);
    }
    how.threads = l->threads;
    how.chunk = l->chunk;
    how.drafts = l->drafts;
    lc_engine *loaded = golden_engine(l->dir, how);
    lc_cache *cache = l->cache ? cache_of(loaded, NULL) : NULL;
    lc_kv_layout layout = lc_model_kv_layout(loaded->model, loaded->bf16);
    lc_sched *sched =
        kit_sched(loaded, (lc_sched_options){.running = l->running,
                                             .budget = l->budget,
                                             .kv_bytes = l->kv_positions / LC_KV_BLOCK *
                                                         lc_kv_block_bytes(&layout),
                                             .cache = cache});
    uint64_t at = 1000;
    size_t cut = 0, cached = 0, prompt = 0, output = 0;
    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < TASKS; i++) {
            kit_clear(&answers[i]);
            if (round == 0 && i % 5 == 4) answers[i].cancel_at = 1 + draw(seed, &at, 10);
            if (round == 0 && i % 7 == 6) answers[i].cancel_at_prompt = 1;
            kit_submit(sched, tasks[i].task, &answers[i]);
            if (!draw(seed, &at, 2)) usleep((useconds_t)draw(seed, &at, 4000));
            if (round == 0 && i % 8 == 7) lc_sched_cancel(sched, answers[i].id);
        }
        for (size_t i = 0; i < TASKS; i++) {
            kit_wait(&answers[i]);
            kit_compare(&tasks[i], &answers[i], &wants[i]);
            cut += answers[i].result.end == LC_TASK_CANCELED;
            cached += answers[i].result.cached_tokens;
            prompt += answers[i].result.prompt_tokens;
            output += answers[i].result.output_tokens;
            if (round == 1) assert_int_not_equal(answers[i].result.end, LC_TASK_CANCELED);
        }
    }
    lc_sched_stats stats;
    lc_sched_stats_get(sched, &stats);
    assert_int_equal(stats.running + stats.waiting + stats.kv_bytes, 0);
    assert_int_equal(stats.prompt_tokens, prompt);
    assert_int_equal(stats.cached_tokens, cached);
    assert_int_equal(stats.output_tokens, output);
    assert_int_equal(stats.tasks[LC_TASK_CANCELED], cut);
    size_t ends = 0;
    for (size_t i = 0; i <= LC_TASK_FAILED; i++) ends += stats.tasks[i];
    assert_int_equal(ends, 2 * TASKS);
    assert_int_equal(cached > 0, l->cache && tiny);
    printf("# %s: %d answers equal, %zu cut, %zu of %zu prompt tokens cached, %zu generated\n",
           l->name, 2 * TASKS, cut, cached, prompt, output);
    lc_sched_close(sched);
    lc_cache_close(cache);
    lc_engine_close(loaded);
    lc_engine_close(reference);
    for (size_t i = 0; i < TASKS; i++) {
        lc_buf_free(&wants[i].text);
        kit_clear(&answers[i]);
    }
}

static void answers_under_load(void **unused) {
    (void)unused;
    static const load loads[] = {
        {"tiny, default", TINY, "bf16", .threads = 2},
        {"tiny, small steps", TINY, "bf16", .threads = 1, .chunk = 9, .running = 5, .budget = 7},
        {"tiny, f32, little memory", TINY, "f32", .threads = 2, .budget = 40, .kv_positions = 704},
        {"tiny, cache", TINY, "bf16", .threads = 2, .budget = 100, .cache = true},
        {"tiny, drafts", TINY, "bf16", .threads = 2, .drafts = true, .running = 4},
        {"sparse-tiny", CASES "sparse-tiny", "f32", .threads = 2, .budget = 64},
        {"flash-tiny", CASES "flash-tiny", "bf16", .threads = 2, .running = 8},
        {"two-fp8", CASES "two-fp8", "bf16", .threads = 1, .budget = 33},
    };
    size_t n = sizeof loads / sizeof *loads;
    for (size_t i = 0; i < n; i += GOLDEN_SANITIZED ? 3 : 1) run_load(&loads[i], i + 1);
}

/* ---- echo ---- */

/* Log probabilities of a prompt are those of the evaluation's logits. */
static void echo_is_the_evaluation(void **unused) {
    (void)unused;
    enum { LENGTH = 150 };
    lc_err err = {0};
    lc_eval_result result = {0};
    lc_eval_input in = {
        .tokens = text, .batch = 1, .length = LENGTH, .chunk = LENGTH, .together = 1};
    assert_ok(lc_eval_logits(engine, &in, false, false, &result, &err), err);
    const lc_eval_entry *logits = golden_entry(&result, "logits");
    assert_non_null(logits);
    size_t vocab = lc_engine_vocab(engine);
    lc_sched *sched = kit_sched(engine, (lc_sched_options){.budget = 100});
    static answer a, twin, other, bare;
    lc_task task = plain(0, LENGTH, 0);
    task.echo = task.logprobs = true;
    task.top_logprobs = 3;
    other.cancel_at = 200; /* generated beside: its logits stand before those of prompts */
    kit_submit(sched, plain(200, 4, 400), &other);
    kit_wait_started(&other);
    kit_submit(sched, task, &a);
    kit_submit(sched, task, &twin);
    task.logprobs = false;
    task.top_logprobs = 0;
    task.how.max_tokens = 2;
    kit_submit(sched, task, &bare);
    kit_wait(&a);
    kit_wait(&twin);
    kit_wait(&bare);
    kit_wait(&other);
    assert_int_equal(twin.count, LENGTH);
    assert_memory_equal(twin.own + 1, a.own + 1, (LENGTH - 1) * sizeof *a.own);
    assert_int_equal(a.result.end, LC_TASK_LENGTH);
    assert_int_equal(a.count, LENGTH);
    assert_memory_equal(a.tokens, text, LENGTH * sizeof *text);
    assert_int_equal(a.own[0].token, -1);
    assert_int_equal(a.n_top[0], 0);
    for (size_t i = 1; i < LENGTH; i++) {
        const float *row = (const float *)logits->data + (i - 1) * vocab;
        float want = kit_logprob(row, vocab, text[i]);
        assert_int_equal(a.own[i].token, text[i]);
        assert_memory_equal(&a.own[i].logprob, &want, sizeof want);
        assert_int_equal(a.n_top[i], 3);
        assert_int_equal(a.top[i][0].token, lc_argmax(row, vocab));
        for (size_t k = 0; k < 3; k++) {
            size_t better = 0; /* tokens that must stand before this one */
            int32_t id = a.top[i][k].token;
            for (size_t v = 0; v < vocab; v++)
                better += row[v] > row[id] || ((int32_t)v < id && row[v] == row[id]);
            assert_int_equal(better, k);
            want = kit_logprob(row, vocab, id);
            assert_memory_equal(&a.top[i][k].logprob, &want, sizeof want);
        }
        assert_true(a.routed[i] > 0 && a.routed[i] <= (float)engine->model->config.topk);
        assert_memory_equal(&a.by_layer[i], &a.routed[i], sizeof *a.routed);
    }
    lc_buf whole = {0};
    assert_ok(lc_tokenizer_decode(engine->tokenizer, text, LENGTH, true, &whole, &err), err);
    assert_string_equal(a.text.data, whole.data);
    assert_int_equal(bare.count, LENGTH + 2);
    assert_memory_equal(bare.tokens, text, LENGTH * sizeof *text);
    assert_memory_equal(bare.text.data, whole.data, whole.len);
    assert_int_equal(bare.own[5].token, -1);
    lc_buf_free(&whole);
    kit_clear(&a);
    kit_clear(&twin);
    kit_clear(&bare);
    kit_clear(&other);
    lc_sched_close(sched);
    lc_eval_free(&result);
}

/* ---- who goes next ---- */

/* Starts `count` tasks behind one that keeps the only place, and gives their order. */
static void order_of(lc_sched_options options, const lc_task *tasks, size_t count, size_t *order) {
    static answer first, answers[64];
    options.running = 1;
    lc_sched *sched = kit_sched(engine, options);
    lc_task blocker = plain(100, 4, 400);
    blocker.key = 99;
    kit_submit(sched, blocker, &first);
    kit_wait_started(&first);
    for (size_t i = 0; i < count; i++) kit_submit(sched, tasks[i], &answers[i]);
    lc_sched_cancel(sched, first.id);
    kit_wait(&first);
    for (size_t i = 0; i < count; i++) kit_wait(&answers[i]);
    for (size_t i = 0; i < count; i++) order[i] = answers[i].order - first.order;
    kit_clear(&first);
    for (size_t i = 0; i < count; i++) kit_clear(&answers[i]);
    lc_sched_close(sched);
}

/* One key's flood doesn't keep another waiting; the other pays for its long prompts. */
static void keys_take_turns(void **unused) {
    (void)unused;
    lc_task tasks[24];
    size_t order[24];
    for (size_t i = 0; i < 8; i++) tasks[i] = plain(i, 10, 1); /* key 0: eight, then key 1: two */
    tasks[8] = plain(20, 10, 1);
    tasks[9] = plain(30, 10, 1);
    tasks[8].key = tasks[9].key = 1;
    order_of((lc_sched_options){0}, tasks, 10, order);
    assert_true(order[8] <= 2);
    assert_true(order[9] <= 4);
    for (size_t i = 1; i < 8; i++) assert_true(order[i] > order[i - 1]);

    /* key 0 has prompts of 1,000 tokens, key 1 of 100: tokens are shared, not tasks */
    for (size_t i = 0; i < 4; i++) tasks[i] = plain(i, 1000, 1);
    for (size_t i = 4; i < 24; i++) {
        tasks[i] = plain(i, 100, 1);
        tasks[i].key = 1;
    }
    order_of((lc_sched_options){0}, tasks, 24, order);
    for (size_t n = 0; n < 2; n++) { /* small ones before the n-th big one: about ten for each */
        size_t small = 0;
        for (size_t i = 4; i < 24; i++) small += order[i] < order[n];
        if (small < 5 + 10 * n || small > 16 + 10 * n)
            fail_msg("%zu small tasks before big task %zu", small, n);
    }
}

static void light_and_cached_go_first(void **unused) {
    (void)unused;
    lc_task tasks[40];
    size_t order[40];
    lc_cache *cache = cache_of(engine, NULL);
    static answer a;
    lc_sched *sched = kit_sched(engine, (lc_sched_options){.cache = cache});
    kit_submit(sched, plain(0, 600, 1), &a); /* leaves 576 tokens in the cache */
    kit_wait(&a);
    lc_sched_close(sched);
    tasks[0] = plain(700, 50, 1);
    tasks[1] = plain(0, 300, 1); /* 256 cached */
    tasks[2] = plain(0, 600, 1); /* 576 cached */
    tasks[3] = plain(800, 20, 1);
    tasks[3].light = true;
    order_of((lc_sched_options){.cache = cache}, tasks, 4, order);
    assert_int_equal(order[3], 1);
    assert_int_equal(order[2], 2);
    assert_int_equal(order[1], 3);
    assert_int_equal(order[0], 4);

    /* one without a cached beginning isn't passed for ever */
    tasks[0] = plain(700, 50, 1);
    for (size_t i = 1; i < 40; i++) tasks[i] = plain(0, 600, 1);
    order_of((lc_sched_options){.cache = cache}, tasks, 40, order);
    assert_true(order[0] > 2);
    assert_true(order[0] <= 10);
    kit_clear(&a);
    lc_cache_close(cache);
}

/* Of several that begin alike, one computes the beginning. */
static void a_common_beginning_is_computed_once(void **unused) {
    (void)unused;
    static answer a[3], behind, own[3];
    lc_cache *cache = cache_of(engine, NULL);
    lc_sched *sched = kit_sched(engine, (lc_sched_options){.cache = cache, .budget = 64});
    lc_task task = plain(0, 600, 20), other = plain(0, 600, 20);
    other.tenant = 7;
    other.key = 1;
    task.how.sampling.temperature = 1;
    for (size_t i = 0; i < 3; i++) {
        task.how.sampling.seed = i;
        kit_submit(sched, task, &a[i]);
    }
    kit_submit(sched, other, &behind); /* another tenant's cache is another cache */
    for (size_t i = 0; i < 3; i++) kit_wait(&a[i]);
    kit_wait(&behind);
    assert_int_equal(a[0].cached, 0);
    assert_int_equal(a[1].cached, cacheable(600));
    assert_int_equal(a[2].cached, cacheable(600));
    assert_int_equal(behind.cached, 0);
    lc_sched_close(sched);
    lc_cache_close(cache);

    sched = kit_sched(engine, (lc_sched_options){0}); /* the same answers without a cache */
    for (size_t i = 0; i < 3; i++) {
        task.how.sampling.seed = i;
        kit_submit(sched, task, &own[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        kit_wait(&own[i]);
        assert_memory_equal(a[i].out, own[i].out, 20 * sizeof *own[i].out);
        kit_clear(&a[i]);
        kit_clear(&own[i]);
    }
    kit_clear(&behind);
    lc_sched_close(sched);
}

/* A long prompt gives its beginning to the cache before it is done; a short one that shares it
 * doesn't wait for the rest. A cut prompt leaves what it had. */
static void long_prompts_are_saved_on_the_way(void **unused) {
    (void)unused;
    static answer big, small, cut;
    lc_cache *cache = cache_of(engine, NULL);
    lc_sched *sched = kit_sched(engine, (lc_sched_options){.cache = cache, .budget = 128});
    kit_submit(sched, plain(0, 2000, 1), &big);
    kit_submit(sched, plain(0, 300, 1), &small);
    kit_wait(&big);
    kit_wait(&small);
    assert_int_equal(small.cached, cacheable(300));
    assert_int_equal(small.prompts, 1);

    lc_task task = plain(0, 1000, 5);
    task.tenant = 3;
    cut.cancel_at_prompt = 3;
    kit_submit(sched, task, &cut);
    kit_wait(&cut);
    assert_int_equal(cut.result.prompt_tokens, 3 * 128);
    kit_clear(&cut);
    kit_submit(sched, task, &cut);
    kit_wait(&cut);
    assert_int_equal(cut.cached, 3 * 128);
    kit_clear(&big);
    kit_clear(&small);
    kit_clear(&cut);
    lc_sched_close(sched);
    lc_cache_close(cache);
}

/* What one scheduler left on the disk, the next one goes on from, with the same answer. */
static void a_restart_keeps_the_beginnings(void **unused) {
    (void)unused;
    static answer a[3];
    char folder[256];
    make_folder(folder);
    lc_task task = plain(30, 500, 40);
    for (size_t i = 0; i < 3; i++) {
        lc_cache *cache = cache_of(engine, folder);
        lc_sched *sched = kit_sched(engine, (lc_sched_options){.cache = i < 2 ? cache : NULL});
        kit_submit(sched, task, &a[i]);
        kit_wait(&a[i]);
        lc_sched_close(sched);
        lc_cache_close(cache);
        assert_int_equal(a[i].cached, i == 1 ? cacheable(500) : 0);
        assert_int_equal(a[i].result.output_tokens, 40);
        assert_memory_equal(a[i].out, a[0].out, 40 * sizeof *a[0].out);
    }
    for (size_t i = 0; i < 3; i++) kit_clear(&a[i]);
    remove_folder(folder);
}

/* Light tasks don't wait for a place. */
static void light_ones_have_places(void **unused) {
    (void)unused;
    static answer a, light, next;
    lc_sched *sched = kit_sched(engine, (lc_sched_options){.running = 1});
    lc_task task = plain(0, 20, 3);
    kit_submit(sched, plain(0, 20, 600), &a);
    kit_wait_started(&a);
    kit_submit(sched, task, &next);
    task.light = true;
    kit_submit(sched, task, &light);
    kit_wait(&light);
    pthread_mutex_lock(&kit_lock);
    bool early = !a.ended && !next.order;
    pthread_mutex_unlock(&kit_lock);
    assert_true(early);
    lc_sched_cancel(sched, a.id);
    kit_wait(&next);
    assert_memory_equal(light.out, next.out, 3 * sizeof *next.out);
    kit_clear(&light);
    kit_clear(&next);
    kit_wait(&a);
    kit_clear(&a);
    lc_sched_close(sched);
}

/* ---- cancelling ---- */

static void cancelling(void **unused) {
    (void)unused;
    static answer a, b, c;
    lc_sched *sched = kit_sched(engine, (lc_sched_options){.running = 2, .budget = 50});
    a.cancel_at = 3; /* while it is generated: not a token more */
    kit_submit(sched, plain(0, 20, 100), &a);
    kit_wait(&a);
    assert_int_equal(a.result.end, LC_TASK_CANCELED);
    assert_int_equal(a.result.output_tokens, 3);
    assert_int_equal(a.count, 3);

    kit_clear(&a);
    a.cancel_at_prompt = 2; /* while the prompt is computed: not a step more */
    kit_submit(sched, plain(0, 500, 100), &a);
    kit_wait(&a);
    assert_int_equal(a.result.end, LC_TASK_CANCELED);
    assert_int_equal(a.prompts, 2);
    assert_int_equal(a.result.prompt_tokens, 100);
    assert_int_equal(a.result.output_tokens, 0);

    kit_clear(&a); /* while it waits */
    kit_submit(sched, plain(0, 20, 600), &a);
    kit_submit(sched, plain(9, 20, 600), &b);
    kit_submit(sched, plain(0, 20, 600), &c);
    kit_wait_started(&b);
    lc_sched_cancel(sched, c.id);
    kit_wait(&c);
    assert_int_equal(c.result.end, LC_TASK_CANCELED);
    assert_false(c.started);
    assert_int_equal(c.result.prompt_tokens, 0);
    lc_sched_cancel(sched, 123456);
    assert_int_equal(a.ended + b.ended, 0);
    kit_submit(sched, plain(0, 20, 600), &c);
    lc_sched_close(sched); /* ends all */
    assert_int_equal(a.ended + b.ended + c.ended, 3);
    assert_int_equal(a.result.end, LC_TASK_CANCELED);
    assert_int_equal(b.result.end, LC_TASK_CANCELED);
    assert_int_equal(c.result.end, LC_TASK_CANCELED);
    kit_clear(&a);
    kit_clear(&b);
    kit_clear(&c);
}

/* ---- limits ---- */

static size_t kv_of(size_t positions) {
    lc_kv_layout layout = lc_model_kv_layout(engine->model, engine->bf16);
    return positions / LC_KV_BLOCK * lc_kv_block_bytes(&layout);
}

static void the_queue_and_the_memory_are_limited(void **unused) {
    (void)unused;
    static answer a, b, c, d;
    lc_err err = {0};
    lc_sched *sched = kit_sched(engine, (lc_sched_options){.running = 1, .waiting = 2});
    kit_submit(sched, plain(0, 20, 600), &a);
    kit_wait_started(&a);
    kit_submit(sched, plain(0, 20, 5), &b);
    kit_submit(sched, plain(0, 20, 5), &c);
    lc_task task = plain(0, 20, 5);
    kit_events(&d, &task);
    expect(lc_sched_submit(sched, &task, NULL, &err), LC_ELIMIT, &err, "queue is full: 2");
    lc_sched_cancel(sched, a.id);
    kit_wait(&a);
    kit_wait(&c);
    lc_sched_close(sched);

    /* memory for 512 positions: never more at a time, and a task that needs more is refused */
    sched = kit_sched(engine, (lc_sched_options){.kv_bytes = kv_of(512)});
    task = plain(0, 100, 413);
    kit_events(&d, &task);
    expect(lc_sched_submit(sched, &task, NULL, &err), LC_ELIMIT, &err, "context cache");
    kit_submit(sched, plain(0, 100, 156), &a); /* 256 */
    kit_submit(sched, plain(0, 100, 220), &b); /* 320 */
    kit_submit(sched, plain(0, 100, 28), &c);  /* 128: would fit beside a, but b was first */
    kit_submit(sched, plain(0, 100, 412), &d); /* 512 */
    bool done = false;
    for (size_t tries = 0; !done; tries++) {
        lc_sched_stats stats;
        lc_sched_stats_get(sched, &stats);
        assert_true(stats.kv_bytes <= kv_of(512));
        pthread_mutex_lock(&kit_lock);
        done = a.ended && b.ended && c.ended && d.ended;
        pthread_mutex_unlock(&kit_lock);
        usleep(500);
    }
    assert_true(b.order < c.order && c.order < d.order);
    assert_int_equal(a.result.output_tokens, 156);
    assert_int_equal(d.result.output_tokens, 412);
    kit_clear(&a);
    kit_clear(&b);
    kit_clear(&c);
    kit_clear(&d);
    lc_sched_close(sched);
}

static void wrong_tasks(void **unused) {
    (void)unused;
    lc_err err = {0};
    static answer a;
    lc_sched *sched = kit_sched(engine, (lc_sched_options){0});
    int32_t outside[] = {5, 4096};
    const char *stops[17];
    for (size_t i = 0; i < 17; i++) stops[i] = "x";
    lc_logit_bias bias = {4096, 1};
    struct {
        lc_task task;
        int status;
        const char *words;
    } wrong[] = {
        {plain(0, 0, 5), LC_EINVAL, "empty"},
        {plain(0, 20, 5), LC_EINVAL, "4096"},
        {plain(0, 20, 5), LC_ELIMIT, "21"},
        {plain(0, 20, 5), LC_EINVAL, "frequency_penalty"},
        {plain(0, 20, 5), LC_EINVAL, "temperature"},
        {plain(0, 20, 5), LC_EINVAL, "logit bias"},
        {plain(0, 20, 5), LC_ELIMIT, "17 stop strings"},
        {plain(0, 20, 5), LC_ELIMIT, "5000 prompt tokens are more than the context of 4096"},
    };
    int32_t *many = lc_calloc(5000, sizeof *many);
    assert_non_null(many);
    wrong[1].task.tokens = outside;
    wrong[1].task.count = 2;
    wrong[2].task.top_logprobs = LC_TOP_LOGPROBS + 1;
    wrong[3].task.how.sampling.frequency_penalty = NAN;
    wrong[4].task.how.sampling.temperature = INFINITY;
    wrong[5].task.how.sampling.bias = &bias;
    wrong[5].task.how.sampling.n_bias = 1;
    wrong[6].task.how.stop = stops;
    wrong[6].task.how.n_stop = 17;
    wrong[7].task.tokens = many;
    wrong[7].task.count = 5000;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        kit_events(&a, &wrong[i].task);
        expect(lc_sched_submit(sched, &wrong[i].task, NULL, &err), wrong[i].status, &err,
               wrong[i].words);
    }
    lc_task silent = plain(0, 20, 5);
    expect(lc_sched_submit(sched, &silent, NULL, &err), LC_EINVAL, &err, "events");
    lc_free(many);

    /* penalties at the edge of what is finite: an answer, not a crash */
    static answer extremes[4];
    for (size_t i = 0; i < 4; i++) {
        lc_task task = plain(0, 30, 20);
        task.how.sampling = (lc_sampling){.repetition_penalty = i % 2 ? 1e-38f : 3e38f,
                                          .presence_penalty = i / 2 ? -3e38f : 3e38f,
                                          .frequency_penalty = 3e38f,
                                          .temperature = i % 2 ? 1e-30f : 1,
                                          .top_k = -5};
        kit_submit(sched, task, &extremes[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        kit_wait(&extremes[i]);
        assert_int_equal(extremes[i].result.output_tokens, 20);
        kit_clear(&extremes[i]);
    }
    assert_int_equal(a.ended, 0);
    lc_sched_close(sched);
}

/* ---- the rest of the contract ---- */

static void the_context_ends(void **unused) {
    (void)unused;
    lc_engine *small =
        golden_engine(TINY, (golden_engine_options){.compute = "bf16", .context = 40});
    lc_sched *sched = kit_sched(small, (lc_sched_options){0});
    static answer a, b;
    kit_submit(sched, plain(0, 30, 100), &a);
    kit_submit(sched, plain(0, 40, SIZE_MAX), &b);
    kit_wait(&a);
    kit_wait(&b);
    assert_int_equal(a.result.output_tokens, 11);
    assert_int_equal(b.result.output_tokens, 1);
    assert_int_equal(a.result.end, LC_TASK_LENGTH);
    kit_clear(&a);
    kit_clear(&b);
    lc_sched_close(sched);
    lc_engine_close(small);
}

static lc_grammar *grammar_of(const lc_grammar_vocab *vocab, const char *schema) {
    lc_err err = {0};
    lc_grammar *grammar = NULL;
    lc_grammar_spec spec = {.kind = schema ? LC_GRAMMAR_SCHEMA : LC_GRAMMAR_OBJECT, .seconds = 30};
    if (schema) assert_ok(lc_json_parse(schema, strlen(schema), "schema", &spec.schema, &err), err);
    assert_ok(lc_grammar_new(vocab, &spec, &grammar, &err), err);
    json_object_put(spec.schema);
    return grammar;
}

/* Whatever the model wants to say, and beside answers that are free, the text has the format. */
static void a_grammar_decides(void **unused) {
    (void)unused;
    enum { ANSWERS = 12 };
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"colour\":{\"enum\":[\"red\",\"blue\"]},"
        "\"size\":{\"type\":\"integer\",\"minimum\":3,\"maximum\":40}},"
        "\"required\":[\"colour\",\"size\"],\"additionalProperties\":false}";
    static answer answers[ANSWERS], again[ANSWERS], free_one;
    lc_err err = {0};
    const lc_config *c = &engine->model->config;
    lc_grammar_vocab *vocab = NULL;
    assert_ok(lc_grammar_vocab_new(engine->tokenizer, c->vocab, c->eos_ids, c->n_eos, &vocab, &err),
              err);
    lc_grammar *grammars[] = {grammar_of(vocab, schema), grammar_of(vocab, NULL),
                              grammar_of(vocab, "{\"const\":\"exactly this\"}")};
    lc_logit_bias *forbid = lc_calloc(c->vocab, sizeof *forbid); /* everything: the grammar wins */
    assert_non_null(forbid);
    for (size_t i = 0; i < c->vocab; i++) forbid[i] = (lc_logit_bias){(int32_t)i, -INFINITY};
    lc_sched *sched = kit_sched(engine, (lc_sched_options){.running = 6});
    for (size_t round = 0; round < 2; round++) {
        kit_submit(sched, plain(0, 30, 50), &free_one);
        for (size_t i = 0; i < ANSWERS; i++) {
            lc_task task = plain(i * 10, 30 + i, 60);
            task.grammar = grammars[i % 3];
            if (i % 2) task.how.sampling = (lc_sampling){.temperature = 2, .seed = i};
            if (i % 5 == 4) {
                task.how.sampling.bias = forbid;
                task.how.sampling.n_bias = c->vocab;
            }
            kit_submit(sched, task, round ? &again[i] : &answers[i]);
            if (round) kit_wait(&again[i]); /* one at a time: the same answers */
        }
        for (size_t i = 0; i < ANSWERS && !round; i++) kit_wait(&answers[i]);
        kit_wait(&free_one);
        assert_int_equal(free_one.result.output_tokens, 50);
    }
    for (size_t i = 0; i < ANSWERS; i++) {
        struct json_object *value = NULL, *size = NULL;
        assert_int_equal(answers[i].result.output_tokens, again[i].result.output_tokens);
        assert_memory_equal(answers[i].out, again[i].out,
                            again[i].result.output_tokens * sizeof(int32_t));
        assert_string_equal(answers[i].text.data, again[i].text.data);
        assert_ok(lc_json_parse(answers[i].text.data, answers[i].text.len, "answer", &value, &err),
                  err);
        if (i % 3 < 2) assert_true(json_object_is_type(value, json_type_object));
        if (i % 3 == 2) assert_string_equal(answers[i].text.data, "\"exactly this\"");
        if (i % 3 == 0) {
            assert_int_equal(json_object_object_length(value), 2);
            assert_true(json_object_object_get_ex(value, "size", &size));
            assert_true(json_object_get_int(size) >= 3 && json_object_get_int(size) <= 40);
            assert_int_equal(answers[i].result.end, LC_TASK_STOP);
        }
        json_object_put(value);
        kit_clear(&answers[i]);
        kit_clear(&again[i]);
    }
    lc_task task = plain(0, 30, lc_grammar_shortest(grammars[0]) - 1);
    task.grammar = grammars[0];
    kit_events(&free_one, &task);
    expect(lc_sched_submit(sched, &task, NULL, &err), LC_ELIMIT, &err, "shortest answer");
    kit_clear(&free_one);
    lc_sched_close(sched);
    for (size_t i = 0; i < 3; i++) lc_grammar_free(grammars[i]);
    lc_grammar_vocab_free(vocab);
    lc_free(forbid);
}

/* Memory that runs out in the engine costs the tasks that were in it; the next ones go well. */
static void the_engine_goes_on(void **unused) {
    (void)unused;
    static answer a, b, again;
    lc_engine *own = golden_engine(TINY, (golden_engine_options){.compute = "bf16"});
    lc_sched *sched = kit_sched(own, (lc_sched_options){0});
    size_t failed = 0;
    kit_submit(sched, plain(0, 100, 30), &again);
    kit_wait(&again);
    for (size_t tries = 0; tries < 20; tries++) {
        kit_submit(sched, plain(0, 100, 300), &a);
        kit_submit(sched, plain(50, 100, 300), &b);
        kit_wait_started(&b);
        usleep((useconds_t)(tries * 300));
        lc_mem_fail_after(0);
        kit_wait(&a);
        kit_wait(&b);
        lc_mem_fail_after(-1);
        failed += a.result.end == LC_TASK_FAILED;
        if (a.result.end == LC_TASK_FAILED) assert_int_equal(a.result.err.code, LC_ENOMEM);
        kit_submit(sched, plain(0, 100, 30), &b);
        kit_wait(&b);
        assert_int_equal(b.result.end, LC_TASK_LENGTH);
        assert_memory_equal(b.out, again.out, 30 * sizeof *b.out);
    }
    assert_true(failed > 0);
    kit_clear(&a);
    kit_clear(&b);
    kit_clear(&again);
    lc_sched_close(sched);
    lc_engine_close(own);
}

/* Opening and submitting with ever later allocation faults. */
static void opening_and_submitting_without_memory(void **unused) {
    (void)unused;
    static answer a;
    lc_err err = {0};
    lc_sched *sched = NULL;
    lc_task task = plain(0, 20, 5);
    const char *stops[] = {"one", "two"};
    lc_logit_bias bias = {5, 1};
    task.how.stop = stops;
    task.how.n_stop = 2;
    task.how.stop_tokens = text;
    task.how.n_stop_tokens = 1;
    task.how.sampling = (lc_sampling){.bias = &bias, .n_bias = 1};
    kit_events(&a, &task);
    size_t met = 0, before = lc_mem_current();
    for (;; met++) {
        lc_mem_fail_after((long)met);
        int status = lc_sched_open(engine, NULL, &sched, &err);
        lc_mem_fail_after(-1);
        if (status == LC_OK) break;
        assert_int_equal(status, LC_ENOMEM);
        assert_null(sched);
        assert_int_equal(lc_mem_current(), before);
    }
    assert_true(met > 3);
    size_t opened = met;
    before = lc_mem_current();
    for (met = 0;; met++) {
        lc_mem_fail_after((long)met);
        int status = lc_sched_submit(sched, &task, NULL, &err);
        lc_mem_fail_after(-1);
        if (status == LC_OK) break;
        assert_int_equal(status, LC_ENOMEM);
        assert_int_equal(lc_mem_current(), before);
    }
    assert_true(met > 3);
    kit_wait(&a);
    printf("# %zu allocations failed in turn\n", opened + met);
    kit_clear(&a);
    lc_sched_close(sched);
}

static void rates_and_experts(void **unused) {
    (void)unused;
    static answer a;
    lc_sched_stats stats;
    lc_sched *sched = kit_sched(engine, (lc_sched_options){.running = 1});
    assert_true(lc_sched_predict(sched, 1000) <= 0); /* nothing is known yet */
    kit_submit(sched, plain(0, 500, 40), &a);
    kit_wait(&a);
    lc_sched_stats_get(sched, &stats);
    assert_true(stats.prefill_rate > 0 && stats.decode_rate > 0 && stats.busy_s > 0);
    double one = lc_sched_predict(sched, 1000), two = lc_sched_predict(sched, 2000);
    assert_true(fabs(one * stats.prefill_rate - 1000) < 1);
    assert_true(fabs(two - 2 * one) < 1e-6 * two);
    /* each row chose topk entries in each layer; the last token had no row */
    uint64_t *experts = lc_calloc(stats.layers * stats.entries, sizeof *experts);
    assert_non_null(experts);
    lc_sched_experts(sched, experts);
    const lc_config *c = &engine->model->config;
    assert_int_equal(stats.layers, c->layers);
    assert_int_equal(stats.entries, c->experts + c->zero_experts);
    for (size_t l = 0; l < stats.layers; l++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < stats.entries; i++) sum += experts[l * stats.entries + i];
        assert_int_equal(sum, (500 + 39) * c->topk);
    }
    lc_free(experts);
    kit_clear(&a);
    lc_sched_close(sched);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_under_load),
        cmocka_unit_test(echo_is_the_evaluation),
        cmocka_unit_test(keys_take_turns),
        cmocka_unit_test(light_and_cached_go_first),
        cmocka_unit_test(a_common_beginning_is_computed_once),
        cmocka_unit_test(long_prompts_are_saved_on_the_way),
        cmocka_unit_test(a_restart_keeps_the_beginnings),
        cmocka_unit_test(light_ones_have_places),
        cmocka_unit_test(cancelling),
        cmocka_unit_test(the_queue_and_the_memory_are_limited),
        cmocka_unit_test(wrong_tasks),
        cmocka_unit_test(the_context_ends),
        cmocka_unit_test(a_grammar_decides),
        cmocka_unit_test(the_engine_goes_on),
        cmocka_unit_test(opening_and_submitting_without_memory),
        cmocka_unit_test(rates_and_experts),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
