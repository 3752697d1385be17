/* bench_make.c: `longcat bench make`: options and progress of engine/synthetic.h. */
#include "base/file.h"
#include "cli/bench.h"
#include "cli/progress.h"
#include "engine/synthetic.h"

#include <string.h>

enum { PLAIN_MS = 10000 };
static const double SMALL_RATIO = 0.25;

static bool on_progress(void *ctx, const lc_synthetic_progress *p) {
    lc_progress *line = ctx;
    char done[32], all[32], speed[32], left[32], bar[25];
    lc_buf text = {0};
    double rate = lc_progress_rate(line, p->done), share = (double)p->done / (double)p->bytes;
    if (lc_progress_due(line)) {
        lc_buf_printf(&text, "[%s] %3.0f%%  %s of %s  %zu of %zu files",
                      lc_bench_bar(bar, sizeof bar - 1, share, 1), 100 * share,
                      lc_show_bytes(done, (double)p->done), lc_show_bytes(all, (double)p->bytes),
                      p->files_done, p->files);
        if (rate >= 1)
            lc_buf_printf(&text, "  %s/s  %s left", lc_show_bytes(speed, rate),
                          lc_show_time(left, (double)(p->bytes - p->done) / rate));
        if (!text.failed) lc_progress_draw(line, text.data);
    }
    lc_buf_free(&text);
    return !lc_progress_interrupted(line);
}

static bool type_of(const char *name, lc_dtype *out) {
    static const struct {
        const char *name;
        lc_dtype type;
    } types[] = {
        {"f32", LC_F32}, {"bf16", LC_BF16}, {"fp8", LC_F8_E4M3}, {"int8", LC_I8}, {"int4", LC_I32}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(name, types[i].name)) {
            *out = types[i].type;
            return true;
        }
    return false;
}

/* A shape's name, or a config.json. */
static int read_shape(const char *shape, lc_buf *config, lc_err *err) {
    int status = lc_synthetic_shape(shape, config, err);
    if (status != LC_ENOTFOUND || !strchr(shape, '.') || !strcmp(shape, "2.0")) return status;
    return lc_file_read(shape, 1 << 24, config, err);
}

static int make(const lc_synthetic *given, const char *out, uint64_t *bytes, lc_err *err) {
    lc_progress line;
    lc_synthetic how = *given;
    lc_progress_begin(&line, PLAIN_MS);
    how.progress = on_progress;
    how.ctx = &line;
    int status = lc_synthetic_write(&how, out, bytes, err);
    lc_progress_end(&line);
    return status;
}

int lc_bench_make(int argc, char **argv) {
    const char *shape = "lite", *type = "bf16";
    int64_t layers = 0, vocab = 0, seed = 0, threads = 0;
    double ratio = SMALL_RATIO, shard = 4;
    bool draft = false;
    const lc_opt options[] = {
        {"shape", 0, LC_OPT_STRING, &shape, "NAME",
         "flash, lite (default), sparse, 2.0, or the path of a config.json", 0, 0},
        {"layers", 0, LC_OPT_INT, &layers, "N", "layers (default: as many as the shape has)", 1,
         1024},
        {"type", 0, LC_OPT_STRING, &type, "TYPE",
         "bf16 (default), f32, fp8 or int4 (projections and FFNs) or int8 (FFNs)", 0, 0},
        {"vocab", 0, LC_OPT_INT, &vocab, "N", "words (default: as many as the shape has)", 8,
         1 << 24},
        {"ngram-ratio", 0, LC_OPT_FLOAT, &ratio, "R",
         "rows of an n-gram table by words (default: 0.25; 0: the true ratio, which takes tens of "
         "GB)",
         0, 100000},
        {"draft", 0, LC_OPT_FLAG, &draft, NULL, "with the draft module", 0, 0},
        {"seed", 0, LC_OPT_INT, &seed, "N", "same seed, same bytes (default 0)", 0,
         9007199254740992.0},
        {"shard", 0, LC_OPT_FLOAT, &shard, "GB", "largest file (default: 4)", 0.000001, 10000},
        {"threads", 't', LC_OPT_INT, &threads, "N",
         "threads to use (default: the CPUs of this process); never changes a byte", 1, 1024},
        {0},
    };
    const lc_usage usage = {
        "longcat bench make [--shape NAME] [--layers N] [--type TYPE] OUT",
        "Writes a checkpoint with the config, tensor names and sizes of a published model and\n"
        "random weights into the folder OUT: for measurements without a download. Activations\n"
        "keep their size through the layers, and the router spreads tokens evenly over its\n"
        "entries. There is no tokenizer. The same arguments give the same bytes.",
        options, 1, 1};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    lc_synthetic how = {.name = shape,
                        .layers = (size_t)layers,
                        .vocab = (size_t)vocab,
                        .ngram_ratio = ratio,
                        .draft = draft,
                        .seed = (uint64_t)seed,
                        .shard_bytes = (size_t)(shard * 1e9),
                        .threads = (int)threads};
    if (!type_of(type, &how.type)) {
        fprintf(stderr, "longcat: --type: \"%s\" is unknown: bf16, f32, fp8, int8 or int4\n", type);
        return LC_EXIT_USAGE;
    }
    lc_buf config = {0};
    lc_err err = {0};
    uint64_t bytes = 0;
    int status = read_shape(shape, &config, &err);
    how.config = config.data;
    how.config_len = config.len;
    if (status == LC_OK) status = make(&how, args[0], &bytes, &err);
    lc_buf_free(&config);
    if (status != LC_OK) return lc_cli_fail(&err);
    char size[32];
    printf("%s: %s of weights\n", args[0], lc_show_bytes(size, (double)bytes));
    return LC_EXIT_OK;
}
