/*
 * eval_needle.c: `longcat eval needle`: a key is told somewhere in filler text, and asked for at
 * its end; the greedy answer counts if the first number in it is the key. By length of the prompt
 * and depth of the needle, as plain text that goes on and as a question in the chat template.
 *
 * Everything follows from the seed: filler begins at another place and the key is another one in
 * each sample. Depths are asked from the end backwards, so that a session keeps what they share.
 */
#include "base/file.h"
#include "base/rng.h"
#include "cli/eval.h"
#include "cli/progress.h"
#include "text/chat.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_AXIS = 32, ANSWER_TOKENS = 16, ROOM = 64, DIGITS = 5, PIECE_LIMIT = 4096 };

static const char *const sentences[] = {
    "The grass is green in spring and yellow at the end of the summer.\n",
    "A river runs along the road until both of them reach the sea.\n",
    "In the morning the market opens, and carts come in from the villages.\n",
    "Nobody knew how old the bridge was, but everybody used it.\n",
    "The train was late again, so the passengers talked about the weather.\n",
    "She put the books back on the shelf and closed the window.\n",
    "After the rain the streets were empty and the air smelled of leaves.\n",
    "The keeper of the lighthouse wrote a line in his journal each night.\n",
    "Most of the letters came from the north, a few of them from abroad.\n",
    "They walked for an hour, rested under a tree, and walked on.\n",
    "The clock in the tower strikes once for each quarter of an hour.\n",
    "A cat slept on the warm stones in front of the bakery.\n",
};

typedef struct needle_flags {
    lc_engine_flags engine;
    const char *lengths, *depths, *text, *form;
    int64_t count, seed;
    bool json;
} needle_flags;

typedef struct axis {
    size_t count, at[MAX_AXIS];
} axis;

/* A piece of filler and its tokens. */
typedef struct piece {
    const char *text;
    size_t len, tokens;
} piece;

typedef struct needle {
    const needle_flags *flags;
    lc_engine *engine;
    lc_session *session;
    lc_chat_template *tmpl; /* NULL without */
    lc_buf file;            /* of --text */
    piece *pieces;
    size_t n_pieces;
    axis lengths, depths;
    bool chat;
    /* [length][depth] of the present form */
    size_t found[MAX_AXIS][MAX_AXIS], tokens[MAX_AXIS][MAX_AXIS];
    lc_progress progress;
} needle;

/* ---- options ---- */

/* "512,2K,8K" (K is 1024), each from least to most. */
static int parse_axis(const char *name, const char *text, size_t least, size_t most, axis *out,
                      lc_err *err) {
    for (const char *at = text; *at;) {
        const char *end = at;
        unsigned long long value = 0;
        errno = 0;
        if (isdigit((unsigned char)*at)) {
            char *stop;
            value = strtoull(at, &stop, 10);
            end = stop;
        }
        bool kilo = end != at && (*end == 'K' || *end == 'k');
        if (kilo) value = value <= most ? value * 1024 : most + 1;
        const char *next = end + kilo;
        if (errno || end == at || value < least || value > most || (*next && *next != ','))
            return lc_fail(err, LC_EINVAL, "--%s %s: needs numbers from %zu to %zu", name, text,
                           least, most);
        if (out->count == MAX_AXIS)
            return lc_fail(err, LC_ELIMIT, "--%s: more than %d", name, MAX_AXIS);
        out->at[out->count++] = (size_t)value;
        at = next + (*next == ',');
    }
    return out->count ? LC_OK : lc_fail(err, LC_EINVAL, "--%s is empty", name);
}

/* ---- filler ---- */

static int add_piece(needle *n, const char *text, size_t len, lc_err *err) {
    lc_ids ids = {0};
    int status =
        lc_tokenizer_encode(n->engine->tokenizer, text, len, LC_ENCODE_ALL, false, &ids, err);
    if (status == LC_OK && ids.len) n->pieces[n->n_pieces++] = (piece){text, len, ids.len};
    lc_ids_free(&ids);
    return status;
}

