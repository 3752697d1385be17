/*
 * prepare.c: the pipeline of prepare.h. A batch of documents is in memory at a time. Threads make
 * fingerprints; one thread passes verdicts, in order; threads make ids; one thread writes, in
 * order.
 */
#include "train/prepare_internal.h"

#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { TOKENIZER_MAX = 128 << 20, SHARDS_MAX = 65536 };
#define DEFAULT_SHARD ((size_t)256 << 20)

typedef struct run {
    const lc_prepare_options *options;
    lc_prepare_result *result;
    lc_encoder encoder;
    lc_dedup *dedup;
    lc_batch batch;
    lc_item *items; /* [cap_items], as prints */
    lc_fingerprint *prints;
    size_t cap_items;
    lc_words *words; /* [threads] */
    int threads;
    lc_shard_kind kind;
    lc_shard_writer *writer; /* NULL between shards */
    lc_shard_note *notes;    /* [shards] */
    size_t cap_notes;
    lc_prepare_folder folder;
    lc_err *err;
} run;

static int no_memory(const run *r) {
    return lc_fail(r->err, LC_ENOMEM, "%s: out of memory", r->options->out);
}

/* ---- set-up ---- */

static int find_token(run *r, const char *token, int32_t *id) {
    *id = lc_tokenizer_id(r->encoder.tokenizer, token);
    if (*id >= 0) return LC_OK;
    return lc_fail(r->err, LC_EINVAL, "%s: has no token \"%s\"", r->options->tokenizer, token);
}

static int find_fim(run *r) {
    if (lc_tokenizer_fim(r->encoder.tokenizer, &r->encoder.fim_tokens)) return LC_OK;
    return lc_fail(r->err, LC_EINVAL,
                   "%s: has no tokens to fill in the middle (<fim_prefix>, <fim_suffix>, "
                   "<fim_middle>, or the same in <|...|>)",
                   r->options->tokenizer);
}

static int read_tokenizer(run *r) {
    lc_buf path = {0}, text = {0};
    lc_hash *hash = NULL;
    char hex[65];
    const char *given = r->options->tokenizer;
    size_t len = strlen(given);
    bool file = len > 5 && !strcmp(given + len - 5, ".json");
    int status = LC_OK;
    if (!lc_buf_printf(&path, file ? "%s" : "%s/tokenizer.json", given)) status = no_memory(r);
    if (!status) status = lc_file_read(path.data, TOKENIZER_MAX, &text, r->err);
    if (!status)
        status = lc_tokenizer_parse(text.data, text.len, path.data, &r->encoder.tokenizer, r->err);
    if (!status && !(hash = lc_hash_new(LC_HASH_SHA256))) status = no_memory(r);
    if (!status) {
        lc_hash_update(hash, text.data, text.len);
        lc_hash_finish(hash, hex);
        for (size_t i = 0; i < 32; i++) {
            unsigned byte = 0;
            if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
                status = lc_fail(r->err, LC_EIO, "%s: SHA-256 failed", path.data);
            r->kind.tokenizer[i] = (uint8_t)byte;
        }
    }
    lc_buf_free(&path);
    lc_buf_free(&text);
    return status;
}

static int set_up_tokens(run *r) {
    const lc_prepare_options *o = r->options;
    lc_encoder *e = &r->encoder;
    int status = read_tokenizer(r);
    if (!status) status = find_token(r, o->eos ? o->eos : "</longcat_s>", &e->eos);
    if (status) return status;
    e->assistant = lc_tokenizer_id(e->tokenizer, "<longcat_assistant>");
    e->fim = o->fim;
    e->seed = o->seed;
    e->near = o->near > 0;
    size_t vocab = lc_tokenizer_vocab_size(e->tokenizer);
    r->kind.vocab = (uint32_t)vocab;
    r->kind.eos = (uint32_t)e->eos;
    r->kind.token_bytes = vocab <= 65536 ? 2 : 4;
    return o->fim > 0 ? find_fim(r) : LC_OK;
}

