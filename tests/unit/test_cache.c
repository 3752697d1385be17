/*
 * test_cache.c: the prompt cache. A block's content is worked out here from the token list, so what
 * comes back is compared with what must stand there, never with what was put in by the same code.
 * uses-threads
 */
#include "store/cache.h"

#include "base/mem.h"
#include "train_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK = LC_CACHE_BLOCK, LONG = 40 * BLOCK };

static const lc_kv_layout layout = {2, 5, 1, 3, 2};
static lc_err err;
static char folder[256];
static int32_t tokens[LONG];

static int set_up(void **state) {
    (void)state;
    make_folder(folder);
    for (size_t i = 0; i < LONG; i++) tokens[i] = (int32_t)(i * 7919 % 1000);
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static lc_pool *pool; /* of three threads: files are read in any order */

static lc_cache *open_cache(const char *disk, size_t ram_blocks, uint64_t disk_bytes) {
    lc_cache *c = NULL;
    lc_cache_options o = {.layout = layout,
                          .identity = "model",
                          .identity_size = 5,
                          .ram_bytes = ram_blocks * lc_kv_block_bytes(&layout),
                          .folder = disk,
                          .disk_bytes = disk_bytes,
                          .pool = pool};
    assert_ok(lc_cache_open(&o, &c, &err), err);
    return c;
}

/* A byte that depends on all tokens up to the end of the block, as a KV row does. */
static uint8_t expected(const int32_t *list, size_t block, size_t i) {
    uint32_t h = 2166136261u;
    for (size_t k = 0; k < (block + 1) * BLOCK; k++) h = (h ^ (uint32_t)list[k]) * 16777619u;
    return (uint8_t)(h >> 8 ^ i);
}

static void fill(lc_kv *kv, const int32_t *list, size_t count) {
    lc_kv_init(kv, &layout);
    assert_ok(lc_kv_reserve(kv, 0, count, &err), err);
    for (size_t b = 0; b < count / BLOCK; b++) {
        uint8_t first = expected(list, b, 0);
        for (size_t i = 0; i < lc_kv_block_bytes(&layout); i++)
            kv->blocks[b][i] = (char)(first ^ (uint8_t)i);
    }
}

static void save(lc_cache *c, uint64_t tenant, const int32_t *list, size_t count) {
    lc_kv kv;
    fill(&kv, list, count);
    assert_ok(lc_cache_save(c, tenant, list, count, &kv, &err), err);
    lc_kv_free(&kv);
}

/* What a new session finds; every block that it gets must be the right one. */
static size_t load(lc_cache *c, uint64_t tenant, const int32_t *list, size_t count) {
    lc_kv kv;
    size_t loaded = 0;
    lc_kv_init(&kv, &layout);
    assert_ok(lc_cache_load(c, tenant, list, count, &kv, &loaded, &err), err);
    assert_true(loaded < count && loaded % BLOCK == 0);
    for (size_t b = 0; b < loaded / BLOCK; b++) {
        uint8_t first = expected(list, b, 0);
        for (size_t i = 0; i < lc_kv_block_bytes(&layout); i++)
            assert_int_equal((uint8_t)kv.blocks[b][i], (uint8_t)(first ^ (uint8_t)i));
    }
    lc_kv_free(&kv);
    return loaded;
}

static void test_hits_whole_blocks_of_the_same_beginning(void **state) {
    (void)state;
    lc_cache *c = open_cache(NULL, 100, 0);
    assert_int_equal(load(c, 1, tokens, LONG), 0);
    save(c, 1, tokens, 5 * BLOCK + 10);
    assert_int_equal(lc_cache_match(c, 1, tokens, LONG), 5 * BLOCK);
    assert_int_equal(load(c, 1, tokens, LONG), 5 * BLOCK);
    assert_int_equal(load(c, 1, tokens, 5 * BLOCK), 4 * BLOCK); /* the last token is computed */
    assert_int_equal(load(c, 1, tokens, 5 * BLOCK + 1), 5 * BLOCK);
    int32_t other[LONG];
    memcpy(other, tokens, sizeof other);
    other[3 * BLOCK + 7]++;
    assert_int_equal(load(c, 1, other, LONG), 3 * BLOCK);
    save(c, 1, other, LONG);
    assert_int_equal(load(c, 1, other, LONG), LONG - BLOCK);
    assert_int_equal(load(c, 1, tokens, LONG), 5 * BLOCK);
    lc_cache_close(c);
}

/* A sequence that goes back into a block it shares writes into a copy. */
static void test_who_writes_gets_a_block_of_its_own(void **state) {
    (void)state;
    lc_cache *c = open_cache(NULL, 100, 0);
    lc_kv kv;
    size_t loaded = 0;
    save(c, 1, tokens, 5 * BLOCK);
    lc_kv_init(&kv, &layout);
    assert_ok(lc_cache_load(c, 1, tokens, LONG, &kv, &loaded, &err), err);
    assert_int_equal(loaded, 5 * BLOCK);
    char *first = kv.blocks[0], *shared = kv.blocks[3];
    lc_kv_trim(&kv, 3 * BLOCK + 7);
    assert_ok(lc_kv_reserve(&kv, 3 * BLOCK + 7, LONG, &err), err);
    assert_ptr_equal(kv.blocks[0], first);
    assert_ptr_not_equal(kv.blocks[3], shared);
    assert_memory_equal(kv.blocks[3], shared, lc_kv_block_bytes(&layout));
    memset(kv.blocks[3], 0, lc_kv_block_bytes(&layout));
    assert_int_equal(load(c, 1, tokens, LONG), 5 * BLOCK);
    lc_kv_free(&kv);
    lc_cache_close(c);
}

static void test_tenants_share_nothing(void **state) {
    (void)state;
    lc_cache *c = open_cache(folder, 100, 1 << 20);
    save(c, 1, tokens, 5 * BLOCK);
    save(c, 2, tokens, 2 * BLOCK);
    assert_int_equal(load(c, 2, tokens, LONG), 2 * BLOCK);
    assert_int_equal(load(c, 3, tokens, LONG), 0);
    assert_ok(lc_cache_drop(c, 1, &err), err);
    assert_int_equal(load(c, 1, tokens, LONG), 0);
    assert_int_equal(load(c, 2, tokens, LONG), 2 * BLOCK);
    lc_cache_close(c);
    c = open_cache(folder, 100, 1 << 20);
    assert_int_equal(load(c, 1, tokens, LONG), 0);
    assert_int_equal(load(c, 2, tokens, LONG), 2 * BLOCK);
    lc_cache_close(c);
}

static void test_survives_a_restart_and_another_model_finds_nothing(void **state) {
    (void)state;
    lc_cache *c = open_cache(folder, 100, 1 << 20);
    save(c, 1, tokens, LONG);
    lc_cache_close(c);
    c = open_cache(folder, 100, 1 << 20);
    assert_int_equal(load(c, 1, tokens, LONG), LONG - BLOCK);
    lc_cache_stats s;
    lc_cache_stats_get(c, &s);
    assert_int_equal(s.hits_disk, LONG - BLOCK);
    lc_cache_close(c);
    lc_cache_options o = {.layout = layout,
                          .identity = "other",
                          .identity_size = 5,
                          .ram_bytes = 1 << 20,
                          .folder = folder,
                          .disk_bytes = 1 << 20};
    assert_ok(lc_cache_open(&o, &c, &err), err);
    assert_int_equal(load(c, 1, tokens, LONG), 0);
    lc_cache_close(c);
}

static void test_evicts_leaves_first(void **state) {
    (void)state;
    lc_cache *c = open_cache(NULL, 10, 0);
    int32_t other[LONG];
    memcpy(other, tokens, sizeof other);
    other[2 * BLOCK]++; /* shares two blocks */
    save(c, 1, tokens, 6 * BLOCK);
    for (int i = 0; i < 3; i++) load(c, 1, tokens, 3 * BLOCK + 1);
    save(c, 1, other, LONG);                            /* more than there is room for */
    assert_true(load(c, 1, tokens, LONG) >= 3 * BLOCK); /* used often: its beginning stays */
    lc_cache_stats s;
    lc_cache_stats_get(c, &s);
    assert_true(s.ram_blocks <= 10 && s.evicted > 0);
    lc_cache_close(c);
}

static void test_keeps_to_the_disk_budget(void **state) {
    (void)state;
    lc_cache_stats s;
    uint64_t budget = 20 * (lc_kv_block_bytes(&layout) + 400);
    lc_cache *c = open_cache(folder, 1000, budget);
    for (int32_t i = 0; i < 20; i++) {
        tokens[0] = i;
        save(c, 1, tokens, 5 * BLOCK);
        lc_cache_stats_get(c, &s);
        assert_true(s.disk_bytes <= budget);
    }
    lc_cache_close(c);
    c = open_cache(folder, 1000, budget);
    lc_cache_stats_get(c, &s);
    assert_true(s.disk_bytes <= budget && s.disk_blocks >= 10);
    assert_int_equal(load(c, 1, tokens, 5 * BLOCK + 1), 5 * BLOCK); /* the last one is there */
    lc_cache_close(c);
}

/* ---- damage ---- */

/* Paths of all block files. */
static size_t list_files(char (*paths)[512], size_t most) {
    size_t n = 0;
    for (unsigned i = 0; i < 256; i++) {
        char sub[300];
        snprintf(sub, sizeof sub, "%s/%02x", folder, i);
        DIR *dir = opendir(sub);
        for (struct dirent *e; dir && (e = readdir(dir));)
            if (e->d_name[0] != '.' && n < most)
                snprintf(paths[n++], sizeof *paths, "%s/%.200s", sub, e->d_name);
        if (dir) closedir(dir);
    }
    return n;
}

/* A byte anywhere in a file, a cut, or an appended byte: found when it is read, removed, and the
 * blocks before it still serve. 100 files. */
static void test_detects_every_damaged_file(void **state) {
    (void)state;
    static char paths[LONG / BLOCK][512];
    size_t detected = 0, damaged = 0;
    for (unsigned round = 0; damaged < 100; round++) {
        lc_cache *c = open_cache(folder, 100, 1 << 22);
        save(c, 1, tokens, LONG);
        lc_cache_close(c);
        size_t n = list_files(paths, LONG / BLOCK);
        assert_int_equal(n, LONG / BLOCK);
        struct stat st;
        char *path = paths[(round * 13 + 5) % n];
        assert_int_equal(stat(path, &st), 0);
        int fd = open(path, O_RDWR);
        off_t at = (off_t)((round * 7919u) % (unsigned)st.st_size);
        char byte;
        if (round % 3 == 0) {
            assert_int_equal(ftruncate(fd, at), 0);
        } else if (round % 3 == 1) {
            assert_int_equal(pread(fd, &byte, 1, at), 1);
            byte = (char)(byte ^ (1 << round % 8));
            assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        } else {
            assert_int_equal(pwrite(fd, "x", 1, st.st_size), 1);
        }
        close(fd);
        damaged++;
        c = open_cache(folder, 100, 1 << 22);
        size_t got = load(c, 1, tokens, LONG);
        /* the last block is never asked for, since its tokens are computed */
        bool last = access(path, F_OK) == 0;
        if (got < LONG - BLOCK || last) detected++;
        unlink(path);
        lc_cache_close(c);
    }
    printf("# %zu files damaged, %zu noticed or never read\n", damaged, detected);
    assert_int_equal(detected, damaged);
}

/* Files are read many at a time: those behind a damaged one serve again once it was computed. */
static void test_reads_many_files_at_a_time(void **state) {
    (void)state;
    enum { BLOCKS = 150, BAD = 100 };
    static int32_t list[BLOCKS * BLOCK + 1];
    static char paths[BLOCKS][512];
    static struct stat before[BLOCKS];
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) list[i] = (int32_t)(i * i % 1009);
    lc_cache *c = open_cache(folder, 2 * BLOCKS, 1 << 24);
    save(c, 1, list, BAD * BLOCK);
    lc_cache_flush(c);
    size_t n = list_files(paths, BLOCKS);
    assert_int_equal(n, BAD);
    for (size_t i = 0; i < n; i++) assert_int_equal(stat(paths[i], &before[i]), 0);
    save(c, 1, list, (BAD + 2) * BLOCK);
    lc_cache_flush(c);
    n = list_files(paths, BLOCKS);
    for (size_t i = 0; i < n; i++) { /* the two new ones */
        struct stat st;
        bool old = false;
        assert_int_equal(stat(paths[i], &st), 0);
        for (size_t j = 0; j < BAD; j++) old |= st.st_ino == before[j].st_ino;
        if (old) continue;
        int fd = open(paths[i], O_RDWR);
        char byte;
        assert_int_equal(pread(fd, &byte, 1, st.st_size - 1), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, st.st_size - 1), 1);
        close(fd);
    }
    save(c, 1, list, BLOCKS * BLOCK);
    lc_cache_close(c);
    c = open_cache(folder, 2 * BLOCKS, 1 << 24);
    assert_int_equal(load(c, 1, list, BLOCKS * BLOCK + 1), BAD * BLOCK);
    lc_cache_stats s;
    lc_cache_stats_get(c, &s);
    assert_int_equal(s.damaged, 2);
    save(c, 1, list, BLOCKS * BLOCK);
    assert_int_equal(load(c, 1, list, BLOCKS * BLOCK + 1), BLOCKS * BLOCK);
    lc_cache_close(c);
    c = open_cache(folder, 2 * BLOCKS, 1 << 24); /* their files were written again */
    assert_int_equal(load(c, 1, list, BLOCKS * BLOCK + 1), BLOCKS * BLOCK);
    lc_cache_close(c);
}