/* Lines of --text, else the sentences above. */
static int load_filler(needle *n, lc_err *err) {
    size_t most = sizeof sentences / sizeof *sentences;
    int status = LC_OK;
    if (n->flags->text) {
        status = lc_file_read(n->flags->text, 0, &n->file, err);
        most = n->file.len / PIECE_LIMIT + 1;
        for (size_t i = 0; i < n->file.len; i++) most += n->file.data[i] == '\n';
    }
    if (status != LC_OK) return status;
    n->pieces = lc_calloc(most, sizeof *n->pieces);
    if (!n->pieces) return lc_fail(err, LC_ENOMEM, "filler: out of memory");
    for (size_t i = 0; !n->flags->text && i < most && status == LC_OK; i++)
        status = add_piece(n, sentences[i], strlen(sentences[i]), err);
    for (size_t at = 0; at < n->file.len && status == LC_OK;) {
        const char *line = n->file.data + at, *end = memchr(line, '\n', n->file.len - at);
        size_t len = end ? (size_t)(end - line) + 1 : n->file.len - at;
        if (len <= PIECE_LIMIT) status = add_piece(n, line, len, err); /* longer ones are no text */
        at += len;
    }
    if (status == LC_OK && !n->n_pieces)
        status = lc_fail(err, LC_EINVAL, "%s: has no lines", n->flags->text);
    return status;
}

/* ---- prompts ---- */

static const char question[] = "What is the pass key of the vault?";

/* Filler of at most `budget` tokens from piece `first` on, with the needle inside. */
static bool put_story(const needle *n, size_t budget, size_t first, size_t depth, const char *key,
                      lc_buf *out) {
    size_t count = 0, used = 0;
    while (used + n->pieces[(first + count) % n->n_pieces].tokens <= budget)
        used += n->pieces[(first + count++) % n->n_pieces].tokens;
    size_t at = (count * depth + 50) / 100;
    for (size_t i = 0; i <= count; i++) {
        if (i == at) lc_buf_printf(out, "The pass key of the vault is %s.\n", key);
        const piece *p = &n->pieces[(first + i) % n->n_pieces];
        if (i < count) lc_buf_append(out, p->text, p->len);
    }
    return !out->failed;
}

static int encode_chat(const needle *n, const char *text, lc_ids *ids, lc_err *err) {
    struct json_object *messages = json_object_new_array(), *message = json_object_new_object(),
                       *arguments = json_object_new_object();
    int status = LC_OK;
    if (!messages || !message || !arguments)
        status = lc_fail(err, LC_ENOMEM, "prompt: out of memory");
    else {
        json_object_object_add(message, "role", json_object_new_string("user"));
        json_object_object_add(message, "content", json_object_new_string(text));
        json_object_array_add(messages, json_object_get(message));
        json_object_object_add(arguments, "add_generation_prompt", json_object_new_boolean(true));
        json_object_object_add(arguments, "enable_thinking", json_object_new_boolean(false));
        lc_chat chat = {.messages = messages, .arguments = arguments};
        status = lc_chat_encode(n->tmpl, &chat, n->engine->tokenizer, true, ids, err);
    }
    json_object_put(messages);
    json_object_put(message);
    json_object_put(arguments);
    return status;
}

/* The prompt with filler of `budget` tokens. */
static int make_prompt(const needle *n, size_t budget, size_t first, size_t depth, const char *key,
                       lc_ids *ids, lc_err *err) {
    lc_buf text = {0};
    ids->len = 0;
    put_story(n, budget, first, depth, key, &text);
    lc_buf_printf(&text, "%s", question);
    if (!n->chat) lc_buf_puts(&text, "\nThe pass key of the vault is");
    int status;
    if (text.failed)
        status = lc_fail(err, LC_ENOMEM, "prompt: out of memory");
    else if (n->chat)
        status = encode_chat(n, text.data, ids, err);
    else
        status = lc_tokenizer_encode(n->engine->tokenizer, text.data, text.len, LC_ENCODE_ALL,
                                     false, ids, err);
    lc_buf_free(&text);
    return status;
}

/* ---- asking ---- */

/* Whether the first number of the answer is the key. */
static bool is_found(const lc_buf *answer, const char *key) {
    const char *at = answer->data;
    if (!at) return false;
    at += strcspn(at, "0123456789");
    return !strncmp(at, key, DIGITS) && !isdigit((unsigned char)at[DIGITS]);
}

