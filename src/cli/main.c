/* main.c: the table of subcommands. Each has a file cmd_<name>.c and answers --help. */
#include "cli/cli.h"

#include "base/log.h"

#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"run", lc_cmd_run, "continue a text"},
    {"chat", lc_cmd_chat, "talk to a model in the terminal"},
    {"serve", lc_cmd_serve, "OpenAI's and Anthropic's APIs for coding agents"},
    {"keys", lc_cmd_keys, "API keys of the server"},
    {"usage", lc_cmd_usage, "what was used, from the server's ledger"},
    {"inspect", lc_cmd_inspect, "what a model is, what it needs, whether it fits this machine"},
    {"tokenize", lc_cmd_tokenize, "text to token ids and back"},
    {"template", lc_cmd_template, "render a chat template"},
    {"parse", lc_cmd_parse, "model output to reasoning, content and tool calls"},
    {"eval", lc_cmd_eval, "logits, perplexity, hashes and draft chains"},
    {"pull", lc_cmd_pull, "download a model from a hub"},
    {"quantize", lc_cmd_quantize, "a checkpoint as int4 or int8"},
    {"pack", lc_cmd_pack, "a checkpoint in the order that products read"},
    {"bench", lc_cmd_bench, "what this machine can do, and how much of it is used"},
    {"train", lc_cmd_train, "tokenizers, training data, and training runs"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_commands(FILE *out) {
    fprintf(out, "longcat " LC_VERSION
                 ": runs the LongCat-2.0 model family on machines that people own\n\n"
                 "usage: longcat COMMAND [arguments]\n\ncommands:\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\n`longcat COMMAND --help` explains one command.\n");
}

static void log_to_stderr(void *ctx, lc_log_level level, const char *text) {
    (void)ctx;
    fprintf(stderr, "longcat: %s: %s\n", lc_log_level_name(level), text);
}

int main(int argc, char **argv) {
    lc_log_set(LC_LOG_WARN, log_to_stderr, NULL);
    if (argc < 2) {
        print_commands(stderr);
        return LC_EXIT_USAGE;
    }
    char help[] = "--help";
    if (!strcmp(argv[1], "help") && argc > 2) { /* help NAME is NAME --help */
        memmove(argv + 1, argv + 2, (size_t)(argc - 2) * sizeof *argv);
        argv[argc - 1] = help;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_commands(stdout);
        return LC_EXIT_OK;
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "version")) {
        puts("longcat " LC_VERSION);
        return LC_EXIT_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name)) {
            int code = commands[i].run(argc - 1, argv + 1);
            if (fflush(stdout) != 0 || ferror(stdout)) {
                fprintf(stderr, "longcat: writing to standard output failed\n");
                return LC_EXIT_FAILED;
            }
            return code;
        }
    fprintf(stderr, "longcat: no command \"%s\"; `longcat --help` lists them\n", argv[1]);
    return LC_EXIT_USAGE;
}