static int set_up(run *r) {
    const lc_prepare_options *o = r->options;
    lc_corpus_options exclude = {
        .paths = o->exclude, .n_paths = o->n_exclude, .max_file = (size_t)1 << 30};
    int status = set_up_tokens(r);
    if (!status && o->n_exclude) status = lc_exclude_open(&exclude, &r->encoder.exclude, r->err);
    if (!status) status = lc_dedup_new(o->near, &r->dedup, r->err);
    if (status) return status;
    r->threads = o->pool ? lc_pool_threads(o->pool) : 1;
    r->words = lc_calloc((size_t)r->threads, sizeof *r->words);
    return r->words ? LC_OK : no_memory(r);
}

/* A conversation has come: it needs a template and the token that opens the assistant's turn. */
static int need_chat(run *r, const lc_document *doc) {
    const lc_prepare_options *o = r->options;
    lc_buf path = {0};
    if (r->encoder.chat) return LC_OK;
    if (r->encoder.assistant < 0)
        return lc_fail(r->err, LC_EINVAL,
                       "%s:%llu: is a conversation, but %s has no token \"<longcat_assistant>\"",
                       doc->path, (unsigned long long)doc->line, o->tokenizer);
    const char *slash = strrchr(o->tokenizer, '/');
    size_t len = strlen(o->tokenizer);
    bool file = len > 5 && !strcmp(o->tokenizer + len - 5, ".json");
    if (o->chat_template)
        lc_buf_puts(&path, o->chat_template);
    else if (!file)
        lc_buf_puts(&path, o->tokenizer);
    else if (slash)
        lc_buf_append(&path, o->tokenizer, (size_t)(slash - o->tokenizer) + 1);
    else
        lc_buf_puts(&path, ".");
    int status =
        path.failed ? no_memory(r) : lc_chat_template_load(path.data, &r->encoder.chat, r->err);
    if (status && status != LC_ENOMEM)
        lc_err_prefix(r->err, "%s:%llu: is a conversation, which needs a chat template", doc->path,
                      (unsigned long long)doc->line);
    lc_buf_free(&path);
    return status;
}

/* ---- verdicts ---- */

static int judge(run *r, lc_item *item) {
    lc_prepare_result *res = r->result;
    const lc_document *doc = item->doc;
    lc_dedup_verdict verdict;
    int status = lc_dedup_judge(r->dedup, item->print, &verdict, r->err);
    if (status) return status;
    item->drop = verdict != LC_DEDUP_NEW || !item->parts.n;
    if (verdict == LC_DEDUP_EXACT) res->exact_duplicates++;
    if (verdict == LC_DEDUP_NEAR) res->near_duplicates++;
    if (verdict == LC_DEDUP_NEW && !item->parts.n) res->contaminated++;
    if (item->drop) return LC_OK;
    if (item->parts.matches) {
        size_t kept = 0;
        for (size_t i = 0; i < item->parts.n; i++)
            kept += item->parts.data[i].end - item->parts.data[i].start;
        res->cut++;
        res->cut_bytes += doc->len - kept;
    }
    return doc->chat ? need_chat(r, doc) : LC_OK;
}

static void scan_items(void *ctx, size_t begin, size_t end, int thread) {
    run *r = ctx;
    for (size_t i = begin; i < end; i++) lc_item_scan(&r->encoder, &r->items[i], &r->words[thread]);
}

static void encode_items(void *ctx, size_t begin, size_t end, int thread) {
    run *r = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) lc_item_encode(&r->encoder, &r->items[i]);
}

/* ---- shards ---- */

