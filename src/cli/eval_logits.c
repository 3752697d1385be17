/* eval_logits.c: `longcat eval logits|hash|draft`: what comparisons with other implementations use.
 * They compute in f32 unless --compute says otherwise. */
#include "base/hash.h"
#include "cli/eval.h"
#include "engine/evaluate.h"

#include <string.h>

enum { EVAL_CHUNK = 64 };

typedef struct logits_flags {
    lc_engine_flags engine;
    const char *in, *out;
    int64_t batch;
    bool activations, mtp, weights;
} logits_flags;

/* ---- input ---- */

typedef struct eval_input {
    lc_tensors *file;
    int32_t *tokens, *document;
    size_t batch, length;
} eval_input;

static void input_free(eval_input *in) {
    lc_tensors_close(in->file);
    lc_free(in->tokens);
    lc_free(in->document);
}

static int input_load(const char *path, eval_input *in, lc_err *err) {
    int status = lc_tensors_open(path, &in->file, err);
    if (status != LC_OK) return status;
    const lc_tensor *ids = lc_tensors_find(in->file, "input_ids"),
                    *doc = lc_tensors_find(in->file, "document");
    if (!ids) return lc_fail(err, LC_ENOTFOUND, "%s: tensor input_ids is missing", path);
    if (ids->rank < 1 || ids->rank > 2)
        return lc_fail(err, LC_EFORMAT, "%s: input_ids must be [batch][tokens]", path);
    if (doc && doc->count != ids->count)
        return lc_fail(err, LC_EFORMAT, "%s: document has %zu elements, input_ids %zu", path,
                       doc->count, ids->count);
    status = lc_eval_read_ids(ids, path, &in->tokens, err);
    if (status == LC_OK && doc) status = lc_eval_read_ids(doc, path, &in->document, err);
    in->batch = ids->rank == 2 ? ids->shape[0] : 1;
    in->length = ids->rank == 2 ? ids->shape[1] : ids->shape[0];
    return status;
}

/* Runs the model over the file's sequences. */
static int evaluate(const char *model, const logits_flags *f, const eval_input *in,
                    lc_eval_result *result, lc_err *err) {
    lc_engine_options options = lc_cli_engine_options(&f->engine);
    if (!options.compute) options.compute = "f32"; /* these numbers are for comparison */
    size_t chunk = f->engine.chunk ? (size_t)f->engine.chunk : EVAL_CHUNK;
    if (in->length && chunk > in->length) chunk = in->length;
    size_t together = f->batch ? (size_t)f->batch : 1;
    if (in->batch && together > in->batch) together = in->batch;
    options.chunk = chunk * together;
    options.drafts = f->mtp;
    options.context = in->length;
    lc_engine *engine = NULL;
    int status = lc_engine_open(model, &options, &engine, err);
    if (status != LC_OK) return status;
    lc_eval_input input = {in->tokens, in->document, in->batch, in->length, chunk, together};
    status = lc_eval_logits(engine, &input, f->activations, f->mtp, result, err);
    lc_engine_close(engine);
    return status;
}

/* ---- eval logits, eval hash ---- */

static int write_result(const char *path, const eval_input *in, const lc_eval_result *result,
                        lc_err *err) {
    lc_tensor *tensors = lc_calloc(result->count, sizeof *tensors);
    if (!tensors) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < result->count; i++) {
        const lc_eval_entry *e = &result->entries[i];
        size_t count = in->batch * e->rows * e->cols;
        tensors[i] = (lc_tensor){.name = e->name,
                                 .dtype = e->type,
                                 .rank = 3,
                                 .shape = {in->batch, e->rows, e->cols},
                                 .count = count,
                                 .data = e->data,
                                 .size = count * lc_dtype_size(e->type)};
    }
    int status = lc_safetensors_write(path, tensors, result->count, err);
    lc_free(tensors);
    return status;
}

static int eval_logits(const char *model, const logits_flags *f, bool hash, lc_err *err) {
    eval_input in = {0};
    lc_eval_result result = {0};
    int status = input_load(f->in, &in, err);
    if (status == LC_OK) status = evaluate(model, f, &in, &result, err);
    if (status == LC_OK && !hash) status = write_result(f->out, &in, &result, err);
    if (status == LC_OK && hash) {
        const lc_eval_entry *e = &result.entries[0];
        for (size_t i = 0; i < result.count; i++)
            if (!strcmp(result.entries[i].name, "logits")) e = &result.entries[i];
        lc_hash *h = lc_hash_new(LC_HASH_XXH128);
        char hex[65];
        if (!h)
            status = lc_fail(err, LC_ENOMEM, "hash: out of memory");
        else {
            lc_hash_update(h, e->data, in.batch * e->rows * e->cols * sizeof(float));
            lc_hash_finish(h, hex);
            puts(hex);
        }
    }
    lc_eval_free(&result);
    input_free(&in);
    return status;
}

/* ---- eval draft ---- */

typedef struct draft_flags {
    lc_engine_flags engine;
    const char *ids;
    int64_t count;
    bool json;
} draft_flags;

