/* fuzz_recipe.c: recipes of a training run: any text is parsed or refused. */
#include "train/recipe.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    lc_recipe *r;
    lc_err err = {0};
    char hex[65];
    if (lc_recipe_parse((const char *)data, size, "dir/x.recipe", &r, &err) == LC_OK)
        lc_recipe_hash(r, r->n_stages, hex, &err);
    lc_recipe_free(r);
    return 0;
}