static int open_shard(run *r) {
    lc_prepare_result *res = r->result;
    lc_buf path = {0};
    if (res->shards == SHARDS_MAX)
        return lc_fail(r->err, LC_ELIMIT, "%s: more than %d shards; make them larger",
                       r->options->out, SHARDS_MAX);
    if (res->shards == r->cap_notes) {
        size_t cap = r->cap_notes * 2 + 64;
        lc_shard_note *more = lc_realloc(r->notes, cap, sizeof *more);
        if (!more) return no_memory(r);
        r->notes = more;
        r->cap_notes = cap;
    }
    r->notes[res->shards] = (lc_shard_note){0};
    lc_buf_printf(&path, "%s/" LC_PREPARE_SHARD, r->options->out, (unsigned)res->shards);
    int status = path.failed ? no_memory(r)
                             : lc_shard_create(path.data, &r->kind, (uint32_t)res->shards,
                                               &r->writer, r->err);
    lc_buf_free(&path);
    return status;
}

static int close_shard(run *r) {
    lc_shard_note *note = &r->notes[r->result->shards];
    note->bytes = lc_shard_written(r->writer);
    int status = lc_shard_finish(r->writer, &note->checksum, r->err);
    r->writer = NULL;
    if (!status) r->result->shards++;
    return status;
}

static void note_type(lc_prepare_result *res, const lc_item *item) {
    char name[sizeof res->types->name];
    size_t i = 0;
    snprintf(name, sizeof name, "%s", item->doc->type);
    while (i < res->n_types && strcmp(res->types[i].name, name)) i++;
    if (i == LC_PREPARE_TYPES) {
        i--;
        snprintf(res->types[i].name, sizeof name, "other");
    } else if (i == res->n_types) {
        memcpy(res->types[res->n_types++].name, name, sizeof name);
    }
    res->types[i].documents += item->n_ends;
    res->types[i].bytes += item->doc->len;
    res->types[i].tokens += item->ids.len;
}

static int write_item(run *r, const lc_item *item) {
    size_t limit = r->options->shard_bytes ? r->options->shard_bytes : DEFAULT_SHARD;
    const uint8_t *mask = item->mask.len ? (const uint8_t *)item->mask.data : NULL;
    int status = LC_OK;
    for (size_t i = 0, from = 0; i < item->n_ends && !status; from = item->ends[i++]) {
        size_t count = item->ends[i] - from;
        if (!r->writer) status = open_shard(r);
        if (!status)
            status = lc_shard_add(r->writer, item->ids.data + from, mask ? mask + from : NULL,
                                  count, r->err);
        if (status) return status;
        r->notes[r->result->shards].documents++;
        r->notes[r->result->shards].tokens += count;
        r->result->documents++;
        r->result->tokens += count;
        if (lc_shard_written(r->writer) >= limit) status = close_shard(r);
    }
    for (size_t i = 0; i < item->ids.len; i++) r->result->targets += mask ? mask[i] : 1;
    r->result->fim += item->fim;
    for (size_t i = 0; i < item->parts.n; i++)
        r->result->text_bytes += item->parts.data[i].end - item->parts.data[i].start;
    note_type(r->result, item);
    return status;
}

static int settle(run *r, lc_item *item) {
    lc_prepare_result *res = r->result;
    if (item->status) {
        if (r->err) *r->err = item->err;
        return item->status;
    }
    if (item->bad_chat && !res->bad_chat++) res->first_bad_chat = item->err;
    if (item->drop && !item->bad_chat && item->n_ends) res->no_target++;
    return item->drop ? LC_OK : write_item(r, item);
}

/* ---- the whole ---- */

static int reserve_items(run *r, size_t n) {
    if (n <= r->cap_items) return LC_OK;
    lc_item *items = lc_realloc(r->items, n, sizeof *items);
    if (items) r->items = items;
    lc_fingerprint *prints = lc_realloc(r->prints, n, sizeof *prints);
    if (prints) r->prints = prints;
    if (!items || !prints) return no_memory(r);
    r->cap_items = n;
    return LC_OK;
}