static int eval_draft(const char *model, const draft_flags *f, lc_err *err) {
    lc_engine_options options = lc_cli_engine_options(&f->engine);
    if (!options.compute) options.compute = "f32";
    options.drafts = true;
    lc_engine *engine = NULL;
    lc_session *session = NULL;
    lc_ids ids = {0};
    int32_t next = 0, drafts[64];
    int status = lc_cli_ids("--ids", f->ids, &ids, err);
    if (status == LC_OK) status = lc_engine_open(model, &options, &engine, err);
    if (status == LC_OK) status = lc_session_open(engine, &session, err);
    if (status == LC_OK) status = lc_session_sync(session, ids.data, ids.len, err);
    if (status == LC_OK) {
        next = lc_argmax(lc_session_logits(session), lc_engine_vocab(engine));
        status = lc_session_draft(session, next, (size_t)f->count, drafts, err);
    }
    if (status == LC_OK) {
        printf(f->json ? "{\"next\":%d,\"tokens\":[" : "next token  %d\ndrafts      ", next);
        for (int64_t i = 0; i < f->count; i++)
            printf("%s%d", !i ? "" : f->json ? "," : " ", drafts[i]);
        puts(f->json ? "]}" : "");
    }
    lc_session_close(session);
    lc_engine_close(engine);
    lc_ids_free(&ids);
    return status;
}

/* ---- options ---- */

int lc_eval_logits_cmd(int argc, char **argv) {
    logits_flags f = {0};
    const lc_opt options[] = {
        {"in", 0, LC_OPT_STRING, &f.in, "FILE",
         "safetensors with input_ids [B][T] and, if wanted, document [B][T]", 0, 0},
        {"out", 0, LC_OPT_STRING, &f.out, "FILE",
         "safetensors to write: logits [B][T][V] and what else was asked for", 0, 0},
        {"activations", 0, LC_OPT_FLAG, &f.activations, NULL,
         "also write every part's output, router and index choices", 0, 0},
        {"mtp", 0, LC_OPT_FLAG, &f.mtp, NULL, "also write the draft module's teacher-forced steps",
         0, 0},
        {"batch", 0, LC_OPT_INT, &f.batch, "N",
         "sequences in one step (default 1); never changes a result", 1, 1024},
        LC_ENGINE_OPTIONS(f.engine),
        {0},
    };
    const lc_usage usage = {"longcat eval logits MODEL --in FILE --out FILE [options]",
                            "Runs the token ids of --in and writes the logits to --out. Computes "
                            "in f32 unless --compute says\notherwise.",
                            options, 1, 1};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code < 0) code = lc_cli_need(f.in, "--in");
    if (code < 0) code = lc_cli_need(f.out, "--out");
    if (code >= 0) return code;
    lc_err err = {0};
    return eval_logits(args[0], &f, false, &err) == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}

int lc_eval_hash_cmd(int argc, char **argv) {
    logits_flags f = {0};
    const lc_opt options[] = {
        {"weights", 0, LC_OPT_FLAG, &f.weights, NULL,
         "hash the weights instead, as fp32: of a training run's checkpoint those of the run", 0,
         0},
        {"in", 0, LC_OPT_STRING, &f.in, "FILE",
         "safetensors with input_ids [B][T] and, if wanted, document [B][T]", 0, 0},
        {"batch", 0, LC_OPT_INT, &f.batch, "N",
         "sequences in one step (default 1); never changes a result", 1, 1024},
        LC_ENGINE_OPTIONS(f.engine),
        {0},
    };
    const lc_usage usage = {
        "longcat eval hash MODEL --in FILE [options]\n       longcat eval hash MODEL --weights",
        "Prints one hash of the bits of the logits of --in's tokens (in f32 unless --compute says\n"
        "otherwise), or with --weights one of all weights under their names: what `longcat train "
        "run`\nprints at its end.",
        options, 1, 1};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code < 0 && !f.weights) code = lc_cli_need(f.in, "--in or --weights");
    if (code >= 0) return code;
    lc_err err = {0};
    char hex[65];
    int status;
    if (f.weights) {
        status = lc_eval_hash_weights(args[0], hex, &err);
        if (status == LC_OK) puts(hex);
    } else
        status = eval_logits(args[0], &f, true, &err);
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}

int lc_eval_draft_cmd(int argc, char **argv) {
    draft_flags f = {.count = 3};
    const lc_opt options[] = {
        {"ids", 0, LC_OPT_STRING, &f.ids, "LIST", "token ids: 1,2,3", 0, 0},
        {"count", 'n', LC_OPT_INT, &f.count, "N", "tokens to draft (default 3)", 1, 64},
        {"json", 0, LC_OPT_FLAG, &f.json, NULL, "print JSON", 0, 0},
        LC_ENGINE_OPTIONS(f.engine),
        {0},
    };
    const lc_usage usage = {"longcat eval draft MODEL --ids 1,2,3 [-n N] [options]",
                            "The greedy token after --ids and the draft module's chain behind it. "
                            "Computes in f32 unless\n--compute says otherwise.",
                            options, 1, 1};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code < 0) code = lc_cli_need(f.ids, "--ids");
    if (code >= 0) return code;
    lc_err err = {0};
    return eval_draft(args[0], &f, &err) == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
