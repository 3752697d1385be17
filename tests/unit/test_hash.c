/*
 * test_hash.c: hashes against published and foreign values. SHA: FIPS 180's examples, equal to what
 * sha256sum and sha1sum print; XXH3-128: what xxh128sum prints.
 */
#include "base/hash.h"
#include "base/mem.h"
#include "test.h"

enum { MILLION = 1000000 };

static const struct {
    const char *text; /* NULL = a million times "a" */
    const char *hex[3];
} cases[] = {
    {"",
     {"99aa06d3014798d86001c324468d497f",
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      "da39a3ee5e6b4b0d3255bfef95601890afd80709"}},
    {"a",
     {"a96faf705af16834e6c632b61e964e1f",
      "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
      "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"}},
    {"abc",
     {"06b05ab6733a618578af5f94892f3950",
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      "a9993e364706816aba3e25717850c26c9cd0d89d"}},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     {"3d62d22a5169b016c0d894fd4828a1a7",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
      "84983e441c3bd26ebaae4aa1f95129e5e54670f1"}},
    {NULL,
     {"a545df8e384a9579b1fd6fae5285c4eb",
      "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
      "34aa973cd4c4daa4f61eeb2bdbad27316534016f"}},
};

/* Feeds data in pieces of the given size. */
static void hash_in_pieces(lc_hash_kind kind, const char *data, size_t size, size_t piece,
                           char hex[65]) {
    lc_hash *hash = lc_hash_new(kind);
    assert_non_null(hash);
    for (size_t at = 0; at < size; at += piece)
        lc_hash_update(hash, data + at, size - at < piece ? size - at : piece);
    lc_hash_update(hash, NULL, 0);
    lc_hash_finish(hash, hex);
}

static void equals_foreign_values_in_any_pieces(void **state) {
    (void)state;
    static const size_t pieces[] = {1, 7, 64, 1000, 65537, MILLION};
    char *million = lc_alloc(MILLION);
    assert_non_null(million);
    memset(million, 'a', MILLION);
    int checked = 0;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const char *data = cases[c].text ? cases[c].text : million;
        size_t size = cases[c].text ? strlen(cases[c].text) : MILLION;
        for (int kind = 0; kind < 3; kind++)
            for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++, checked++) {
                char hex[65];
                hash_in_pieces((lc_hash_kind)kind, data, size, pieces[p], hex);
                assert_string_equal(hex, cases[c].hex[kind]);
            }
    }
    lc_free(million);
    printf("# %d hashes\n", checked);
}

static void short_memory_gives_null(void **state) {
    (void)state;
    size_t before = lc_mem_current();
    lc_mem_fail_after(0);
    for (int kind = 0; kind < 3; kind++) assert_null(lc_hash_new((lc_hash_kind)kind));
    lc_mem_fail_after(-1);
    assert_int_equal(lc_mem_current(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_foreign_values_in_any_pieces),
        cmocka_unit_test(short_memory_gives_null),
    };
    return test_main(tests);
}