static int ask(needle *n, size_t l, size_t sample, lc_err *err) {
    uint64_t seed = (uint64_t)n->flags->seed;
    lc_rng_block random = lc_rng(seed, n->lengths.at[l], sample);
    char key[16];
    lc_ids ids = {0};
    snprintf(key, sizeof key, "%u", 10000 + random.word[0] % 90000);
    size_t first = random.word[1] % n->n_pieces;
    int status = make_prompt(n, 0, first, 0, key, &ids, err); /* what surrounds the filler */
    size_t length = n->lengths.at[l], fixed = ids.len;
    if (status == LC_OK && fixed > length)
        status = lc_fail(err, LC_EINVAL, "--lengths %zu: the question alone has %zu tokens", length,
                         fixed);
    for (size_t d = n->depths.count; d-- && status == LC_OK;) {
        lc_eval_answer answer = {0};
        lc_eval_greedy how = {.max_tokens = ANSWER_TOKENS, .one_line = !n->chat};
        if (lc_progress_interrupted(&n->progress)) status = lc_fail(err, LC_ECANCELED, "stopped");
        if (status == LC_OK)
            status = make_prompt(n, length - fixed, first, n->depths.at[d], key, &ids, err);
        if (status == LC_OK) status = lc_eval_greedy_answer(n->session, &ids, &how, &answer, err);
        if (status == LC_OK) {
            n->found[l][d] += is_found(&answer.text, key);
            n->tokens[l][d] += ids.len;
        }
        lc_eval_answer_free(&answer);
    }
    lc_ids_free(&ids);
    return status;
}

/* ---- results ---- */

static double total(const needle *n) {
    size_t found = 0;
    for (size_t l = 0; l < n->lengths.count; l++)
        for (size_t d = 0; d < n->depths.count; d++) found += n->found[l][d];
    return (double)found;
}

static void print_table(const needle *n) {
    double count = (double)n->flags->count;
    printf("%s: keys found, %%, of %lld a cell\n%10s", n->chat ? "chat" : "plain",
           (long long)n->flags->count, "tokens");
    for (size_t d = 0; d < n->depths.count; d++) printf("%6zu %%", n->depths.at[d]);
    printf("%8s\n", "all");
    for (size_t l = 0; l < n->lengths.count; l++) {
        size_t row = 0;
        printf("%10zu", n->lengths.at[l]);
        for (size_t d = 0; d < n->depths.count; d++) {
            row += n->found[l][d];
            printf("%8.0f", 100 * (double)n->found[l][d] / count);
        }
        printf("%8.0f\n", 100 * (double)row / count / (double)n->depths.count);
    }
}

static void print_json(const needle *n) {
    double count = (double)n->flags->count;
    double cells = (double)(n->lengths.count * n->depths.count);
    printf("{\"form\":\"%s\",\"samples\":%lld,\"seed\":%lld,\"found\":%.6g,\"cells\":[",
           n->chat ? "chat" : "plain", (long long)n->flags->count, (long long)n->flags->seed,
           total(n) / cells / count);
    for (size_t l = 0; l < n->lengths.count; l++)
        for (size_t d = 0; d < n->depths.count; d++)
            printf("%s{\"length\":%zu,\"depth\":%zu,\"found\":%zu,\"prompt_tokens\":%.1f}",
                   l || d ? "," : "", n->lengths.at[l], n->depths.at[d], n->found[l][d],
                   (double)n->tokens[l][d] / count);
    printf("]}\n");
}

static int run_form(needle *n, bool chat, lc_err *err) {
    int status = LC_OK;
    size_t all = n->lengths.count * (size_t)n->flags->count, done = 0;
    n->chat = chat;
    memset(n->found, 0, sizeof n->found);
    memset(n->tokens, 0, sizeof n->tokens);
    for (size_t l = 0; l < n->lengths.count; l++)
        for (size_t i = 0; i < (size_t)n->flags->count && status == LC_OK; i++) {
            status = ask(n, l, i, err);
            char text[96];
            snprintf(text, sizeof text, "%s, %zu tokens: %zu of %zu prompts",
                     chat ? "chat" : "plain", n->lengths.at[l], ++done * n->depths.count,
                     all * n->depths.count);
            if (lc_progress_due(&n->progress)) lc_progress_draw(&n->progress, text);
        }
    lc_progress_clear(&n->progress);
    if (status == LC_OK) n->flags->json ? print_json(n) : print_table(n);
    return status;
}

