/* engine_options.h: the options that every command with a model shares. */
#ifndef LC_CLI_ENGINE_OPTIONS_H
#define LC_CLI_ENGINE_OPTIONS_H

#include "cli/cli.h"

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
     "bf16 (default): products of BF16 values, fp32 sums; f32: all fp32",                          \
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
         "highest instruction set: scalar, neon, avx2, avx512; never changes a result",            \
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

#endif
