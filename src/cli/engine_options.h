/* engine_options.h: the options that every command with a model shares, and those of commands that
 * generate. */
#ifndef LC_CLI_ENGINE_OPTIONS_H
#define LC_CLI_ENGINE_OPTIONS_H

#include "cli/cli.h"
#include "format/config.h"

/* Zero-initialise, point the option table at it, then call lc_cli_engine_options. */
typedef struct lc_engine_flags {
    const char *compute, *isa;
    int64_t threads, chunk;
    lc_opt_list settings;
} lc_engine_flags;

#define LC_ENGINE_OPTIONS(flags)                                                                   \
    {"compute",                                                                                    \
     0,                                                                                            \
     LC_OPT_STRING,                                                                                \
     &(flags).compute,                                                                             \
     "TYPE",                                                                                       \
     "bf16: products of BF16 values, fp32 sums; f32: all fp32 (default: bf16, f32 for F32 "        \
     "checkpoints)",                                                                               \
     0,                                                                                            \
     0},                                                                                           \
        {"threads",  't',                                                                          \
         LC_OPT_INT, &(flags).threads,                                                             \
         "N",        "threads to use (default: the CPUs of this process); never changes a result", \
         1,          1024},                                                                        \
        {"isa",                                                                                    \
         0,                                                                                        \
         LC_OPT_STRING,                                                                            \
         &(flags).isa,                                                                             \
         "NAME",                                                                                   \
         "highest instruction set: scalar, neon, neonbf16, avx2, avx512, avx512bf16, amx; never "  \
         "changes a "                                                                              \
         "result",                                                                                 \
         0,                                                                                        \
         0},                                                                                       \
        {"chunk",    0,                                                                            \
         LC_OPT_INT, &(flags).chunk,                                                               \
         "N",        "tokens of a sequence per step; never changes a result",                      \
         1,          65536},                                                                       \
    {                                                                                              \
        "set", 0, LC_OPT_LIST, &(flags).settings, "SWITCH=VALUE",                                  \
            "override a model switch (docs/formats.md lists them); may be repeated", 0, 0          \
    }

static inline lc_engine_options lc_cli_engine_options(const lc_engine_flags *flags) {
    return (lc_engine_options){.compute = flags->compute,
                               .isa = flags->isa,
                               .threads = (int)flags->threads,
                               .chunk = (size_t)flags->chunk,
                               .settings = flags->settings.items,
                               .n_settings = flags->settings.count};
}

/* Zero-initialise; negative means "not given": set with LC_SAMPLING_UNSET. */
typedef struct lc_sampling_flags {
    double temperature, top_p, min_p, repetition, presence, frequency;
    int64_t top_k, seed, max_tokens;
    bool greedy;
    lc_opt_list stop;
} lc_sampling_flags;

#define LC_SAMPLING_UNSET                                                                          \
    { .temperature = -1, .top_p = -1, .top_k = -1 }

#define LC_SAMPLING_OPTIONS(flags)                                                                  \
    {"max-tokens", 'n', LC_OPT_INT, &(flags).max_tokens, "N", "most tokens to generate", 1,         \
     1 << 24},                                                                                      \
        {"greedy", 0, LC_OPT_FLAG, &(flags).greedy, NULL, "always the likeliest token", 0, 0},      \
        {"temperature",                                                                             \
         0,                                                                                         \
         LC_OPT_FLOAT,                                                                              \
         &(flags).temperature,                                                                      \
         "X",                                                                                       \
         "0 is greedy (default: generation_config.json, else 0)",                                   \
         0,                                                                                         \
         100},                                                                                      \
        {"top-k", 0,      LC_OPT_INT, &(flags).top_k, "N", "keep the N likeliest tokens; 0 is off", \
         0,       1 << 24},                                                                         \
        {"top-p",                                                                                   \
         0,                                                                                         \
         LC_OPT_FLOAT,                                                                              \
         &(flags).top_p,                                                                            \
         "X",                                                                                       \
         "keep the likeliest tokens up to this mass; 1 is off",                                     \
         0,                                                                                         \
         1},                                                                                        \
        {"min-p",                                                                                   \
         0,                                                                                         \
         LC_OPT_FLOAT,                                                                              \
         &(flags).min_p,                                                                            \
         "X",                                                                                       \
         "keep tokens with this share of the best one's probability",                               \
         0,                                                                                         \
         1},                                                                                        \
        {"repetition-penalty", 0, LC_OPT_FLOAT, &(flags).repetition, "X", "1 is off", 0.01, 100},   \
        {"presence-penalty", 0, LC_OPT_FLOAT, &(flags).presence, "X", "0 is off", -100, 100},       \
        {"frequency-penalty", 0, LC_OPT_FLOAT, &(flags).frequency, "X", "0 is off", -100, 100},     \
        {"seed",     0,                                                                             \
         LC_OPT_INT, &(flags).seed,                                                                 \
         "N",        "same seed, same answer (default 0)",                                          \
         0,          9007199254740992.0},                                                           \
    {                                                                                               \
        "stop", 0, LC_OPT_LIST, &(flags).stop, "TEXT", "stop before this text; may be repeated",    \
            0, 0                                                                                    \
    }

/* What the flags say, with the model's generation_config.json for what they don't. */
static inline lc_generation lc_cli_generation(const lc_sampling_flags *f, const lc_config *c) {
    lc_generation how = {
        .max_tokens = (size_t)f->max_tokens, .stop = f->stop.items, .n_stop = f->stop.count};
    double temperature = f->temperature >= 0 ? f->temperature
                         : c->gen_do_sample  ? c->gen_temperature
                                             : 0;
    if (f->temperature < 0 && c->gen_do_sample && temperature == 0) temperature = 1;
    how.sampling.temperature = f->greedy ? 0.0f : (float)temperature;
    how.sampling.top_p = (float)(f->top_p >= 0 ? f->top_p : c->gen_top_p);
    how.sampling.top_k = (int32_t)(f->top_k >= 0 ? f->top_k : c->gen_top_k);
    how.sampling.min_p = (float)f->min_p;
    how.sampling.repetition_penalty = (float)f->repetition;
    how.sampling.presence_penalty = (float)f->presence;
    how.sampling.frequency_penalty = (float)f->frequency;
    how.sampling.seed = (uint64_t)f->seed;
    return how;
}

#endif
