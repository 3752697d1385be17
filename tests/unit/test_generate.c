/*
 * test_generate.c: the loop of sampling, stopping and decoding, on the bundled model in f32, whose
 * greedy continuations are known from tests/golden/tiny-code. What the callback gets is put
 * together and compared with the known text.
 */
#include "golden/golden.h"

#include "base/utf8.h"

#define MODEL "tests/golden/tiny-code"

enum { MOST = 128, WINDOW = 48 };

static lc_engine *engine;
static lc_session *session;

/* What a generation gave. */
typedef struct output {
    lc_buf text;
    int32_t tokens[MOST], told[MOST]; /* the result, and what the callback was told */
    size_t count, n_told, rests, cancel_at;
    lc_finish finish;
} output;

static bool valid_utf8(const char *text, size_t len) {
    for (size_t i = 0, used; i < len; i += used)
        if (lc_utf8_decode(text + i, len - i, &used) < 0) return false;
    return true;
}

static int on_token(void *ctx, int32_t token, const char *text, size_t len) {
    output *o = ctx;
    assert_true(text && text[len] == 0 && strlen(text) == len && valid_utf8(text, len));
    assert_true(lc_buf_append(&o->text, text, len));
    if (token < 0) {
        assert_true(len > 0 && o->rests == 0);
        o->rests++;
    } else {
        assert_true(o->rests == 0 && o->n_told < MOST);
        o->told[o->n_told++] = token;
    }
    return o->cancel_at && o->n_told == o->cancel_at;
}

static int generate(const int32_t *prompt, size_t count, lc_generation how, output *o,
                    lc_err *err) {
    lc_buf_clear(&o->text);
    assert_true(lc_buf_reserve(&o->text, 0));
    o->n_told = o->rests = 0;
    how.on_token = on_token;
    how.ctx = o;
    return lc_generate(session, prompt, count, &how, o->tokens, &o->count, &o->finish, err);
}

/* A text of the golden folder: prompt, greedy ids, greedy text. */
typedef struct known {
    golden g;
    size_t n_prompt;
    int32_t *prompt, *greedy;
    const char *text;
} known;

static void known_open(known *k, size_t text) {
    char name[48];
    struct json_object *texts = NULL, *value = NULL;
    golden_open(&k->g, "tests/golden/tiny-code");
    snprintf(name, sizeof name, "%zu.ids", text);
    k->n_prompt = golden_get(&k->g, name)->count;
    k->prompt = golden_ids(golden_get(&k->g, name));
    snprintf(name, sizeof name, "%zu.greedy.ids", text);
    k->greedy = golden_ids(golden_get(&k->g, name));
    assert_true(json_object_object_get_ex(k->g.json, "texts", &texts));
    assert_true(
        json_object_object_get_ex(json_object_array_get_idx(texts, text), "greedy_text", &value));
    k->text = json_object_get_string(value);
}

static void known_close(known *k) {
    lc_free(k->prompt);
    lc_free(k->greedy);
    golden_close(&k->g);
}

static void decode(const int32_t *ids, size_t count, bool skip_special, lc_buf *out) {
    lc_err err = {0};
    lc_buf_clear(out);
    assert_true(lc_buf_reserve(out, 0));
    assert_ok(lc_tokenizer_decode(engine->tokenizer, ids, count, skip_special, out, &err), err);
}

static void the_known_text(void **unused) {
    (void)unused;
    output o = {0};
    lc_err err = {0};
    for (size_t text = 0; text < 3; text += 2) {
        known k;
        known_open(&k, text);
        assert_ok(generate(k.prompt, k.n_prompt, (lc_generation){.max_tokens = MOST}, &o, &err),
                  err);
        assert_int_equal(o.count, MOST);
        assert_int_equal(o.n_told, MOST);
        assert_int_equal(o.finish, LC_FINISH_LENGTH);
        assert_memory_equal(o.tokens, k.greedy, sizeof o.tokens);
        assert_memory_equal(o.told, k.greedy, sizeof o.told);
        assert_string_equal(o.text.data, k.text);
        known_close(&k);
    }
    lc_buf_free(&o.text);
}

/* ---- stop strings ---- */