static void test_no_torn_block_after_kill(void **state) {
    (void)state;
    size_t found = 0;
    for (int round = 0; round < 30; round++) {
        pid_t child = fork();
        if (child == 0) {
            lc_cache *c = open_cache(folder, 1000, 1 << 24);
            for (int32_t i = 0;; i++) {
                tokens[0] = 100 * round + i % 100;
                save(c, 1, tokens, 10 * BLOCK);
            }
        }
        usleep((useconds_t)(2000 + 700 * round));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        lc_cache *c = open_cache(folder, 1000, 1 << 24);
        for (int32_t i = 0; i < 100; i++) {
            tokens[0] = 100 * round + i;
            found += load(c, 1, tokens, LONG); /* checks each block */
        }
        lc_cache_stats s;
        lc_cache_stats_get(c, &s);
        assert_int_equal(s.damaged, 0);
        lc_cache_close(c);
    }
    printf("# %zu blocks found after 30 kills\n", found / BLOCK);
    assert_true(found > 0);
}

static void test_a_full_disk_costs_the_disk_tier_only(void **state) {
    (void)state;
    lc_cache *c = open_cache(folder, 100, 1 << 20);
    struct rlimit old, small = {100, 100};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    save(c, 1, tokens, 4 * BLOCK);
    lc_cache_flush(c);
    setrlimit(RLIMIT_FSIZE, &old);
    lc_cache_stats s;
    lc_cache_stats_get(c, &s);
    assert_true(s.disk_failed && s.written == 0);
    assert_int_equal(load(c, 1, tokens, LONG), 4 * BLOCK); /* from RAM */
    static char paths[8][512];
    assert_int_equal(list_files(paths, 8), 0); /* nothing half-written stays */
    save(c, 1, tokens, 4 * BLOCK);             /* there is room again */
    lc_cache_flush(c);
    lc_cache_stats_get(c, &s);
    assert_true(!s.disk_failed && s.written == 4 && s.disk_blocks == 4);
    assert_int_equal(list_files(paths, 8), 4);
    lc_cache_close(c);
}

