#include "cli/cli.h"
int lc_cmd_tokenize(int argc, char **argv) {
    (void)argc, (void)argv;
    return LC_EXIT_FAILED;
}