/* Tokens after which the text holds one of the strings; count if never. */
static size_t tokens_until(const int32_t *ids, size_t count, const char *const *stop,
                           size_t n_stop) {
    lc_buf text = {0};
    size_t n = 1;
    for (bool found = false; n <= count && !found; n += !found) {
        decode(ids, n, true, &text);
        for (size_t i = 0; i < n_stop; i++) found |= *stop[i] && strstr(text.data, stop[i]) != NULL;
    }
    lc_buf_free(&text);
    return n < count ? n : count;
}

/* Generates WINDOW tokens with stop strings: the text must end before the first string that is
 * complete after the fewest tokens, and generation with it. */
static void check_stops(const known *k, const char *const *stop, size_t n_stop, output *o) {
    lc_err err = {0};
    lc_buf text = {0};
    size_t n = tokens_until(k->greedy, WINDOW, stop, n_stop);
    decode(k->greedy, n, true, &text);
    size_t end = text.len;
    bool stopped = false;
    for (size_t i = 0; i < n_stop; i++) {
        const char *at = *stop[i] ? strstr(text.data, stop[i]) : NULL; /* "" is no string */
        stopped |= at != NULL;
        if (at && (size_t)(at - text.data) < end) end = (size_t)(at - text.data);
    }
    lc_generation how = {.max_tokens = WINDOW, .stop = stop, .n_stop = n_stop};
    assert_ok(generate(k->prompt, k->n_prompt, how, o, &err), err);
    if (o->text.len != end || memcmp(o->text.data, text.data, end))
        fail_msg("stop \"%s\": text \"%s\", expected \"%.*s\"", stop[0], o->text.data, (int)end,
                 text.data);
    assert_int_equal(o->count, n);
    assert_int_equal(o->n_told, n);
    assert_int_equal(o->finish, stopped ? LC_FINISH_STOP : LC_FINISH_LENGTH);
    lc_buf_free(&text);
}

static char *piece(const char *text, size_t from, size_t len, const char *end) {
    lc_buf b = {0};
    assert_true(from + len <= strlen(text));
    assert_true(lc_buf_append(&b, text + from, len) && lc_buf_puts(&b, end));
    return b.data;
}

static void stop_strings(void **unused) {
    (void)unused;
    output o = {0};
    known k;
    known_open(&k, 0);
    size_t tried = 0;
    for (size_t from = 0; from < 60; from += 7) /* some inside of a token, some over several */
        for (size_t len = 1; len < 30; len += 9) {
            char *stop = piece(k.text, from, len, "");
            check_stops(&k, (const char *const *)&stop, 1, &o);
            lc_free(stop);
            tried++;
        }
    const char *absent[] = {"never in this text", "\xff", ""};
    check_stops(&k, absent, 3, &o);
    printf("# %zu stop strings\n", tried);
    lc_buf_free(&o.text);
    known_close(&k);
}

/* A string that has begun must not hide another one that is complete. */
static void stop_strings_that_overlap(void **unused) {
    (void)unused;
    output o = {0};
    known k;
    known_open(&k, 0);
    for (size_t from = 3; from < 60; from += 11) {
        char *begun = piece(k.text, from, 40, "\x01"), *inside = piece(k.text, from + 4, 6, ""),
             *later = piece(k.text, from + 12, 3, "");
        const char *lists[][3] = {
            {begun, inside, later}, {inside, begun, later}, {later, begun, inside}};
        for (size_t i = 0; i < 3; i++) check_stops(&k, lists[i], 3, &o);
        check_stops(&k, &lists[0][0], 1, &o);
        lc_free(begun);
        lc_free(inside);
        lc_free(later);
    }
    lc_buf_free(&o.text);
    known_close(&k);
}

/* Text that was held back because a stop string might have begun comes out at the end. */
static void held_text_comes_out(void **unused) {
    (void)unused;
    output o = {0};
    lc_err err = {0};
    lc_buf text = {0};
    known k;
    known_open(&k, 0);
    decode(k.greedy, WINDOW, true, &text);
    char *stop = piece(text.data, text.len - 9, 9, "\x01");
    lc_generation how = {.max_tokens = WINDOW, .stop = (const char *const *)&stop, .n_stop = 1};
    assert_ok(generate(k.prompt, k.n_prompt, how, &o, &err), err);
    assert_string_equal(o.text.data, text.data);
    assert_int_equal(o.rests, 1);
    assert_int_equal(o.count, WINDOW);
    lc_free(stop);
    lc_buf_free(&text);
    lc_buf_free(&o.text);
    known_close(&k);
}