/* A folder stands where a block's file belongs. */
static void test_one_bad_entry_costs_itself_only(void **state) {
    (void)state;
    static char paths[8][512];
    lc_cache_stats s;
    lc_cache *c = open_cache(folder, 100, 1 << 20);
    save(c, 1, tokens, 4 * BLOCK);
    lc_cache_close(c);
    assert_int_equal(list_files(paths, 8), 4);
    assert_int_equal(unlink(paths[2]), 0);
    assert_int_equal(mkdir(paths[2], 0700), 0);
    c = open_cache(folder, 100, 1 << 20);
    for (int i = 0; i < 3; i++) {
        save(c, 1, tokens, 4 * BLOCK);
        lc_cache_flush(c);
        lc_cache_stats_get(c, &s);
        assert_false(s.disk_failed);
    }
    assert_int_equal(load(c, 1, tokens, LONG), 4 * BLOCK);
    lc_cache_stats_get(c, &s);
    assert_int_equal(s.disk_blocks, 3); /* what isn't there takes nothing of the budget */
    assert_int_equal(s.disk_bytes % 3, 0);
    assert_int_equal(rmdir(paths[2]), 0);
    save(c, 1, tokens, 4 * BLOCK);
    lc_cache_close(c);
    c = open_cache(folder, 100, 1 << 20);
    assert_int_equal(load(c, 1, tokens, LONG), 4 * BLOCK);
    lc_cache_close(c);
}

