/*
 * test_safetensors.c: hostile and honest safetensors files, shard indexes, and the writer. Hostile
 * images are made here byte by byte; each must be refused with a text that names file and problem.
 */
#include "test.h"

#include "base/buf.h"
#include "base/file.h"
#include "format/safetensors.h"

#include <sys/stat.h>
#include <unistd.h>

/* A file image: header length, header, `data` bytes of data. */
typedef struct image {
    unsigned char *bytes;
    size_t size;
} image;

static image make_image(const char *header, size_t data) {
    size_t len = strlen(header);
    image m = {.size = 8 + len + data};
    m.bytes = malloc(m.size); /* exactly: AddressSanitizer sees any read past the end */
    assert_non_null(m.bytes);
    for (int i = 0; i < 8; i++) m.bytes[i] = (unsigned char)((uint64_t)len >> 8 * i);
    memcpy(m.bytes + 8, header, len);
    for (size_t i = 0; i < data; i++) m.bytes[8 + len + i] = (unsigned char)i;
    return m;
}

static void refuse_image(image m, const char *words, const char *what) {
    lc_tensors *t = NULL;
    lc_err err = {0};
    int status = lc_tensors_parse(m.bytes, m.size, "bad.safetensors", &t, &err);
    if (status != LC_EFORMAT || t || !strstr(err.text, words) ||
        !strstr(err.text, "bad.safetensors"))
        fail_msg("%.200s: status %d, text \"%s\", expected \"%s\"", what, status, err.text, words);
}

static void refuse(const char *header, size_t data, const char *words) {
    image m = make_image(header, data);
    refuse_image(m, words, header);
    free(m.bytes);
}

#define F32(name, shape, a, b)                                                                     \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" #a "," #b "]}"

