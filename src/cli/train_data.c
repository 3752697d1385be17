/*
 * train_data.c: `longcat train data CORPUS... -o FOLDER`: options, progress and the closing lines;
 * the work is train/prepare.h. --check reads finished folders again instead.
 */
#include "cli/train.h"

#include "base/mem.h"
#include "train/prepare.h"
#include "train/shardset.h"

#include <string.h>

static bool on_progress(void *ctx, const lc_prepare_progress *p) {
    lc_progress *line = ctx;
    char done[32], all[32], speed[32], left[32];
    double rate = lc_progress_rate(line, p->bytes);
    if (lc_progress_due(line)) {
        lc_buf text = {0};
        lc_buf_printf(&text, "%3.0f%%  %s of %s  %llu documents  %.1f M tokens",
                      p->all_bytes ? 100 * (double)p->bytes / (double)p->all_bytes : 100.0,
                      lc_show_bytes(done, (double)p->bytes),
                      lc_show_bytes(all, (double)p->all_bytes), (unsigned long long)p->documents,
                      (double)p->tokens / 1e6);
        if (rate >= 1)
            lc_buf_printf(&text, "  %s/s  %s left", lc_show_bytes(speed, rate),
                          lc_show_time(left, (double)(p->all_bytes - p->bytes) / rate));
        if (!text.failed) lc_progress_draw(line, text.data);
        lc_buf_free(&text);
    }
    return !lc_progress_interrupted(line);
}

static void show_dropped(const lc_prepare_result *r) {
    const struct {
        uint64_t n;
        const char *text;
    } lines[] = {
#define LINE(name, text) {r->name, text},
        LC_PREPARE_COUNTS(LINE)
#undef LINE
    };
    lc_train_show_counts(&r->read);
    for (size_t i = 3; i < sizeof lines / sizeof *lines; i++) /* behind documents and tokens */
        if (lines[i].n)
            fprintf(stderr, "longcat: %s %llu %s\n",
                    i < 6 ? "changed:" : "dropped:", (unsigned long long)lines[i].n, lines[i].text);
    if (r->bad_chat)
        fprintf(stderr, "longcat: the first refused conversation: %s\n", r->first_bad_chat.text);
}

static int finish(const char *out, const lc_prepare_result *r) {
    char bytes[32];
    show_dropped(r);
    printf("%s: %llu documents, %llu tokens (%llu targets) from %s of text (%.3f bytes a token), "
           "%zu shard%s\n",
           out, (unsigned long long)r->documents, (unsigned long long)r->tokens,
           (unsigned long long)r->targets, lc_show_bytes(bytes, (double)r->text_bytes),
           (double)r->text_bytes / (double)r->tokens, r->shards, r->shards == 1 ? "" : "s");
    return LC_EXIT_OK;
}

static int prepare(const lc_prepare_options *given, int threads) {
    lc_prepare_options o = *given;
    lc_prepare_result *result = lc_calloc(1, sizeof *result);
    lc_err err = {0};
    lc_progress line;
    if (!result) return lc_cli_fail(&(lc_err){.text = "out of memory"});
    lc_progress_begin(&line, TRAIN_PLAIN_MS); /* before the threads, which inherit its signals */
    int status = lc_pool_new(threads, &o.pool, &err);
    o.progress = on_progress;
    o.ctx = &line;
    if (!status) status = lc_prepare(&o, result, &err);
    lc_pool_free(o.pool);
    lc_progress_end(&line);
    int code = status ? lc_cli_fail(&err) : finish(o.out, result);
    lc_free(result);
    return code;
}

/* ---- --check ---- */

static int check_documents(const lc_shardset *set, lc_err *err) {
    size_t room = 0;
    int32_t *tokens = NULL;
    int status = LC_OK;
    for (uint64_t doc = 0; doc < lc_shardset_documents(set) && !status; doc++) {
        size_t len = lc_shardset_length(set, doc);
        if (len > room) {
            lc_free(tokens);
            tokens = lc_alloc(len * sizeof *tokens);
            room = tokens ? len : 0;
        }
        lc_shard_part part = {doc, 0, len, tokens, NULL};
        status =
            tokens ? lc_shardset_read(set, &part, err) : lc_fail(err, LC_ENOMEM, "out of memory");
    }
    lc_free(tokens);
    return status;
}

static int check(const char *const *folders, int n) {
    for (int i = 0; i < n; i++) {
        lc_shardset *set;
        lc_err err = {0};
        int status = lc_shardset_open(folders[i], &set, &err);
        if (!status) status = check_documents(set, &err);
        if (!status)
            printf("%s: \"%s\", %llu documents, %llu tokens, all as written\n", folders[i],
                   lc_shardset_name(set), (unsigned long long)lc_shardset_documents(set),
                   (unsigned long long)lc_shardset_tokens(set));
        lc_shardset_close(set);
        if (status) return lc_cli_fail(&err);
    }
    return LC_EXIT_OK;
}