/* ---- the end of a sequence ---- */

static void encode(const char *text, lc_ids *ids) {
    lc_err err = {0};
    assert_ok(
        lc_tokenizer_encode(engine->tokenizer, text, strlen(text), LC_ENCODE_ALL, false, ids, &err),
        err);
}

/* Samples of tests/golden/tiny-code/README.md. */
static void eos_ends_the_text(void **unused) {
    (void)unused;
    static const struct {
        const char *prompt, *text;
    } samples[] = {
        {"<longcat_user>Hello<longcat_assistant>", "You are welcome."},
        {"<longcat_user>What is 12 + 30?<longcat_assistant>",
         "I have the same architecture as LongCat-2.0 architecture, trained on open source code."},
    };
    output o = {0};
    lc_err err = {0};
    for (size_t i = 0; i < 2; i++) {
        lc_ids ids = {0};
        encode(samples[i].prompt, &ids);
        assert_ok(generate(ids.data, ids.len, (lc_generation){.max_tokens = MOST}, &o, &err), err);
        assert_string_equal(o.text.data, samples[i].text);
        assert_int_equal(o.finish, LC_FINISH_STOP);
        size_t length = o.count;
        for (size_t j = 0; j < length; j++) assert_true(o.tokens[j] != 2);

        /* ignored: the same tokens, then the EOS itself and more; it has no text by default */
        lc_generation on = {.max_tokens = length + 3, .ignore_eos = true};
        assert_ok(generate(ids.data, ids.len, on, &o, &err), err);
        assert_int_equal(o.count, length + 3);
        assert_int_equal(o.tokens[length], 2);
        assert_int_equal(o.finish, LC_FINISH_LENGTH);
        assert_memory_equal(o.text.data, samples[i].text, strlen(samples[i].text));
        assert_null(strstr(o.text.data, "</longcat_s>"));
        on.special_text = true;
        assert_ok(generate(ids.data, ids.len, on, &o, &err), err);
        assert_ptr_equal(strstr(o.text.data, "</longcat_s>"),
                         o.text.data + strlen(samples[i].text));
        lc_ids_free(&ids);
    }
    lc_buf_free(&o.text);
}

static void stop_tokens(void **unused) {
    (void)unused;
    output o = {0};
    lc_err err = {0};
    known k;
    known_open(&k, 0);
    for (size_t at = 0; at < 20; at += 6) {
        size_t first = 0;
        while (k.greedy[first] != k.greedy[at]) first++;
        int32_t stops[] = {4000, k.greedy[at]};
        lc_generation how = {
            .max_tokens = MOST, .ignore_eos = true, .stop_tokens = stops, .n_stop_tokens = 2};
        assert_ok(generate(k.prompt, k.n_prompt, how, &o, &err), err);
        assert_int_equal(o.count, first);
        assert_int_equal(o.finish, LC_FINISH_STOP);
        assert_memory_equal(o.tokens, k.greedy, first * sizeof *o.tokens);
    }
    lc_buf_free(&o.text);
    known_close(&k);
}

/* ---- sampling inside the loop ---- */

/* Hot sampling gives bytes in any order: what comes out is whole characters all the same. */
static void random_text_is_utf8(void **unused) {
    (void)unused;
    output a = {0}, b = {0};
    lc_err err = {0};
    lc_buf text = {0};
    known k;
    known_open(&k, 1);
    lc_logit_bias bytes[128]; /* the bytes from 0x80 on are likely */
    for (int i = 0; i < 128; i++) bytes[i] = (lc_logit_bias){22 + 128 + i, 12};
    for (uint64_t seed = 1; seed <= 3; seed++) {
        lc_generation how = {
            .max_tokens = 100,
            .sampling = {.temperature = 3, .seed = seed, .bias = bytes, .n_bias = 128}};
        assert_ok(generate(k.prompt, 40, how, &a, &err), err);
        decode(a.tokens, a.count, true, &text);
        assert_string_equal(a.text.data, text.data);
        assert_non_null(strstr(a.text.data, "\xef\xbf\xbd")); /* and some were no characters */

        /* the same again, and from the middle: a token depends on seed and position only */
        lc_session *fresh, *kept = session;
        assert_ok(lc_session_open(engine, &fresh, &err), err);
        session = fresh;
        int32_t longer[60];
        memcpy(longer, k.prompt, 40 * sizeof *longer);
        memcpy(longer + 40, a.tokens, 20 * sizeof *longer);
        how.max_tokens = 80;
        assert_ok(generate(longer, 60, how, &b, &err), err);
        assert_int_equal(b.count, a.count - 20);
        assert_memory_equal(b.tokens, a.tokens + 20, b.count * sizeof *b.tokens);
        lc_session_close(fresh);
        session = kept;
    }
    lc_buf_free(&a.text);
    lc_buf_free(&b.text);
    lc_buf_free(&text);
    known_close(&k);
}