/* Nothing stays that the budget doesn't count. */
static void test_a_file_that_cannot_be_read_is_removed(void **state) {
    (void)state;
    static char paths[4][512];
    struct stat st;
    lc_cache *c = open_cache(folder, 100, 1 << 20);
    save(c, 1, tokens, BLOCK);
    lc_cache_close(c);
    assert_int_equal(list_files(paths, 4), 1);
    c = open_cache(folder, 100, 1 << 20);
    assert_int_equal(unlink(paths[0]), 0);
    assert_int_equal(symlink(paths[0], paths[0]), 0); /* open fails: it leads to itself */
    assert_int_equal(load(c, 1, tokens, LONG), 0);
    lc_cache_flush(c);
    assert_int_equal(lstat(paths[0], &st), -1);
    lc_cache_stats s;
    lc_cache_stats_get(c, &s);
    assert_true(s.disk_blocks == 0 && s.disk_bytes == 0);
    lc_cache_close(c);
}

static void test_a_chain_longer_than_memory_keeps_only_what_can_be_reached(void **state) {
    (void)state;
    lc_cache_stats s;
    lc_cache *c = open_cache(NULL, 10, 0);
    save(c, 1, tokens, LONG);
    size_t loaded = load(c, 1, tokens, LONG);
    lc_cache_stats_get(c, &s);
    assert_true(s.ram_blocks >= 8);
    assert_int_equal(loaded, s.ram_blocks * BLOCK);
    lc_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hits_whole_blocks_of_the_same_beginning, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_who_writes_gets_a_block_of_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tenants_share_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_survives_a_restart_and_another_model_finds_nothing,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_evicts_leaves_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_keeps_to_the_disk_budget, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_detects_every_damaged_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reads_many_files_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_torn_block_after_kill, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_full_disk_costs_the_disk_tier_only, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_one_bad_entry_costs_itself_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_that_cannot_be_read_is_removed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_chain_longer_than_memory_keeps_only_what_can_be_reached, set_up, tear_down),
    };
    assert_int_equal(lc_pool_new(3, &pool, &err), LC_OK);
    int result = test_main(tests);
    lc_pool_free(pool);
    return result;
}
