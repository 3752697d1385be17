/*
 * llama_depth.c: decoding speed of llama.cpp and ik_llama.cpp at a deep context, without the
 * minutes that a prompt of that length takes. Linked with either; -DIK_LLAMA selects the latter.
 *
 *     llama_depth save THIN  STATE THREADS FLASH DEPTH
 *     llama_depth run  MODEL STATE THREADS FLASH DEPTH STEPS REPEAT AT...
 *
 * THIN has the same cache (layers, width of a cached row) and next to no weights. `save` stores its
 * cache after a prompt of DEPTH tokens as a sequence state; `run` loads that into MODEL's context:
 * the numbers in a cache don't matter for its speed. Then, for each AT <= DEPTH, REPEAT times STEPS
 * tokens are decoded behind the first AT ones. Prints a line of JSON each: seconds of a repetition.
 */
#include "llama.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "error: llama_depth: %s\n", #what);                                    \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { BATCH = 2048, SPARE = 512 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct llama_model *open_model(const char *path) {
    struct llama_model_params how = llama_model_default_params();
#ifdef IK_LLAMA
    how.use_mmap = false;
    how.repack_tensors = true;
#else
    how.load_mode = LLAMA_LOAD_MODE_NONE;
#endif
    struct llama_model *model = llama_model_load_from_file(path, how);
    CHECK(model);
    return model;
}

static void close_model(struct llama_model *model) {
#ifdef IK_LLAMA
    llama_free_model(model);
#else
    llama_model_free(model);
#endif
}

static struct llama_context *open_context(struct llama_model *model, uint32_t length, int threads,
                                          int flash) {
    struct llama_context_params how = llama_context_default_params();
    how.n_ctx = length + SPARE;
    how.n_batch = how.n_ubatch = BATCH;
    how.n_threads = how.n_threads_batch = threads;
#ifdef IK_LLAMA
    how.mla_attn = 3;
    how.flash_attn = flash;
#else
    how.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
#endif
    struct llama_context *context = llama_init_from_model(model, how);
    CHECK(context);
    return context;
}

static void decode(struct llama_context *context, int words, int tokens, int position) {
    struct llama_batch batch = llama_batch_init(tokens, 0, 1);
    batch.n_tokens = tokens;
    for (int i = 0; i < tokens; i++) {
        batch.token[i] = rand() % words;
        batch.pos[i] = position + i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = i == tokens - 1;
    }
    CHECK(llama_decode(context, batch) == 0);
    llama_synchronize(context);
    llama_batch_free(batch);
}

static void cut_after(struct llama_context *context, int position) {
#ifdef IK_LLAMA
    llama_kv_cache_seq_rm(context, 0, position, -1);
#else
    llama_memory_seq_rm(llama_get_memory(context), 0, position, -1);
#endif
}

static int words_of(struct llama_model *model) {
#ifdef IK_LLAMA
    return llama_n_vocab(model);
#else
    return llama_vocab_n_tokens(llama_model_get_vocab(model));
#endif
}

static void save_state(struct llama_context *context, const char *path) {
    llama_token none = 0;
    CHECK(llama_state_seq_save_file(context, path, 0, &none, 0) > 0);
}

static void load_state(struct llama_context *context, const char *path) {
    llama_token none;
    size_t count = 0;
    CHECK(llama_state_seq_load_file(context, path, 0, &none, 1, &count) > 0);
}

static void save(struct llama_model *model, struct llama_context *context, const char *path,
                 int depth) {
    for (int at = 0; at < depth; at += BATCH)
        decode(context, words_of(model), depth - at < BATCH ? depth - at : BATCH, at);
    save_state(context, path);
}

static void run(struct llama_model *model, struct llama_context *context, int at, int steps,
                int repeat) {
    cut_after(context, at);
    decode(context, words_of(model), 1, at);
    printf("{\"at\": %d, \"tokens\": %d, \"times\": [", at, steps);
    for (int r = 0; r < repeat; r++) {
        cut_after(context, at + 1);
        double begin = now();
        for (int s = 0; s < steps; s++) decode(context, words_of(model), 1, at + 1 + s);
        printf("%s%.6f", r ? ", " : "", now() - begin);
    }
    printf("]}\n");
    fflush(stdout);
}

int main(int argc, char **argv) {
    CHECK(argc > 6);
    bool saving = !strcmp(argv[1], "save");
    int threads = atoi(argv[4]), flash = atoi(argv[5]), depth = atoi(argv[6]);
    CHECK(threads > 0 && depth > 0 && (saving || argc > 9));
    llama_backend_init();
    struct llama_model *model = open_model(argv[2]);
    struct llama_context *context = open_context(model, (uint32_t)depth, threads, flash);
    if (saving) {
        save(model, context, argv[3], depth);
    } else {
        /* The deepest first: what lies behind the others is cut off. */
        load_state(context, argv[3]);
        for (int i = argc - 1; i > 8; i--)
            run(model, context, atoi(argv[i]), atoi(argv[7]), atoi(argv[8]));
    }
    llama_free(context);
    close_model(model);
    return 0;
}
