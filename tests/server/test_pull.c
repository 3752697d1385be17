/*
 * Downloads from a local hub that behaves and misbehaves (hub_server.h): resuming, redirects, cut
 * and corrupted transfers, wrong answers, hostile names, full disks, kill -9 of the real program.
 * All of it on 127.0.0.1, with short waits. uses-threads
 */
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "format/hub.h"
#include "format/hub_internal.h"
#include "server/hub_server.h"
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const char commit[] = "0123456789abcdef0123456789abcdef01234567";

/* ---- one hub, one folder ---- */

typedef struct fixture {
    hub_entry entries[HUB_MAX_ENTRIES];
    hub_server hub, cdn;
    char folder[64], endpoint[64];
    char *big; /* contents of the large files */
    lc_hub_options options;
    lc_hub_result result;
    lc_err err;
} fixture;

enum { BIG = 300000 };

static void hash_entry(hub_entry *e, bool large) {
    char head[64], hex[65];
    lc_hash *git = lc_hash_new(LC_HASH_SHA1), *sha = lc_hash_new(LC_HASH_SHA256);
    lc_hash_update(git, head, (size_t)sprintf(head, "blob %zu", e->size) + 1);
    lc_hash_update(git, e->data, e->size);
    lc_hash_update(sha, e->data, e->size);
    lc_hash_finish(git, hex);
    memcpy(e->oid, hex, sizeof e->oid);
    lc_hash_finish(sha, hex);
    if (large) memcpy(e->sha256, hex, sizeof e->sha256);
}

static hub_entry *add_entry(fixture *f, const char *path, const char *data, size_t size,
                            bool large) {
    hub_entry *e = &f->entries[f->hub.n_entries++];
    f->cdn.n_entries = f->hub.n_entries;
    e->path = path;
    e->data = data;
    e->size = size;
    hash_entry(e, large);
    return e;
}

/* A hub that is not started yet: two small files, an empty one and a large one. */
static fixture *new_fixture(void) {
    fixture *f = calloc(1, sizeof *f);
    f->big = malloc(BIG);
    uint32_t random = 1;
    for (size_t i = 0; i < BIG; i++) {
        random = random * 1664525u + 1013904223u;
        f->big[i] = (char)(random >> 24);
    }
    f->hub.entries = f->cdn.entries = f->entries;
    f->hub.cdn = &f->cdn;
    f->hub.commit = commit;
    add_entry(f, "model.safetensors", f->big, BIG, true);
    add_entry(f, "config.json", "hello\n", 6, false);
    add_entry(f, "empty", "", 0, false);
    add_entry(f, "sub/a b+c%.txt", "in a folder", 11, false);
    snprintf(f->folder, sizeof f->folder, P_tmpdir "/longcat-pull-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    f->options = (lc_hub_options){.repo = "o/n", .out = f->folder, .backoff_ms = 5, .retries = 4};
    return f;
}

static void start(fixture *f) {
    assert_true(hub_server_start(&f->cdn));
    assert_true(hub_server_start(&f->hub));
    snprintf(f->endpoint, sizeof f->endpoint, "http://127.0.0.1:%d", f->hub.port);
    f->options.endpoint = f->endpoint;
}

static int pull(fixture *f) { return lc_hub_pull(&f->options, &f->result, &f->err); }

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw) {
    (void)info, (void)type, (void)ftw;
    return remove(path);
}

