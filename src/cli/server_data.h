/* server_data.h: the folder in which a server keeps keys, ledger and prompt cache. */
#ifndef LC_CLI_SERVER_DATA_H
#define LC_CLI_SERVER_DATA_H

#include "cli/cli.h"

typedef struct lc_server_data {
    char folder[4096];
    uint8_t secret[32]; /* made once, kept in FOLDER/secret (mode 0600) */
    int lock;           /* -1: not held */
} lc_server_data;

/* given: --data, or NULL for $XDG_DATA_HOME/longcat or ~/.local/share/longcat. Makes it (0700). */
int lc_server_data_open(const char *given, lc_server_data *out, lc_err *err);
/* What a server needs beyond the folder: no other server in it, and the secret. */
int lc_server_data_hold(lc_server_data *data, lc_err *err);
void lc_server_data_close(lc_server_data *data);

/* "512M", "10G", "1.5G", "0": powers of 1024. */
int lc_cli_bytes(const char *what, const char *text, size_t *out, lc_err *err);

/* Options that a file gave; targets of options point into it. Zero-initialise, free at the end. */
typedef struct lc_cli_config {
    const char *path; /* target of the option "config" */
    lc_buf text;
} lc_cli_config;
/* lc_cli_parse with the options of the file first, so that flags win; lists too: what the command
 * line has of one replaces the file's. */
int lc_cli_parse_config(const lc_usage *usage, int argc, char **argv, lc_cli_config *config,
                        const char **args, int *n_args);

#endif