static void bias_forces_and_forbids(void **unused) {
    (void)unused;
    output o = {0};
    lc_err err = {0};
    known k;
    known_open(&k, 0);
    lc_logit_bias force = {777, 1e6f}, forbid = {k.greedy[0], -INFINITY};
    lc_generation how = {.max_tokens = 4, .sampling = {.bias = &force, .n_bias = 1}};
    assert_ok(generate(k.prompt, 30, how, &o, &err), err);
    for (size_t i = 0; i < 4; i++) assert_int_equal(o.tokens[i], 777);
    how.sampling.bias = &forbid;
    assert_ok(generate(k.prompt, k.n_prompt, how, &o, &err), err);
    for (size_t i = 0; i < 4; i++) assert_true(o.tokens[i] != k.greedy[0]);
    /* the presence penalty counts what was generated, not the prompt */
    how.sampling = (lc_sampling){.presence_penalty = 1000};
    how.max_tokens = 40;
    assert_ok(generate(k.prompt, k.n_prompt, how, &o, &err), err);
    assert_int_equal(o.tokens[0], k.greedy[0]);
    for (size_t i = 0; i < o.count; i++)
        for (size_t j = 0; j < i; j++) assert_true(o.tokens[i] != o.tokens[j]);
    lc_buf_free(&o.text);
    known_close(&k);
}

/* ---- limits and errors ---- */

static void expect(int status, int want, const lc_err *err, const char *text) {
    assert_int_equal(status, want);
    if (!strstr(err->text, text)) fail_msg("\"%s\" doesn't say \"%s\"", err->text, text);
}

static void cancelling(void **unused) {
    (void)unused;
    output o = {.cancel_at = 5};
    lc_err err = {0};
    known k;
    known_open(&k, 0);
    int status = generate(k.prompt, k.n_prompt, (lc_generation){.max_tokens = MOST}, &o, &err);
    expect(status, LC_ECANCELED, &err, "cancelled");
    assert_int_equal(o.count, 5);
    assert_memory_equal(o.tokens, k.greedy, 5 * sizeof *o.tokens);
    o.cancel_at = 0;
    assert_ok(generate(k.prompt, k.n_prompt, (lc_generation){.max_tokens = 9}, &o, &err), err);
    assert_memory_equal(o.tokens, k.greedy, 9 * sizeof *o.tokens);
    lc_buf_free(&o.text);
    known_close(&k);
}

static void the_context_ends(void **unused) {
    (void)unused;
    output o = {0};
    lc_err err = {0};
    known k;
    known_open(&k, 0);
    lc_engine *kept_engine = engine;
    lc_session *kept = session;
    engine = golden_engine(MODEL, (golden_engine_options){.context = 40});
    assert_ok(lc_session_open(engine, &session, &err), err);
    lc_generation how = {.max_tokens = MOST, .ignore_eos = true};
    assert_ok(generate(k.prompt, 30, how, &o, &err), err);
    assert_int_equal(o.count, 11); /* the last token needs no place in the cache */
    assert_int_equal(o.finish, LC_FINISH_LENGTH);
    assert_ok(generate(k.prompt, 40, how, &o, &err), err);
    assert_int_equal(o.count, 1);
    expect(generate(k.prompt, 41, how, &o, &err), LC_ELIMIT, &err, "41");
    assert_int_equal(o.count, 0);
    assert_ok(generate(k.prompt, 30, how, &o, &err), err); /* and on it goes */
    assert_int_equal(o.count, 11);
    lc_session_close(session);
    lc_engine_close(engine);
    engine = kept_engine;
    session = kept;
    lc_buf_free(&o.text);
    known_close(&k);
}

