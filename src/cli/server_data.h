/* server_data.h: the folder in which a server keeps keys, ledger and prompt cache. */
#ifndef LC_CLI_SERVER_DATA_H
#define LC_CLI_SERVER_DATA_H

#include "cli/cli.h"

typedef struct lc_server_data {
    char folder[4096];
    uint8_t secret[32]; /* made once, kept in FOLDER/secret (mode 0600) */
} lc_server_data;

/* given: --data, or NULL for $XDG_DATA_HOME/longcat or ~/.local/share/longcat. Makes it (0700). */
int lc_server_data_open(const char *given, lc_server_data *out, lc_err *err);

/* "512M", "10G", "1.5G", "0": powers of 1024. */
int lc_cli_bytes(const char *what, const char *text, size_t *out, lc_err *err);

/* Options that a file gave; targets of options point into it. Zero-initialise, free at the end. */
typedef struct lc_cli_config {
    const char *path; /* target of the option "config" */
    char *lines[128];
    size_t n;
} lc_cli_config;
/* lc_cli_parse with the options of the file first, so that flags win. */
int lc_cli_parse_config(const lc_usage *usage, int argc, char **argv, lc_cli_config *config,
                        const char **args, int *n_args);
void lc_cli_config_free(lc_cli_config *config);

#endif