/* ---- options ---- */

typedef struct extra {
    lc_opt_list exclude;
    int64_t threads, seed, shard_mb, max_file;
    bool check;
} extra;

static int run(lc_prepare_options *o, const extra *x, const char **args, int n_args) {
    if (x->check) return check(args, n_args);
    int code = lc_cli_need(o->out, "-o FOLDER");
    if (code < 0) code = lc_cli_need(o->tokenizer, "--tokenizer FILE");
    if (code >= 0) return code;
    o->corpus.paths = args;
    o->corpus.n_paths = (size_t)n_args;
    o->corpus.max_file = (size_t)x->max_file;
    o->exclude = x->exclude.items;
    o->n_exclude = x->exclude.count;
    o->seed = (uint64_t)x->seed;
    o->shard_bytes = (size_t)x->shard_mb * 1000000;
    return prepare(o, (int)x->threads);
}

int lc_train_data_cmd(int argc, char **argv) {
    lc_prepare_options o = {.near = 0.75};
    extra x = {.seed = 1, .shard_mb = 256, .max_file = LC_CORPUS_FILE_MAX};
    int n_args;
    const lc_opt options[] = {
        {"output", 'o', LC_OPT_STRING, &o.out, "FOLDER", "where the shards go; new or empty", 0, 0},
        {"tokenizer", 0, LC_OPT_STRING, &o.tokenizer, "FILE", "tokenizer.json, or its folder", 0,
         0},
        {"name", 0, LC_OPT_STRING, &o.name, "NAME", "of this source (default: the folder's name)",
         0, 0},
        {"exclude", 0, LC_OPT_LIST, &x.exclude, "FILE",
         "evaluation files or folders: no 13 words in a row that stand there stay in the data; may "
         "be repeated",
         0, 0},
        {"near", 0, LC_OPT_FLOAT, &o.near, "SHARE",
         "similarity from which on a document is a near duplicate, 0 = keep them (default: 0.75)",
         0, 1},
        {"fim", 0, LC_OPT_FLOAT, &o.fim, "SHARE",
         "of texts to rearrange so that the middle is filled in (default: 0)", 0, 1},
        {"seed", 0, LC_OPT_INT, &x.seed, "N", "of --fim (default: 1)", 0, (double)(1LL << 53)},
        {"chat-template", 0, LC_OPT_STRING, &o.chat_template, "FILE",
         "for conversations (default: the one beside the tokenizer)", 0, 0},
        {"eos", 0, LC_OPT_STRING, &o.eos, "TOKEN", "ends a document (default: </longcat_s>)", 0, 0},
        {"ext", 0, LC_OPT_STRING, &o.corpus.extensions, "LIST",
         "files to take from folders, such as py,c,md (default: common code and prose)", 0, 0},
        {"max-file", 0, LC_OPT_INT, &x.max_file, "BYTES",
         "largest file to take from a folder (default: 1048576)", 1, 1 << 30},
        {"shard-size", 0, LC_OPT_INT, &x.shard_mb, "MB", "a shard ends at about (default: 256)", 1,
         1000000},
        {"check", 0, LC_OPT_FLAG, &x.check, NULL,
         "read finished folders (in place of CORPUS) and check every byte", 0, 0},
        {"threads", 't', LC_OPT_INT, &x.threads, "N",
         "threads (default: the CPUs that may be used); the shards don't depend on them", 1, 1024},
        {0},
    };
    const lc_usage usage = {
        "longcat train data CORPUS... -o FOLDER --tokenizer tokenizer.json [options]\n"
        "       longcat train data --check FOLDER...",
        "Turns a corpus into token shards, one source of a training recipe. CORPUS: text files "
        "and\n"
        "folders (each file is a document), JSONL with \"text\", or with \"messages\" and "
        "\"tools\", "
        "which\nthe chat template renders and of which only the assistant's turns are learned.\n"
        "Exact and near duplicates are dropped, the first one stays. What is left out is counted\n"
        "here and in manifest.json. Stopped at any time, the same command starts over.",
        options, 1, INT32_MAX};
    const char **args = lc_calloc((size_t)argc, sizeof *args);
    if (!args) return lc_cli_fail(&(lc_err){.text = "out of memory"});
    int code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code < 0) code = run(&o, &x, args, n_args);
    lc_free(args);
    return code;
}