static void test_sizes_and_offsets(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *words;
    } cases[] = {
        /* offsets */
        {"{" F32("a", "[2]", 0, 8) "}", 7, "data_offsets [0, 8] do not lie in the 7 bytes"},
        {"{" F32("a", "[2]", 0, 8) "}", 0, "do not lie"},
        {"{" F32("a", "[2]", 0, 8) "}", 9, "1 bytes after the last tensor"},
        {"{}", 1, "1 bytes after"},
        {"{" F32("a", "[2]", 8, 0) "}", 8, "do not lie"},
        {"{" F32("a", "[0]", 9, 9) "}", 8, "do not lie"},
        {"{" F32("a", "[2]", 18446744073709551608, 18446744073709551615) "}", 8, "do not lie"},
        {"{" F32("a", "[2]", 0, 18446744073709551615) "}", 8, "do not lie"},
        {"{" F32("a", "[2]", 0, 18446744073709551616) "}", 8, "number of 2^64 or more"},
        {"{" F32("a", "[2]", 0, 8) "," F32("b", "[2]", 4, 12) "}", 12, "overlaps"},
        {"{" F32("a", "[2]", 0, 8) "," F32("b", "[2]", 0, 8) "}", 8, "overlaps"},
        {"{" F32("a", "[4]", 0, 16) "," F32("b", "[1]", 4, 8) "}", 16, "overlaps"},
        {"{" F32("a", "[2]", 0, 8) "," F32("b", "[2]", 12, 20) "}", 20, "gap"},
        {"{" F32("a", "[2]", 4, 12) "}", 12, "gap"},
        {"{" F32("a", "[2]", 0, 8) "," F32("b", "[0]", 4, 4) "}", 8, "overlaps"},
        /* shapes */
        {"{" F32("a", "[3]", 0, 8) "}", 8, "need 12 bytes, data_offsets hold 8"},
        {"{" F32("a", "[]", 0, 8) "}", 8, "need 4 bytes"},
        {"{" F32("a", "[1152921504606846976,1152921504606846976]", 0, 8) "}", 8, "2^64 or more"},
        {"{" F32("a", "[1152921504606846976,16]", 0, 0) "}", 0, "2^64 or more"},    /* wraps to 0 */
        {"{" F32("a", "[4611686018427387904]", 0, 0) "}", 0, "2^64 or more bytes"}, /* x 4 = 2^64 */
        {"{" F32("a", "[4294967296,4294967296]", 0, 0) "}", 0, "2^64 or more"},
        {"{" F32("a", "[4294967296,4294967296,0]", 0, 0) "}", 0, "2^64 or more"},
        {"{" F32("a", "[18446744073709551615]", 0, 8) "}", 8, "2^64 or more bytes"},
        {"{" F32("a", "[1,1,1,1,1,1,1,1,2]", 0, 8) "}", 8, "more than 8 dimensions"},
        {"{" F32("a", "[-2]", 0, 8) "}", 8, "expected a whole number"},
        {"{" F32("a", "[2.0]", 0, 8) "}", 8, "fraction"},
        {"{" F32("a", "[2e0]", 0, 8) "}", 8, "exponent"},
        {"{" F32("a", "[02]", 0, 8) "}", 8, "leading zero"},
        {"{" F32("a", "[\"2\"]", 0, 8) "}", 8, "expected a whole number"},
        {"{" F32("a", "[2,]", 0, 8) "}", 8, "expected a whole number"},
        {"{" F32("a", "2", 0, 8) "}", 8, "expected ["},
        {"{" F32("a", "null", 0, 8) "}", 8, "expected ["},
        {"{" F32("a", "[99999999999999999999999]", 0, 8) "}", 8, "2^64"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(cases[i].header, cases[i].data, cases[i].words);
    print_message("# %zu files with wrong sizes refused\n", sizeof cases / sizeof *cases);
}

static void test_header_text(void **state) {
    (void)state;
    static const struct {
        const char *header, *words;
    } cases[] = {
        {"", "expected {"},
        {"[]", "expected {"},
        {"null", "expected {"},
        {"  ", "expected {"},
        {"{", "expected a string"},
        {"{\"a\"", "expected :"},
        {"{\"a\":", "expected {"},
        {"{\"a\":1}", "expected {"},
        {"{\"a\":{}}", "expected a string"},
        {"{" F32("a", "[2]", 0, 8), "expected , or }"},
        {"{" F32("a", "[2]", 0, 8) "}x", "text after the end"},
        {"{" F32("a", "[2]", 0, 8) "}{}", "text after the end"},
        {"{" F32("a", "[2]", 0, 8) ",}", "expected a string"},
        {"{," F32("a", "[2]", 0, 8) "}", "expected a string"},
        {"{" F32("a", "[2]", 0, 8) " " F32("b", "[0]", 8, 8) "}", "expected , or }"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", "without dtype, shape or data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", "without dtype"},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", "without dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         "given twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"shape\":[2],\"data_offsets\":[0,8]}}",
         "given twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"more\":1}}",
         "unknown key"},
        {"{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", "expected a string"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", "unexpected character"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", "expected , or ]"},
        {"{\"a\":{\"dtype\":\"\\u001b[2J\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         "dtype is not a name"},
        /* names */
        {"{" F32("a", "[1]", 0, 4) "," F32("a", "[1]", 4, 8) "}", "tensor a is given twice"},
        {"{" F32("ab", "[1]", 0, 4) "," F32("\\u0061b", "[1]", 4, 8) "}", "given twice"},
        {"{" F32("", "[2]", 0, 8) "}", "name before byte"},
        {"{" F32("a\\u0000", "[2]", 0, 8) "}", "U+0000"},
        {"{" F32("a\\u001b[31m", "[2]", 0, 8) "}", "control characters"},
        {"{" F32("a\\n", "[2]", 0, 8) "}", "control characters"},
        {"{" F32("a\\u009b", "[2]", 0, 8) "}", "control characters"},
        {"{" F32("a\n", "[2]", 0, 8) "}", "control character"},
        {"{" F32("a\\ud800", "[2]", 0, 8) "}", "surrogate"},
        {"{" F32("a\\udc00", "[2]", 0, 8) "}", "surrogate"},
        {"{" F32("a\\ud800\\u0041", "[2]", 0, 8) "}", "surrogate"},
        {"{" F32("a\\x41", "[2]", 0, 8) "}", "unknown escape"},
        {"{" F32("a\\u12g4", "[2]", 0, 8) "}", "bad \\u escape"},
        {"{\"a\\", "ends inside a string"},
        {"{\"a\\u12", "ends inside an escape"},
        {"{\"a", "ends inside a string"},
        {"{" F32("a\xff", "[2]", 0, 8) "}", "invalid UTF-8"},
        {"{" F32("a\xc3", "[2]", 0, 8) "}", "invalid UTF-8"},
        {"{" F32("a\xed\xa0\x80", "[2]", 0, 8) "}", "invalid UTF-8"},
        {"{" F32("a\xc0\x80", "[2]", 0, 8) "}", "invalid UTF-8"},
        /* metadata */
        {"{\"__metadata__\":{},\"__metadata__\":{}," F32("a", "[2]", 0, 8) "}", "given twice"},
        {"{\"__metadata__\":[]," F32("a", "[2]", 0, 8) "}", "expected {"},
        {"{\"__metadata__\":{\"a\":1}," F32("a", "[2]", 0, 8) "}", "expected a string"},
        {"{\"__metadata__\":{\"a\":{\"b\":{\"c\":{}}}}," F32("a", "[2]", 0, 8) "}",
         "expected a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(cases[i].header, 8, cases[i].words);
    print_message("# %zu malformed headers refused\n", sizeof cases / sizeof *cases);
    /* very deep, and a name above the limit */
    enum { DEEP = 1000000 };
    char *text = malloc(DEEP + 64);
    assert_non_null(text);
    strcpy(text, "{\"a\":");
    memset(text + 5, '[', DEEP);
    text[5 + DEEP] = 0;
    refuse(text, 0, "expected {");
    strcpy(text, "{\"");
    memset(text + 2, 'n', 1001);
    strcpy(text + 1003, "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}");
    refuse(text, 8, "longer than 1000 bytes");
    free(text);
}

static void test_header_length(void **state) {
    (void)state;
    static const struct {
        uint64_t length;
        const char *words;
    } lies[] = {{UINT64_MAX, "above the limit"},
                {UINT64_MAX - 7, "above the limit"},
                {(uint64_t)1 << 63, "above the limit"},
                {100000001, "above the limit"},
                {100000000, "larger than the file"},
                {200, "larger than the file"},
                {0, "expected {"},
                {10, "ends inside a string"}};
    const char *header = "{" F32("a", "[2]", 0, 8) "}";
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        image m = make_image(header, 8);
        for (int k = 0; k < 8; k++) m.bytes[k] = (unsigned char)(lies[i].length >> 8 * k);
        refuse_image(m, lies[i].words, "header length");
        free(m.bytes);
    }
    image m = make_image(header, 8);
    uint64_t above = m.size - 7; /* one more than there is */
    memcpy(m.bytes, &above, 8);
    refuse_image(m, "larger than the file", "header length");
    free(m.bytes);
    m = make_image(header, 8); /* every cut of a good file */
    for (size_t size = 0; size < m.size; size++) {
        unsigned char *cut = malloc(size ? size : 1);
        memcpy(cut, m.bytes, size);
        refuse_image((image){cut, size}, "", "cut file");
        free(cut);
    }
    print_message("# %zu cuts of a file refused\n", m.size);
    free(m.bytes);
}

/* Any one changed byte is refused or gives a file that keeps the bargain. */
static void test_changed_bytes(void **state) {
    (void)state;
    const char *header = "{\"__metadata__\":{\"format\":\"pt\"}," F32("a", "[2]", 0, 8) "," F32(
        "bc", "[1,2]", 8, 16) "}";
    image m = make_image(header, 16);
    int good = 0, bad = 0;
    for (size_t at = 0; at < m.size; at++) {
        for (int value = 0; value < 256; value++) {
            unsigned char old = m.bytes[at];
            lc_tensors *t;
            m.bytes[at] = (unsigned char)value;
            if (lc_tensors_parse(m.bytes, m.size, "m", &t, NULL) == LC_OK) {
                size_t sum = 0;
                for (size_t i = 0; i < lc_tensors_count(t); i++) {
                    const lc_tensor *x = lc_tensors_at(t, i);
                    const unsigned char *p = x->data;
                    assert_true(p >= m.bytes && p + x->size <= m.bytes + m.size);
                    assert_ptr_equal(lc_tensors_find(t, x->name), x);
                    sum += x->size;
                }
                assert_int_equal(sum, lc_tensors_bytes(t));
                lc_tensors_close(t);
                good++;
            } else {
                bad++;
            }
            m.bytes[at] = old;
        }
    }
    free(m.bytes);
    print_message("# of %d changed files %d refused\n", good + bad, bad);
    assert_true(bad > good);
}

static void test_accepted(void **state) {
    (void)state;
    static const char *const headers[] = {
        "{" F32("a", "[2]", 0, 8) "}",
        "{" F32("a", "[2]", 0, 8) "}      ",
        "\n{ " F32("a", "[ 2 ]", 0, 8) "\t}\r\n",
        "{\"a\":{\"data_offsets\":[0,8],\"shape\":[2,1],\"dtype\":\"F32\"}}",
        "{" F32("a", "[2]", 0, 8) "," F32("z", "[0]", 0, 0) "," F32("y", "[3,0]", 8, 8) "}",
        "{" F32("b", "[]", 4, 8) "," F32("a", "[1]", 0, 4) "}",
        "{\"__metadata__\":{\"format\":\"pt\",\"x\":\"\\\"{\"}," F32("a", "[2]", 0, 8) "}",
        "{" F32("a\\u00e9\\ud83d\\ude00\\/\\\"", "[2]", 0, 8) "}",
        "{" F32("a", "[1,1,1,1,1,1,1,2]", 0, 8) "}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        image m = make_image(headers[i], 8);
        lc_tensors *t;
        lc_err err = {0};
        assert_ok(lc_tensors_parse(m.bytes, m.size, "good", &t, &err), err);
        assert_int_equal(lc_tensors_bytes(t), 8);
        assert_null(lc_tensors_find(t, "absent"));
        assert_null(lc_tensors_find(t, ""));
        lc_tensors_close(t);
        free(m.bytes);
    }
    image m = make_image("{}", 0);
    lc_tensors *t;
    lc_err err = {0};
    assert_ok(lc_tensors_parse(m.bytes, m.size, "empty", &t, &err), err);
    assert_int_equal(lc_tensors_count(t), 0);
    assert_null(lc_tensors_find(t, "a"));
    lc_tensors_close(t);
    free(m.bytes);
    m = make_image(headers[7], 8);
    assert_ok(lc_tensors_parse(m.bytes, m.size, "escapes", &t, &err), err);
    assert_string_equal(lc_tensors_at(t, 0)->name, "a\xc3\xa9\xf0\x9f\x98\x80/\"");
    lc_tensors_close(t);
    free(m.bytes);
}

/* A dtype that is not read is no reason to refuse the file, only the tensor. */
static void test_unknown_dtype(void **state) {
    (void)state;
    image m =
        make_image("{\"q\":{\"dtype\":\"F4_E2M1\",\"shape\":[4,4],\"data_offsets\":[0,8]}}", 8);
    lc_tensors *t;
    lc_err err = {0};
    assert_ok(lc_tensors_parse(m.bytes, m.size, "new", &t, &err), err);
    const lc_tensor *q = lc_tensors_find(t, "q");
    assert_non_null(q);
    assert_int_equal(q->dtype, LC_DTYPE_COUNT);
    assert_string_equal(q->dtype_name, "F4_E2M1");
    assert_int_equal(q->size, 8);
    lc_tensors_close(t);
    free(m.bytes);
}

/* A folder for this program's files. */
static char folder[256];

static int make_folder(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/longcat-XXXXXX", base ? base : P_tmpdir);
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char command[320];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static const char *in_folder(const char *name, char out[512]) {
    snprintf(out, 512, "%s/%s", folder, name);
    return out;
}

static void write_bytes(const char *name, const void *bytes, size_t size) {
    char path[512];
    FILE *f = fopen(in_folder(name, path), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

static void write_image(const char *name, const char *header, size_t data) {
    image m = make_image(header, data);
    write_bytes(name, m.bytes, m.size);
    free(m.bytes);
}

static void write_text(const char *name, const char *text) {
    write_bytes(name, text, strlen(text));
}

static void refuse_open(const char *name, int want, const char *words) {
    char path[512];
    lc_tensors *t = NULL;
    lc_err err = {0};
    int status = lc_tensors_open(in_folder(name, path), &t, &err);
    if (status != want || t || !strstr(err.text, words))
        fail_msg("%s: status %d, text \"%s\", expected %d, \"%s\"", name, status, err.text, want,
                 words);
}

#define INDEX "model.safetensors.index.json"

static void test_shards(void **state) {
    (void)state;
    char path[512];
    lc_tensors *t;
    lc_err err = {0};
    write_image("s1.safetensors", "{" F32("a", "[2]", 0, 8) "," F32("c", "[0]", 0, 0) "}", 8);
    write_image("s2.safetensors", "{" F32("b", "[1]", 0, 4) "}", 4);
    write_text(INDEX, "{\"metadata\":{\"total_size\":12,\"x\":[[1,-2.5e3,true,null,{}]]},"
                      "\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}}");
    assert_ok(lc_tensors_open(folder, &t, &err), err);
    assert_true(lc_tensors_exist(folder));
    assert_int_equal(lc_tensors_count(t), 3);
    assert_int_equal(lc_tensors_bytes(t), 12);
    assert_string_equal(lc_tensors_at(t, 1)->name, "b");
    assert_non_null(strstr(lc_tensors_find(t, "b")->file, "s2.safetensors"));
    lc_tensors_close(t);
    assert_ok(lc_tensors_open(in_folder(INDEX, path), &t, &err), err);
    lc_tensors_close(t);

    static const struct {
        const char *map;
        int status;
        const char *words;
    } cases[] = {
        {"{\"a\":\"../s1.safetensors\"}", LC_EFORMAT, "not the name of a file beside the index"},
        {"{\"a\":\"/etc/passwd\"}", LC_EFORMAT, "not the name of a file"},
        {"{\"a\":\"x/../s1.safetensors\"}", LC_EFORMAT, "not the name of a file"},
        {"{\"a\":\"..\"}", LC_EFORMAT, "not the name of a file"},
        {"{\"a\":\".\"}", LC_EFORMAT, "not the name of a file"},
        {"{\"a\":\"\"}", LC_EFORMAT, "not the name of a file"},
        {"{\"a\":\"..\\\\s1.safetensors\"}", LC_EFORMAT, "not the name of a file"},
        {"{\"a\":\"s1\\u0001\"}", LC_EFORMAT, "not the name of a file"},
        {"{\"a\":\"s1.safetensors\\u0000x\"}", LC_EFORMAT, "U+0000"},
        {"{\"a\":\"s3.safetensors\"}", LC_ENOTFOUND, "shard s3.safetensors is missing"},
        {"{\"x\":\"s1.safetensors\"}", LC_EFORMAT, "tensor x is not in its shard s1.safetensors"},
        {"{\"a\":\"s2.safetensors\",\"b\":\"s1.safetensors\"}", LC_EFORMAT, "not in its shard"},
        {"{\"a\":\"s1.safetensors\",\"a\":\"s1.safetensors\"}", LC_EFORMAT, "a is given twice"},
        {"{\"a\":\"s1.safetensors\",\"\\u0061\":\"s2.safetensors\"}", LC_EFORMAT, "given twice"},
        {"{}", LC_EFORMAT, "no weight_map"},
        {"[]", LC_EFORMAT, "expected {"},
        {"{\"a\":1}", LC_EFORMAT, "expected a string"},
        {"{\"a\":\"s1.safetensors\"}}", LC_EFORMAT, "text after the end"},
        {"{\"a\":\"s1.safetensors\"},\"weight_map\":{}", LC_EFORMAT, "weight_map is given twice"},
        {"{\"a\":\"s1.safetensors\"", LC_EFORMAT, "expected , or }"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        snprintf(text, sizeof text, "{\"weight_map\":%s}", cases[i].map);
        write_text(INDEX, text);
        refuse_open(INDEX, cases[i].status, cases[i].words);
    }
    print_message("# %zu bad indexes refused\n", sizeof cases / sizeof *cases);
    write_image("s3.safetensors", "{" F32("a", "[2]", 0, 8) "}", 8); /* a again */
    write_text(INDEX, "{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s3.safetensors\"}}");
    refuse_open(INDEX, LC_EFORMAT, "tensor a is given twice, also in");
    write_text(INDEX, "{\"weight_map\":null}");
    refuse_open(INDEX, LC_EFORMAT, "expected {");
    write_text(INDEX, "{\"metadata\":{}}");
    refuse_open(INDEX, LC_EFORMAT, "no weight_map");
    char deep[300] = "{\"metadata\":";
    memset(deep + 12, '[', 200);
    write_text(INDEX, deep);
    refuse_open(INDEX, LC_EFORMAT, "nested too deeply");
    write_bytes("s2.safetensors", "12345678", 4);
    write_text(INDEX, "{\"weight_map\":{\"b\":\"s2.safetensors\"}}");
    refuse_open(INDEX, LC_EFORMAT, "4 bytes are too few");
    unlink(in_folder(INDEX, path));
    refuse_open("", LC_ENOTFOUND, "neither model.safetensors nor");
    assert_false(lc_tensors_exist(folder));
    refuse_open("absent", LC_ENOTFOUND, "absent");
    assert_int_equal(mkfifo(in_folder("pipe.safetensors", path), 0600), 0);
    refuse_open("pipe.safetensors", LC_EFORMAT, "not a regular file");
}

/* Values that a reader can check: element i of tensor k. */
static void fill(void *data, size_t size, size_t k) {
    unsigned char *p = data;
    for (size_t i = 0; i < size; i++) p[i] = (unsigned char)(i * 7 + k * 13 + 1);
}

static void test_round_trip(void **state) {
    (void)state;
    enum { N = 24 };
    lc_tensor tensors[N] = {0};
    char names[N][64], path[512];
    lc_err err = {0};
    for (size_t k = 0; k < N; k++) {
        lc_tensor *t = &tensors[k];
        snprintf(names[k], sizeof names[k], k % 5 ? "layer.%zu.\xc3\xa9" : "q\"\\%zu", k);
        t->name = names[k];
        t->dtype = (lc_dtype)(k % LC_DTYPE_COUNT);
        t->rank = (int)(k % (LC_MAX_RANK + 1));
        size_t count = 1;
        for (int d = 0; d < t->rank; d++) {
            t->shape[d] = k == 17 && d == 1 ? 0 : 1 + (k + (size_t)d) % 3;
            count *= t->shape[d];
        }
        t->size = count * lc_dtype_size(t->dtype);
        void *data = malloc(t->size + 1);
        fill(data, t->size, k);
        t->data = data;
    }
    in_folder("round.safetensors", path);
    write_text("round.safetensors", "old");
    assert_ok(lc_safetensors_write(path, tensors, N, &err), err);
    char part[600];
    snprintf(part, sizeof part, "%s.part", path);
    assert_int_equal(access(part, F_OK), -1);
    lc_tensors *t;
    assert_ok(lc_tensors_open(path, &t, &err), err);
    assert_int_equal(lc_tensors_count(t), N);
    for (size_t k = 0; k < N; k++) {
        const lc_tensor *got = lc_tensors_find(t, names[k]), *want = &tensors[k];
        assert_non_null(got);
        assert_int_equal(got->dtype, want->dtype);
        assert_int_equal(got->rank, want->rank);
        assert_memory_equal(got->shape, want->shape, sizeof got->shape);
        assert_int_equal(got->size, want->size);
        if (want->size) assert_memory_equal(got->data, want->data, want->size);
        assert_int_equal((uintptr_t)got->data % lc_dtype_size(got->dtype), 0);
        for (size_t n = 1; n <= 64; n *= 2) /* as aligned as the size allows */
            if (got->size % n == 0) assert_int_equal((uintptr_t)got->data % n, 0);
        free((void *)(uintptr_t)want->data);
    }
    lc_tensors_close(t);
    FILE *f = fopen(path, "rb");
    unsigned char head[8];
    assert_int_equal(fread(head, 1, 8, f), 8);
    fclose(f);
    assert_int_equal((head[0] + 8) % 64, 0); /* header padded */
    assert_ok(lc_safetensors_write(path, NULL, 0, &err), err);
    assert_ok(lc_tensors_open(path, &t, &err), err);
    assert_int_equal(lc_tensors_count(t), 0);
    lc_tensors_close(t);
}

/* In pieces, backwards, the bytes are those of the file that is written at once. */
static void test_pieces(void **state) {
    (void)state;
    unsigned char data[3][48];
    static const lc_dtype types[3] = {LC_U8, LC_F32, LC_BF16};
    char once[512], pieces[512], part[600];
    lc_tensor tensors[3];
    lc_safetensors_file *f;
    lc_err err = {0};
    for (size_t k = 0; k < 3; k++) {
        fill(data[k], sizeof data[k], k);
        tensors[k] = (lc_tensor){
            .name = (const char *[]){"b", "c", "a"}[k],
            .dtype = types[k],
            .rank = 2,
            .shape = {4, 12 / lc_dtype_size(types[k])},
            .data = data[k],
        };
    }
    in_folder("once.safetensors", once);
    in_folder("pieces.safetensors", pieces);
    snprintf(part, sizeof part, "%s.part", pieces);
    assert_ok(lc_safetensors_write(once, tensors, 3, &err), err);
    for (size_t k = 0; k < 3; k++) tensors[k].data = NULL;
    assert_ok(lc_safetensors_create(pieces, tensors, 3, &f, &err), err);
    for (size_t k = 3; k-- > 0;)
        for (size_t at = 48; at > 0; at -= 16)
            assert_ok(lc_safetensors_put(f, k, at - 16, data[k] + at - 16, 16, &err), err);
    assert_int_equal(lc_safetensors_put(f, 3, 0, data, 1, &err), LC_EINVAL);
    assert_int_equal(lc_safetensors_put(f, 0, 40, data, 9, &err), LC_EINVAL);
    assert_int_equal(lc_safetensors_put(f, 0, 49, data, 0, &err), LC_EINVAL);
    assert_int_equal(access(pieces, F_OK), -1);
    assert_ok(lc_safetensors_commit(f, &err), err);
    lc_buf a = {0}, b = {0};
    assert_ok(lc_file_read(once, 0, &a, &err), err);
    assert_ok(lc_file_read(pieces, 0, &b, &err), err);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    lc_buf_free(&a);
    lc_buf_free(&b);
    /* What isn't complete doesn't take the name. */
    unlink(pieces);
    assert_ok(lc_safetensors_create(pieces, tensors, 3, &f, &err), err);
    assert_ok(lc_safetensors_put(f, 1, 0, data[1], 47, &err), err);
    assert_int_equal(lc_safetensors_commit(f, &err), LC_EINVAL);
    assert_non_null(strstr(err.text, "47 of 144 bytes"));
    assert_ok(lc_safetensors_create(pieces, tensors, 3, &f, &err), err);
    assert_int_equal(access(part, F_OK), 0);
    lc_safetensors_discard(f);
    lc_safetensors_discard(NULL);
    assert_int_equal(access(pieces, F_OK), -1);
    assert_int_equal(access(part, F_OK), -1);
}

static void test_writer_refuses(void **state) {
    (void)state;
    float data[4] = {1, 2, 3, 4};
    char path[512], part[600];
    lc_err err = {0};
    in_folder("w.safetensors", path);
    snprintf(part, sizeof part, "%s.part", path);
    lc_tensor good = {.name = "a", .dtype = LC_F32, .rank = 1, .shape = {4}, .data = data};
    lc_tensor twice[2] = {good, good}, t;
    assert_int_equal(lc_safetensors_write(path, twice, 2, &err), LC_EINVAL);
    static const char *const names[] = {"", "__metadata__", "a\n", "a\x1b", "\xff"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        t = good;
        t.name = names[i];
        assert_int_equal(lc_safetensors_write(path, &t, 1, &err), LC_EINVAL);
    }
    t = good, t.dtype = LC_DTYPE_COUNT;
    assert_int_equal(lc_safetensors_write(path, &t, 1, &err), LC_EINVAL);
    t = good, t.rank = 9;
    assert_int_equal(lc_safetensors_write(path, &t, 1, &err), LC_EINVAL);
    t = good, t.data = NULL;
    assert_int_equal(lc_safetensors_write(path, &t, 1, &err), LC_EINVAL);
    t = good, t.rank = 2, t.shape[0] = t.shape[1] = (size_t)1 << 33;
    assert_int_equal(lc_safetensors_write(path, &t, 1, &err), LC_ELIMIT);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access(part, F_OK), -1);
    assert_int_equal(lc_safetensors_write("tests/absent/x.safetensors", &good, 1, &err), LC_EIO);
    assert_non_null(strstr(err.text, "tests/absent/x.safetensors"));
    /* a full disk: the old file stays, the part goes */
    if (!access("/dev/full", W_OK) && !symlink("/dev/full", part)) {
        write_text("w.safetensors", "old");
        assert_int_equal(lc_safetensors_write(path, &good, 1, &err), LC_EIO);
        assert_int_equal(access(part, F_OK), -1);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, 3);
        unlink(path);
    }
}

static void test_golden_files(void **state) {
    (void)state;
    static const struct {
        const char *path;
        size_t count, bytes;
    } files[] = {
        {"tests/golden/model/two-tiny", 202, 2750584},
        {"tests/golden/model/two-tiny-bf16", 202, 1384944}, /* total_size of the index */
        {"tests/golden/model/two-tiny-bf16/model.safetensors.index.json", 202, 1384944},
        {"tests/golden/model/lite-odd/model.safetensors", 106, 4772192},
        {"tests/golden/model/ops/ops.safetensors", 120, 199501},
        {"tests/golden/tiny-code", 348, 26834432},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        lc_tensors *t;
        lc_err err = {0};
        assert_ok(lc_tensors_open(files[i].path, &t, &err), err);
        assert_int_equal(lc_tensors_count(t), files[i].count);
        assert_int_equal(lc_tensors_bytes(t), files[i].bytes);
        for (size_t k = 1; k < lc_tensors_count(t); k++)
            assert_true(strcmp(lc_tensors_at(t, k - 1)->name, lc_tensors_at(t, k)->name) < 0);
        lc_tensors_close(t);
    }
}

/* The header of 2.0: 88,780 entries must not take quadratic time. */
static void test_many_tensors(void **state) {
    (void)state;
    enum { N = 88780 };
    lc_tensor *tensors = calloc(N, sizeof *tensors);
    char(*names)[64] = calloc(N, sizeof *names), path[512];
    uint16_t value = 0x3f80;
    lc_err err = {0};
    lc_tensors *t;
    for (size_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "model.layers.%zu.mlp.experts.%zu.up_proj.weight",
                 i * 7919 % N / 768, i * 7919 % N % 768);
        tensors[i] = (lc_tensor){.name = names[i], .dtype = LC_BF16, .data = &value};
    }
    in_folder("many.safetensors", path);
    assert_ok(lc_safetensors_write(path, tensors, N, &err), err);
    assert_ok(lc_tensors_open(path, &t, &err), err);
    assert_int_equal(lc_tensors_count(t), N);
    for (size_t i = 0; i < N; i++) assert_non_null(lc_tensors_find(t, names[i]));
    lc_tensors_close(t);
    free(tensors);
    free(names);
}

static void test_allocation_failures(void **state) {
    (void)state;
    size_t before = lc_mem_current();
    char path[512];
    float data[4] = {1, 2, 3, 4};
    lc_tensor t = {.name = "a", .dtype = LC_F32, .rank = 1, .shape = {4}, .data = data};
    in_folder("alloc.safetensors", path);
    for (int what = 0, failures = 0; what < 2; what++, failures = 0) {
        for (long n = 0;; n++) {
            lc_err err = {0};
            lc_tensors *tensors = NULL;
            lc_mem_fail_after(n);
            int status = what ? lc_safetensors_write(path, &t, 1, &err)
                              : lc_tensors_open("tests/golden/model/two-tiny-bf16", &tensors, &err);
            lc_mem_fail_after(-1);
            lc_tensors_close(tensors);
            assert_int_equal(lc_mem_current(), before);
            if (status == LC_OK) break;
            assert_int_equal(status, LC_ENOMEM);
            failures++;
        }
        assert_true(failures > 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_and_offsets),
        cmocka_unit_test(test_header_text),
        cmocka_unit_test(test_header_length),
        cmocka_unit_test(test_changed_bytes),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_unknown_dtype),
        cmocka_unit_test_setup_teardown(test_shards, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_round_trip, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_pieces, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_writer_refuses, make_folder, remove_folder),
        cmocka_unit_test(test_golden_files),
        cmocka_unit_test_setup_teardown(test_many_tensors, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_allocation_failures, make_folder, remove_folder),
    };
    return test_main(tests);
}