static int open_needle(needle *n, const char *model, lc_err *err) {
    size_t longest = 0;
    int status = parse_axis("lengths", n->flags->lengths, 32, (size_t)1 << 24, &n->lengths, err);
    if (status == LC_OK) status = parse_axis("depths", n->flags->depths, 0, 100, &n->depths, err);
    if (status != LC_OK) return status;
    for (size_t i = 0; i < n->lengths.count; i++)
        if (n->lengths.at[i] > longest) longest = n->lengths.at[i];
    lc_engine_options options = lc_cli_engine_options(&n->flags->engine);
    status = lc_engine_open(model, &options, &n->engine, err);
    if (status == LC_OK && longest + ANSWER_TOKENS + ROOM > lc_engine_context(n->engine))
        status = lc_fail(err, LC_ELIMIT, "--lengths: %zu tokens and an answer: %s allows %zu",
                         longest, model, lc_engine_context(n->engine));
    if (status == LC_OK && !n->engine->tokenizer)
        status = lc_fail(err, LC_ENOTFOUND, "%s: tokenizer.json is missing", model);
    if (status == LC_OK) status = lc_session_open(n->engine, &n->session, err);
    return status == LC_OK ? load_filler(n, err) : status;
}

static int run(needle *n, const char *model, lc_err *err) {
    const char *form = n->flags->form;
    bool chat = !form || !strcmp(form, "chat"), plain = !form || !strcmp(form, "plain");
    if (!chat && !plain) return lc_fail(err, LC_EINVAL, "--form %s: plain or chat", form);
    int status = open_needle(n, model, err);
    if (status == LC_OK && chat) {
        status = lc_chat_template_load(model, &n->tmpl, err);
        if (status == LC_ENOTFOUND && !form) status = LC_OK; /* then plain alone */
    }
    if (status == LC_OK && plain) status = run_form(n, false, err);
    if (status == LC_OK && n->tmpl) status = run_form(n, true, err);
    return status;
}

int lc_eval_needle_cmd(int argc, char **argv) {
    needle_flags f = {.lengths = "512,2K", .depths = "0,25,50,75,100", .count = 5, .seed = 1};
    const lc_opt options[] = {
        {"lengths", 0, LC_OPT_STRING, &f.lengths, "LIST",
         "tokens of the prompts, K is 1024 (default: 512,2K)", 0, 0},
        {"depths", 0, LC_OPT_STRING, &f.depths, "LIST",
         "places of the needle, % of the filler (default: 0,25,50,75,100)", 0, 0},
        {"samples", 'n', LC_OPT_INT, &f.count, "N", "prompts of each length and depth (default 5)",
         1, 10000},
        {"form", 0, LC_OPT_STRING, &f.form, "FORM",
         "plain: text that goes on; chat: a question in the chat template (default: both, if there "
         "is a template)",
         0, 0},
        {"text", 0, LC_OPT_STRING, &f.text, "FILE",
         "lines to fill with (default: plain sentences of our own)", 0, 0},
        {"seed", 0, LC_OPT_INT, &f.seed, "N", "of keys and filler (default 1)", 0, 1e15},
        {"json", 0, LC_OPT_FLAG, &f.json, NULL, "print a line of JSON a form", 0, 0},
        LC_ENGINE_OPTIONS(f.engine),
        {0},
    };
    const lc_usage usage = {
        "longcat eval needle MODEL [--lengths 512,2K,8K] [--depths 0,50,100] [options]",
        "How often a key that stands somewhere in filler text is found again: greedy answers whose "
        "first\nnumber is the key, by length of the prompt and depth of the key.",
        options, 1, 1};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    lc_err err = {0};
    needle *n = lc_calloc(1, sizeof *n);
    int status = n ? LC_OK : lc_fail(&err, LC_ENOMEM, "out of memory");
    if (n) {
        n->flags = &f;
        lc_progress_begin(&n->progress, 30000);
        status = run(n, args[0], &err);
        lc_progress_end(&n->progress);
        lc_session_close(n->session);
        lc_engine_close(n->engine);
        lc_chat_template_free(n->tmpl);
        lc_buf_free(&n->file);
        lc_free(n->pieces);
        lc_free(n);
    }
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
