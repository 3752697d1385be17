/* recipe_internal.h: the tables of keys, for parsing and hashing. */
#ifndef LC_TRAIN_RECIPE_INTERNAL_H
#define LC_TRAIN_RECIPE_INTERNAL_H

#include "train/recipe.h"

typedef enum lc_key_kind {
    LC_KEY_TEXT,   /* char * */
    LC_KEY_PATH,   /* char *, made relative to the recipe's folder */
    LC_KEY_NUMBER, /* double */
    LC_KEY_COUNT,  /* int64_t */
    LC_KEY_CHOICE, /* int64_t: place of the word in `words` */
} lc_key_kind;

typedef struct lc_key {
    const char *name;
    lc_key_kind kind;
    size_t offset; /* in lc_recipe, lc_recipe_source or lc_recipe_stage */
    double min, max;
    const char *words; /* "no yes" */
    bool free;         /* doesn't decide the weights */
} lc_key;

typedef struct lc_section {
    const char *name; /* "model"; with `named` a name follows: "stage short" */
    bool named;
    const lc_key *keys;
    size_t count;
} lc_section;

enum {
    LC_SECTION_MODEL,
    LC_SECTION_TRAIN,
    LC_SECTION_EVAL,
    LC_SECTION_SOURCE,
    LC_SECTION_STAGE,
    LC_SECTION_COUNT
};
extern const lc_section lc_recipe_sections[LC_SECTION_COUNT];

/* After parsing: defaults that depend on other values, and what can't be. */
int lc_recipe_settle(lc_recipe *recipe, lc_err *err);

#endif