static void wrong_arguments(void **unused) {
    (void)unused;
    output o = {0};
    lc_err err = {0};
    int32_t prompt[] = {5, 6, 7}, wrong[] = {5, 4096}, token;
    const char *stops[17];
    for (size_t i = 0; i < 17; i++) stops[i] = "x";
    lc_generation how = {.max_tokens = 3};
    expect(generate(prompt, 0, how, &o, &err), LC_EINVAL, &err, "empty");
    expect(generate(wrong, 2, how, &o, &err), LC_EINVAL, &err, "4096");
    how.max_tokens = 0;
    assert_ok(generate(prompt, 3, how, &o, &err), err);
    assert_int_equal(o.count, 0);
    how = (lc_generation){.max_tokens = 3, .stop = stops, .n_stop = 17};
    expect(generate(prompt, 3, how, &o, &err), LC_ELIMIT, &err, "16");
    how = (lc_generation){.max_tokens = 3, .sampling = {.temperature = NAN}};
    expect(generate(prompt, 3, how, &o, &err), LC_EINVAL, &err, "temperature");
    how.sampling = (lc_sampling){.temperature = 1, .top_p = INFINITY};
    expect(generate(prompt, 3, how, &o, &err), LC_EINVAL, &err, "top_p");
    lc_logit_bias bias = {4096, 1};
    how.sampling = (lc_sampling){.bias = &bias, .n_bias = 1};
    expect(generate(prompt, 3, how, &o, &err), LC_EINVAL, &err, "4096");
    bias = (lc_logit_bias){1, NAN};
    expect(generate(prompt, 3, how, &o, &err), LC_EINVAL, &err, "bias");
    lc_session *fresh;
    lc_sampling greedy = {0};
    assert_ok(lc_session_open(engine, &fresh, &err), err);
    expect(lc_session_sample(fresh, &greedy, 0, &token, &err), LC_EINVAL, &err, "synced");
    assert_null(lc_session_logits(fresh));
    lc_session_close(fresh);
    lc_buf_free(&o.text);
}

static int told_no_text(void *ctx, int32_t token, const char *text, size_t len) {
    assert_true(token >= 0 && !text && !len);
    ++*(size_t *)ctx;
    return 0;
}

static void a_model_without_tokenizer(void **unused) {
    (void)unused;
    lc_err err = {0};
    lc_engine *other = golden_engine("tests/golden/model/flash-tiny", (golden_engine_options){0});
    lc_session *s;
    int32_t prompt[] = {5, 6, 7}, out[8];
    size_t count, told = 0;
    lc_finish finish;
    const char *stop = "x";
    lc_generation how = {
        .max_tokens = 8, .ignore_eos = true, .on_token = told_no_text, .ctx = &told};
    assert_ok(lc_session_open(other, &s, &err), err);
    assert_ok(lc_generate(s, prompt, 3, &how, out, &count, &finish, &err), err);
    assert_true(count == 8 && told == 8);
    how.stop = &stop;
    how.n_stop = 1;
    int status = lc_generate(s, prompt, 3, &how, out, &count, &finish, &err);
    expect(status, LC_EINVAL, &err, "tokenizer");
    lc_session_close(s);
    lc_engine_close(other);
}

int main(void) {
    lc_err err = {0};
    engine = golden_engine(MODEL, (golden_engine_options){0});
    assert_ok(lc_session_open(engine, &session, &err), err);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_known_text),
        cmocka_unit_test(stop_strings),
        cmocka_unit_test(stop_strings_that_overlap),
        cmocka_unit_test(held_text_comes_out),
        cmocka_unit_test(eos_ends_the_text),
        cmocka_unit_test(stop_tokens),
        cmocka_unit_test(random_text_is_utf8),
        cmocka_unit_test(bias_forces_and_forbids),
        cmocka_unit_test(cancelling),
        cmocka_unit_test(the_context_ends),
        cmocka_unit_test(wrong_arguments),
        cmocka_unit_test(a_model_without_tokenizer),
    };
    int failed = test_main(tests);
    lc_session_close(session);
    lc_engine_close(engine);
    return failed;
}
