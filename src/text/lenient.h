/*
 * lenient.h: JSON as models write it: Python's literals, single quotes, unquoted keys, trailing
 * commas, (...) for lists (docs/formats.md, rule 7 of the tool-call rules). NaN, Infinity, hex,
 * digit groups and leading zeros are refused. An integer of any size keeps its digits.
 */
#ifndef LC_TEXT_LENIENT_H
#define LC_TEXT_LENIENT_H

#include "base/json.h"

enum { LC_LENIENT_DEPTH = 128 };

typedef enum lc_lenient_status {
    LC_LENIENT_MORE, /* fine so far, the value goes on */
    LC_LENIENT_DONE, /* `value` is complete and ends just before `pos` */
    LC_LENIENT_BAD,  /* no value; `pos` is not behind the first byte that can't be one */
    LC_LENIENT_NOMEM,
} lc_lenient_status;

/* White space of this format: space, tab, LF, CR, VT, FF. */
bool lc_lenient_space(char c);

/* An incremental reader. Zero-initialise; lc_lenient_reset makes it ready for the next value. */
typedef struct lc_lenient {
    size_t pos;                /* bytes looked at */
    struct json_object *value; /* owned; NULL is JSON's null */

    /* Private: where the reader stands. */
    int state;
    size_t token; /* start of the token that is being read */
    char quote;   /* of the string that is being read */
    bool is_key, escaped;
    int depth;
    char *key; /* waits for its value */
    struct {
        struct json_object *box;
        char close;
    } stack[LC_LENIENT_DEPTH];
} lc_lenient;

/* Reads on. text is everything since the value's first byte, what earlier calls saw included (it
 * may have moved). final: no more will come. */
lc_lenient_status lc_lenient_feed(lc_lenient *reader, const char *text, size_t len, bool final);
/* True if the text so far ends inside a string, which began at reader->token. */
bool lc_lenient_in_string(const lc_lenient *reader);
/* Frees the value (take it out first to keep it) and starts again. */
void lc_lenient_reset(lc_lenient *reader);

/* Reads a whole text: one value with white space around it. LC_EFORMAT if it is none, LC_ENOMEM.
 * *out is the caller's. */
int lc_lenient_parse(const char *text, size_t len, struct json_object **out);

/* True for a number written without fraction and exponent, whatever its size. */
bool lc_lenient_is_integer(struct json_object *value);

#endif