static void free_fixture(fixture *f) {
    hub_server_stop(&f->hub);
    hub_server_stop(&f->cdn);
    nftw(f->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(f->big);
    free(f);
}

/* Path in the folder; valid until the next call. */
static const char *in_folder(const fixture *f, const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    return path;
}

static int64_t file_size(const fixture *f, const char *name) {
    struct stat info;
    return stat(in_folder(f, name), &info) == 0 ? (int64_t)info.st_size : -1;
}

static void write_file(const fixture *f, const char *name, const char *data, size_t size) {
    FILE *file = fopen(in_folder(f, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
}

static bool is_right(const fixture *f, const hub_entry *e) {
    lc_buf content = {0};
    lc_err err;
    bool right = lc_file_read(in_folder(f, e->path), 0, &content, &err) == LC_OK &&
                 content.len == e->size && !memcmp(content.data, e->data, e->size);
    lc_buf_free(&content);
    return right;
}

static void assert_all_right(const fixture *f) {
    for (size_t i = 0; i < f->hub.n_entries; i++) {
        if (!is_right(f, &f->entries[i])) fail_msg("%s is wrong", f->entries[i].path);
        char part[300];
        snprintf(part, sizeof part, "%s.part", f->entries[i].path);
        assert_int_equal(file_size(f, part), -1);
    }
}

static int n_in_folder(const fixture *f) {
    int n = 0;
    DIR *folder = opendir(f->folder);
    for (struct dirent *e; folder && (e = readdir(folder));)
        n += e->d_name[0] != '.' || e->d_name[1] > '.';
    if (folder) closedir(folder);
    return n;
}

/* ---- what works ---- */

static void whole_model(void **state) {
    (void)state;
    fixture *f = new_fixture();
    /* known hashes of "hello\n", from git hash-object and sha256sum */
    assert_string_equal(f->entries[1].oid, "ce013625030ba8dba906f756967f9e9ca394464a");
    add_entry(f, "large.txt", "hello\n", 6, true);
    assert_string_equal(f->entries[4].sha256,
                        "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
    f->hub.page_size = 2;
    f->options.revision = "refs/pr/1";
    f->options.jobs = 3;
    start(f);
    assert_ok(pull(f), f->err);
    assert_all_right(f);
    assert_int_equal(f->hub.api_requests, 4); /* the commit and three pages */
    assert_int_equal(f->result.files, 5);
    assert_int_equal(f->result.received, BIG + 6 + 11 + 6);
    assert_string_equal(f->result.commit, commit);
    assert_int_equal(strncmp(f->hub.last_path, "/o/n/resolve/0123456789abcdef", 29), 0);
    /* once more: all is kept, nothing is asked for */
    int before = f->entries[0].requests;
    assert_ok(pull(f), f->err);
    assert_int_equal(f->result.kept, 5);
    assert_int_equal(f->result.received, 0);
    assert_int_equal(f->entries[0].requests, before);
    /* a wrong file is replaced, also one of the right size */
    write_file(f, "config.json", "hellO\n", 6);
    write_file(f, "large.txt", "x", 1);
    assert_ok(pull(f), f->err);
    assert_int_equal(f->result.kept, 3);
    assert_all_right(f);
    free_fixture(f);
}

static void other_routes(void **state) {
    (void)state;
    /* no revision route: the revision itself is asked for */
    fixture *f = new_fixture();
    f->hub.commit = NULL;
    f->options.revision = "refs/pr/1";
    start(f);
    assert_ok(pull(f), f->err);
    assert_all_right(f);
    assert_int_equal(strncmp(f->hub.last_path, "/o/n/resolve/refs%2Fpr%2F1/", 27), 0);
    free_fixture(f);
    /* no tree route: the model's siblings */
    f = new_fixture();
    char model[1024];
    snprintf(model, sizeof model,
             "{\"sha\":\"%s\",\"siblings\":[{\"rfilename\":\"config.json\",\"size\":6,\"blobId\":"
             "\"%s\"},"
             "{\"rfilename\":\"model.safetensors\",\"size\":%d,\"blobId\":\"%s\","
             "\"lfs\":{\"sha256\":\"%s\",\"size\":%d,\"pointerSize\":134}}]}",
             commit, f->entries[1].oid, BIG, f->entries[0].oid, f->entries[0].sha256, BIG);
    f->hub.model = model;
    f->hub.no_tree = true;
    start(f);
    assert_ok(pull(f), f->err);
    assert_int_equal(f->result.files, 2);
    assert_true(is_right(f, &f->entries[0]) && is_right(f, &f->entries[1]));
    free_fixture(f);
    /* no hash: only the size is checked, and that is said */
    f = new_fixture();
    f->hub.tree = "[{\"type\":\"file\",\"path\":\"config.json\",\"size\":6}]";
    start(f);
    assert_ok(pull(f), f->err);
    assert_int_equal(f->result.unverified, 1);
    free_fixture(f);
}

static void patterns(void **state) {
    static const char *const include[] = {"*.json", "sub/*"}, *const exclude[] = {"*+c*"};
    (void)state;
    fixture *f = new_fixture();
    f->options.include = include;
    f->options.n_include = 2;
    f->options.exclude = exclude;
    f->options.n_exclude = 1;
    start(f);
    assert_ok(pull(f), f->err);
    assert_int_equal(f->result.files, 1);
    assert_int_equal(n_in_folder(f), 1);
    free_fixture(f);
}

static void token_stays_home(void **state) {
    (void)state;
    fixture *f = new_fixture();
    f->entries[0].redirect = f->entries[1].redirect = "";
    f->entries[1].redirect_status = 307;
    f->hub.token = f->options.token = "hf_secret";
    start(f);
    assert_ok(pull(f), f->err);
    assert_all_right(f);
    assert_int_equal(f->hub.tokens_seen, f->hub.requests);
    assert_int_equal(f->cdn.requests, 2);
    assert_int_equal(f->cdn.tokens_seen, 0);
    free_fixture(f);
}

/* ---- faults that heal ---- */

static void cut_connections(void **state) {
    static const size_t cuts[] = {0, 1, 4095, 4096, 99999, BIG - 1};
    (void)state;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        fixture *f = new_fixture();
        hub_entry *e = &f->entries[0];
        e->cut_after = cuts[i];
        e->cut_times = 2;
        start(f);
        assert_ok(pull(f), f->err);
        assert_all_right(f);
        assert_int_equal(e->sent, BIG); /* no byte came twice */
        assert_int_equal(e->ranges, cuts[i] == 0 ? 0 : cuts[i] > BIG / 2 ? 1 : 2);
        free_fixture(f);
    }
}

/* What goes wrong with the large file; 0 = nothing. */
typedef struct fault {
    int cuts;
    size_t cut_after;
    int no_range, wrong_range, flips, odd_lengths;
    size_t odd_length;
    bool no_length, wrong_start;
    int fails, fail_status, retry_after;
    int requests; /* that it takes until all is well */
} fault;

static void set_fault(hub_entry *e, const fault *x) {
    e->cut_times = x->cuts;
    e->cut_after = x->cut_after;
    e->no_range_times = x->no_range;
    e->wrong_range_times = x->wrong_range;
    e->flip_times = x->flips;
    e->flip_at = 77777;
    e->odd_length_times = x->odd_lengths;
    e->odd_length = x->odd_length;
    e->no_length = x->no_length;
    e->wrong_start = x->wrong_start;
    e->fail_times = x->fails;
    e->fail_status = x->fail_status;
    e->retry_after = x->retry_after;
}

static void healing_faults(void **state) {
    static const fault faults[] = {
        {.requests = 2, .cuts = 1, .cut_after = 100000, .no_range = 1},
        {.requests = 3, .cuts = 1, .cut_after = 100000, .wrong_range = 1},
        {.requests = 3, .cuts = 1, .cut_after = 100000, .wrong_range = 1, .wrong_start = true},
        {.requests = 2, .flips = 1},
        {.requests = 2, .odd_lengths = 1, .odd_length = BIG + 5},
        {.requests = 2, .odd_lengths = 1, .odd_length = 5},
        {.requests = 2, .odd_lengths = 1, .odd_length = BIG + 5, .no_length = true},
        {.requests = 2, .cuts = 1, .cut_after = 100000, .no_length = true},
        {.requests = 4, .fails = 3, .fail_status = 503},
        {.requests = 2, .fails = 1, .fail_status = 429, .retry_after = 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        fixture *f = new_fixture();
        set_fault(&f->entries[0], &faults[i]);
        start(f);
        struct timespec begin, end;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        if (pull(f) != LC_OK) fail_msg("fault %zu: %s", i, f->err.text);
        clock_gettime(CLOCK_MONOTONIC, &end);
        assert_all_right(f);
        double seconds =
            (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
        if (faults[i].retry_after) assert_true(seconds >= 1);
        if (f->entries[0].requests != faults[i].requests)
            fail_msg("fault %zu: %d requests", i, f->entries[0].requests);
        free_fixture(f);
    }
}

static void stalled_transfer(void **state) {
    (void)state;
    fixture *f = new_fixture();
    f->entries[0].stall_times = 1;
    f->entries[0].stall_after = 50000;
    f->options.stall_seconds = 1;
    start(f);
    assert_ok(pull(f), f->err);
    assert_all_right(f);
    assert_int_equal(f->entries[0].ranges, 1);
    free_fixture(f);
}

static void listing_fails_first(void **state) {
    (void)state;
    fixture *f = new_fixture();
    f->hub.tree_fails = 2;
    start(f);
    assert_ok(pull(f), f->err);
    assert_all_right(f);
    free_fixture(f);
}

static void large_files_in_ranges(void **state) {
    (void)state;
    fixture *f = new_fixture();
    f->options.max_request = 70000;
    start(f);
    assert_ok(pull(f), f->err);
    assert_all_right(f);
    assert_int_equal(f->entries[0].ranges, 5);
    assert_int_equal(f->entries[0].sent, BIG);
    free_fixture(f);
}

static void parts_from_before(void **state) {
    (void)state;
    for (int what = 0; what < 4; what++) {
        fixture *f = new_fixture();
        hub_entry *e = &f->entries[0];
        char *longer = calloc(1, BIG + 10);
        if (what == 0) write_file(f, "model.safetensors.part", f->big, 200000);
        if (what == 1) write_file(f, "model.safetensors.part", f->big, BIG); /* all but renamed */
        if (what == 2) write_file(f, "model.safetensors.part", longer, 200000);
        if (what == 3) write_file(f, "model.safetensors.part", longer, BIG + 10);
        start(f);
        assert_ok(pull(f), f->err);
        assert_all_right(f);
        static const size_t sent[] = {BIG - 200000, 0, BIG + BIG - 200000, BIG};
        assert_int_equal(e->sent, sent[what]);
        free(longer);
        free_fixture(f);
    }
}

/* ---- faults that don't ---- */

static void expect_error(fixture *f, int status, const char *part_of_text) {
    int got = pull(f);
    if (got != status) fail_msg("status %d (%s) instead of %d", got, f->err.text, status);
    assert_int_equal(f->err.code, status);
    if (!strstr(f->err.text, part_of_text))
        fail_msg("\"%s\" is not in \"%s\"", part_of_text, f->err.text);
}

static void lasting_faults(void **state) {
    static const struct {
        fault fault;
        int status;
        const char *text;
        bool others; /* the other files still come */
    } cases[] = {
        {{.flips = 100}, LC_EFORMAT, "sha256 is", true},
        {{.odd_lengths = 100, .odd_length = 5}, LC_EFORMAT, "sends 5 bytes", true},
        {{.fails = 100, .fail_status = 500}, LC_ENET, "gave up after 4 failures", true},
        {{.cuts = 100}, LC_ENET, "gave up after 4 failures", true},
        {{.fails = 100, .fail_status = 404}, LC_ENOTFOUND, "HTTP 404", true},
        {{.fails = 100, .fail_status = 403}, LC_ENET, "access refused", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture *f = new_fixture();
        hub_entry *e = &f->entries[0];
        e->path = "a.safetensors"; /* the first in order */
        set_fault(e, &cases[i].fault);
        f->options.jobs = 1;
        start(f);
        expect_error(f, cases[i].status, cases[i].text);
        assert_int_equal(file_size(f, e->path), -1);
        assert_int_equal(is_right(f, &f->entries[1]), cases[i].others);
        free_fixture(f);
    }
}

static void wrong_hashes(void **state) {
    (void)state;
    fixture *f = new_fixture();
    memset(f->entries[0].sha256, '0', 64);
    memset(f->entries[1].oid, '0', 40);
    start(f);
    f->options.jobs = 1;
    expect_error(f, LC_EFORMAT,
                 "config.json: the git hash is ce013625030ba8dba906f756967f9e9ca394464a, "
                 "the hub states 0000");
    assert_non_null(strstr(f->err.text, "(and 1 more files)"));
    assert_int_equal(file_size(f, "config.json"), -1);
    assert_int_equal(file_size(f, "model.safetensors"), -1);
    assert_int_equal(file_size(f, "model.safetensors.part"), -1);
    assert_true(is_right(f, &f->entries[3]));
    free_fixture(f);
}

static void refused_access(void **state) {
    (void)state;
    fixture *f = new_fixture();
    f->hub.token = "hf_secret";
    start(f);
    expect_error(f, LC_ENET, "o/n: needs a token, or does not exist (HTTP 401: Invalid token)");
    free_fixture(f);
    f = new_fixture();
    f->hub.commit = NULL;
    f->hub.no_tree = true;
    start(f);
    expect_error(f, LC_ENOTFOUND, "Repo not found");
    free_fixture(f);
}

static void bad_redirects(void **state) {
    static const char *const targets[] = {"file:///etc/passwd", "ftp://127.0.0.1/x",
                                          "gopher://localhost/", "/o/n/resolve/x/model.safetensors",
                                          "http://127.0.0.1:99999999/"};
    (void)state;
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        fixture *f = new_fixture();
        f->entries[0].redirect = targets[i];
        start(f);
        int status = pull(f);
        assert_int_not_equal(status, LC_OK);
        if (i < 3) assert_non_null(strstr(f->err.text, "refused a redirect"));
        if (i == 3) assert_non_null(strstr(f->err.text, "redirects"));
        assert_int_equal(file_size(f, "model.safetensors"), -1);
        free_fixture(f);
    }
    assert_true(hub_may_follow("http://localhost", "https://example.com"));
    assert_true(hub_may_follow("http://localhost", "http://example.com"));
    assert_true(hub_may_follow("https://localhost", "HTTPS://127.0.0.1"));
    assert_false(hub_may_follow("https://localhost", "http://localhost"));
    assert_false(hub_may_follow("https://localhost", "file:///x"));
    assert_false(hub_may_follow("https://localhost", "httpss://localhost"));
    assert_true(hub_same_origin("https://example.com/x", "HTTPS:"
                                                         "//EXAMPLE.com:443/y?z"));
    assert_false(hub_same_origin("https://example.com/x", "https://example.com:444/x"));
    assert_false(hub_same_origin("https://example.com/x", "http://example.com/x"));
    assert_false(hub_same_origin("https://example.com/x", "https://example.com.localhost/x"));
    assert_false(hub_same_origin("https://example.com", "https://example.com@localhost/"));
    assert_false(hub_same_origin("https://example.com", "nonsense"));
}

static void names(void **state) {
    static const char *const good[] = {"a",   ".gitattributes",   "a/b/c", "..a",     "a..",
                                       "...", "\xE5\xA4\xA9.txt", "a b",   "x.git/y", "-rf"};
    static const char *const bad[] = {"",
                                      "/",
                                      "/a",
                                      "a/",
                                      "a//b",
                                      ".",
                                      "..",
                                      "../a",
                                      "a/../b",
                                      "a/.",
                                      "./a",
                                      "a\\b",
                                      "a\nb",
                                      "a\x1b[2J",
                                      "a\x7f",
                                      "\xC2\x9B"
                                      "2J",
                                      "a\xFF",
                                      "\xC0\xAF",
                                      "\xED\xA0\x80",
                                      ".git/config",
                                      "a/.GIT/x",
                                      "\xE2\x80\xAE"
                                      "gpj.exe"};
    (void)state;
    lc_err err;
    char longest[1200];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_ok(lc_hub_check_path(good[i], &err), err);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (lc_hub_check_path(bad[i], &err) != LC_EFORMAT) fail_msg("%s was accepted", bad[i]);
    memset(longest, 'a', sizeof longest);
    longest[251] = 0;
    assert_int_equal(lc_hub_check_path(longest, &err), LC_EFORMAT);
    longest[250] = 0;
    assert_ok(lc_hub_check_path(longest, &err), err);
    for (size_t i = 0; i < sizeof longest; i++) longest[i] = i % 2 ? '/' : 'a';
    longest[1101] = 0;
    assert_int_equal(lc_hub_check_path(longest, &err), LC_EFORMAT);
}

#define FILE_JSON(path, size)                                                                      \
    "{\"type\":\"file\",\"path\":\"" path "\",\"size\":" size                                      \
    ",\"oid\":\"ce013625030ba8dba906f756967f9e9ca394464a\"}"

static void hostile_lists(void **state) {
    static const struct {
        const char *tree, *link;
        int status;
    } lists[] = {
        {"[" FILE_JSON("../evil", "6") "]", NULL, LC_EFORMAT},
        {"[" FILE_JSON("/tmp/evil", "6") "]", NULL, LC_EFORMAT},
        {"[" FILE_JSON("a\\u0000b", "6") "]", NULL, LC_EFORMAT},
        {"[" FILE_JSON("a\\u001b[2J", "6") "]", NULL, LC_EFORMAT},
        {"[" FILE_JSON("a", "6") "," FILE_JSON("a", "6") "]", NULL, LC_EFORMAT},
        {"[" FILE_JSON("a", "6") "," FILE_JSON("a-b", "6") "," FILE_JSON("a/b", "6") "]", NULL,
         LC_EFORMAT},
        {"[" FILE_JSON("a", "6") "," FILE_JSON("a.part", "6") "]", NULL, LC_EFORMAT},
        {"[" FILE_JSON("a", "-1") "]", NULL, LC_EFORMAT},
        {"[" FILE_JSON("a", "1e3") "]", NULL, LC_EFORMAT},
        {"[" FILE_JSON("a", "\"6\"") "]", NULL, LC_EFORMAT},
        {"[" FILE_JSON("a", "99999999999999999999") "]", NULL, LC_EFORMAT},
        {"[" FILE_JSON("a", "9223372036854775807") "]", NULL, LC_EFORMAT},
        {"[" FILE_JSON("a", "17592186044416") "]", NULL, LC_ELIMIT}, /* 16 TiB: no such disk */
        {"[{\"type\":\"file\",\"path\":\"a\",\"size\":6,\"lfs\":{\"oid\":\"xyz\",\"size\":6}}]",
         NULL, LC_EFORMAT},
        {"[{\"type\":\"file\",\"path\":7,\"size\":6}]", NULL, LC_EFORMAT},
        {"[{\"size\":6}]", NULL, LC_EFORMAT},
        {"[7]", NULL, LC_EFORMAT},
        {"{}", NULL, LC_EFORMAT},
        {"[", NULL, LC_EFORMAT},
        {"", NULL, LC_EFORMAT},
        {"[]", NULL, LC_ENOTFOUND},
        {"[{\"type\":\"directory\",\"path\":\"../x\",\"size\":0}]", NULL, LC_ENOTFOUND},
        {"[]", "<http://localhost/elsewhere>; rel=\"next\"", LC_EFORMAT},
        {"[]", "<http://localhost/api/models/o/n/tree/a b>; rel=\"next\"", LC_EFORMAT},
        {"[]", "<http://localhost/api/models/o/n/tree/y>; rel=\"next\"",
         LC_EFORMAT}, /* leads to itself */
    };
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        fixture *f = new_fixture();
        f->hub.tree = lists[i].tree;
        f->hub.link = lists[i].link;
        f->options.out = in_folder(f, "out");
        start(f);
        int status = pull(f);
        if (status != lists[i].status)
            fail_msg("%s: status %d (%s)", lists[i].tree, status, f->err.text);
        assert_int_equal(f->hub.last_path[0], 0); /* no file was asked for */
        assert_true(n_in_folder(f) <= 1);
        free_fixture(f);
    }
    print_message("# hostile lists refused: %zu\n", sizeof lists / sizeof *lists);
}

static void too_many_files(void **state) {
    (void)state;
    fixture *f = new_fixture();
    lc_buf tree = {0};
    lc_buf_putc(&tree, '[');
    for (int i = 0; i <= LC_HUB_MAX_FILES; i++)
        lc_buf_printf(&tree, "%s{\"type\":\"file\",\"path\":\"f%d\",\"size\":1}", i ? "," : "", i);
    lc_buf_putc(&tree, ']');
    f->hub.tree = tree.data;
    start(f);
    expect_error(f, LC_ELIMIT, "more than 50000 files");
    free_fixture(f);
    lc_buf_free(&tree);
}

static void full_disk(void **state) {
    (void)state;
    fixture *f = new_fixture();
    f->hub.tree = "[" FILE_JSON("a", "17000000000000") "]";
    start(f);
    expect_error(f, LC_ELIMIT, "too little disk: 17000.00 GB are missing,");
    assert_non_null(strstr(f->err.text, "are free"));
    free_fixture(f);
}

static void bad_options(void **state) {
    static const char *const repos[] = {"n",    "/n",    "o/",   "o/n/x", "o/..",
                                        "../n", "o n/x", "o/n?", NULL};
    (void)state;
    lc_hub_result result;
    lc_err err;
    for (size_t i = 0; i < sizeof repos / sizeof *repos; i++) {
        lc_hub_options o = {.repo = repos[i], .out = "x", .endpoint = "http://127.0.0.1:1"};
        assert_int_equal(lc_hub_pull(&o, &result, &err), LC_EINVAL);
    }
    static const char *const endpoints[] = {"ftp://localhost", "127.0.0.1", "file:///x",
                                            "http://localhost@example.com", "http://localhost?b"};
    for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++) {
        lc_hub_options o = {.repo = "o/n", .out = "x", .endpoint = endpoints[i]};
        assert_int_equal(lc_hub_pull(&o, &result, &err), LC_EINVAL);
    }
    lc_hub_options o = {
        .repo = "o/n", .out = "x", .endpoint = "http://localhost", .token = "a\nEvil: b"};
    assert_int_equal(lc_hub_pull(&o, &result, &err), LC_EINVAL);
    /* nobody listens */
    o = (lc_hub_options){
        .repo = "o/n", .out = "x", .endpoint = "http://127.0.0.1:1", .retries = 2, .backoff_ms = 1};
    assert_int_equal(lc_hub_pull(&o, &result, &err), LC_ENET);
}

static void two_at_once(void **state) {
    (void)state;
    fixture *f = new_fixture();
    start(f);
    write_file(f, "model.safetensors.part", f->big, 10);
    int fd = open(in_folder(f, "model.safetensors.part"), O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    expect_error(f, LC_EIO, "another process is downloading it");
    close(fd);
    assert_ok(pull(f), f->err);
    assert_all_right(f);
    free_fixture(f);
}

/* ---- stopping ---- */

static bool stop_at_half(void *ctx, const lc_hub_progress *p) {
    (void)ctx;
    return p->received < BIG / 2;
}

static void cancelled(void **state) {
    (void)state;
    fixture *f = new_fixture();
    f->entries[0].slow_ms = 10;
    f->options.progress = stop_at_half;
    start(f);
    expect_error(f, LC_ECANCELED, "stopped");
    int64_t part = file_size(f, "model.safetensors.part");
    assert_true(part >= BIG / 2 - 20 && part < BIG);
    assert_int_equal(file_size(f, "model.safetensors"), -1);
    while (atomic_load(&f->hub.connections) > 0) hub_pause(5);
    size_t before = f->entries[0].sent;
    f->options.progress = NULL;
    assert_ok(pull(f), f->err);
    assert_all_right(f);
    assert_int_equal(f->entries[0].sent - before, BIG - part);
    free_fixture(f);
}

/* Starts the real program on the fixture's hub. */
static pid_t start_program(const fixture *f) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid) return pid;
    int null = open("/dev/null", O_RDWR);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    execl(test_program(), "longcat", "pull", "o/n", "--endpoint", f->endpoint, "--out", f->folder,
          (char *)NULL);
    _exit(127);
}

/* Its exit code, or -signal. */
static int wait_program(pid_t pid) {
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void killed_program(void **state) {
    static const int signals[] = {SIGKILL, SIGINT};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        fixture *f = new_fixture();
        hub_entry *e = &f->entries[0];
        e->slow_ms = 10;
        start(f);
        pid_t pid = start_program(f);
        for (int waits = 0; waits < 2000 && file_size(f, "model.safetensors.part") < 50000; waits++)
            hub_pause(5);
        kill(pid, signals[i]);
        assert_int_equal(wait_program(pid), signals[i] == SIGKILL ? -SIGKILL : 1);
        int64_t part = file_size(f, "model.safetensors.part");
        assert_in_range(part, 50000, BIG - 1);
        assert_int_equal(file_size(f, "model.safetensors"), -1);
        while (atomic_load(&f->hub.connections) > 0) hub_pause(5);
        size_t before = e->sent;
        assert_int_equal(wait_program(start_program(f)), 0);
        assert_all_right(f);
        assert_int_equal(e->sent - before, BIG - part); /* only the rest */
        print_message("# signal %d after %lld bytes, resumed with %zu\n", signals[i],
                      (long long)part, e->sent - before);
        free_fixture(f);
    }
}

static void failing_memory(void **state) {
    (void)state;
    fixture *f = new_fixture();
    f->hub.n_entries = 3;
    f->options.jobs = 1;
    f->options.retries = 1;
    start(f);
    size_t before = lc_mem_current();
    long n = 0;
    for (int status = LC_ENOMEM; status != LC_OK; n++) {
        lc_mem_fail_after(n);
        status = pull(f);
        lc_mem_fail_after(-1);
        if (status != LC_OK && status != LC_ENOMEM && status != LC_ELIMIT)
            fail_msg("allocation %ld: status %d (%s)", n, status, f->err.text);
        assert_int_equal(lc_mem_current(), before);
    }
    assert_true(n > 20);
    assert_true(is_right(f, &f->entries[0]));
    print_message("# allocations that failed in turn: %ld\n", n - 1);
    free_fixture(f);
}

int main(void) {
    setenv("no_proxy", "*", 1);
    unsetenv("HF_TOKEN");
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_model),
        cmocka_unit_test(other_routes),
        cmocka_unit_test(patterns),
        cmocka_unit_test(token_stays_home),
        cmocka_unit_test(cut_connections),
        cmocka_unit_test(healing_faults),
        cmocka_unit_test(stalled_transfer),
        cmocka_unit_test(listing_fails_first),
        cmocka_unit_test(large_files_in_ranges),
        cmocka_unit_test(parts_from_before),
        cmocka_unit_test(lasting_faults),
        cmocka_unit_test(wrong_hashes),
        cmocka_unit_test(refused_access),
        cmocka_unit_test(bad_redirects),
        cmocka_unit_test(names),
        cmocka_unit_test(hostile_lists),
        cmocka_unit_test(too_many_files),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(two_at_once),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(killed_program),
        cmocka_unit_test(failing_memory),
    };
    return test_main(tests);
}