static int do_batch(run *r) {
    size_t n = r->batch.n;
    int status = reserve_items(r, n);
    if (status) return status;
    for (size_t i = 0; i < n; i++)
        r->items[i] = (lc_item){.doc = &r->batch.docs[i], .print = &r->prints[i]};
    lc_pool_for(r->options->pool, n, 1, scan_items, r);
    for (size_t i = 0; i < n && !status; i++) {
        if ((status = r->items[i].status) && r->err) *r->err = r->items[i].err;
        if (!status) status = judge(r, &r->items[i]);
    }
    if (!status) lc_pool_for(r->options->pool, n, 1, encode_items, r);
    for (size_t i = 0; i < n; i++) {
        if (!status) status = settle(r, &r->items[i]);
        lc_item_free(&r->items[i]);
    }
    return status;
}

static int do_corpus(run *r, lc_corpus *corpus) {
    const lc_prepare_options *o = r->options;
    lc_prepare_progress p = {.all_bytes = lc_corpus_size(corpus)};
    int status;
    do {
        status = lc_batch_fill(&r->batch, corpus, r->err);
        if (!status) status = do_batch(r);
        p.bytes = lc_corpus_count(corpus)->bytes;
        p.documents = r->result->documents;
        p.tokens = r->result->tokens;
        if (!status && o->progress && !o->progress(o->ctx, &p))
            status = lc_fail(r->err, LC_ECANCELED, "%s: stopped", o->out);
    } while (!status && r->batch.n);
    r->result->read = *lc_corpus_count(corpus);
    if (!status && r->writer) status = close_shard(r);
    if (!status && !r->result->documents && r->result->bad_chat && r->err)
        *r->err = r->result->first_bad_chat;
    else if (!status && !r->result->documents)
        lc_fail(r->err, LC_EINVAL, "%s: no document is left to train on", o->corpus.paths[0]);
    return status ? status : r->result->documents ? LC_OK : LC_EINVAL;
}

/* The last part of a path, without slashes at its end. */
static char *folder_name(const char *path) {
    size_t len = strlen(path), from;
    while (len > 1 && path[len - 1] == '/') len--;
    for (from = len; from && path[from - 1] != '/';) from--;
    return lc_strndup(path + from, len - from);
}

static int finish(run *r) {
    char *name = r->options->name ? lc_strdup(r->options->name) : folder_name(r->options->out);
    lc_manifest manifest = {.options = r->options,
                            .result = r->result,
                            .kind = &r->kind,
                            .shards = r->notes,
                            .name = name};
    if (r->encoder.exclude) manifest.exclude_documents = lc_exclude_documents(r->encoder.exclude);
    int status = name ? lc_prepare_folder_sync(&r->folder, r->err) : no_memory(r);
    if (!status) status = lc_manifest_write(&manifest, r->err);
    if (!status) status = lc_prepare_folder_end(&r->folder, r->err);
    lc_free(name);
    return status;
}

static void clean_up(run *r) {
    lc_shard_abandon(r->writer);
    for (int i = 0; r->words && i < r->threads; i++) lc_words_free(&r->words[i]);
    lc_free(r->words);
    lc_free(r->items);
    lc_free(r->prints);
    lc_free(r->notes);
    lc_batch_free(&r->batch);
    lc_dedup_free(r->dedup);
    lc_exclude_close(r->encoder.exclude);
    lc_chat_template_free(r->encoder.chat);
    lc_tokenizer_free(r->encoder.tokenizer);
}

int lc_prepare(const lc_prepare_options *options, lc_prepare_result *result, lc_err *err) {
    run r = {.options = options, .result = result, .err = err, .folder = {options->out, -1}};
    lc_corpus *corpus = NULL;
    *result = (lc_prepare_result){0};
    int status = set_up(&r);
    if (!status) status = lc_corpus_open(&options->corpus, &corpus, err);
    if (!status) status = lc_prepare_folder_begin(&r.folder, options->out, err);
    if (!status) status = do_corpus(&r, corpus);
    if (!status) status = finish(&r);
    clean_up(&r);
    lc_prepare_folder_leave(&r.folder);
    lc_corpus_close(corpus);
    return status;
}
