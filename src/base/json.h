/*
 * json.h: the one door to json-c. Key order and a number's own text are kept. The text must be what
 * Python's json module writes and reads: RFC 8259 in valid UTF-8, plus the words NaN, Infinity and
 * -Infinity. It may be nested LC_JSON_DEPTH deep; U+0000 in a key is refused. Duplicate keys: the
 * last one wins (where a duplicate must be refused, as in safetensors, the reader checks itself).
 * Numbers may be of any size: who reads one checks its range. A whole number beyond 64 bits (from
 * -2^63 to 2^64 - 1) is a json_type_double whose text (json_object_to_json_string) is the number as
 * written.
 */
#ifndef LC_BASE_JSON_H
#define LC_BASE_JSON_H

#include "base/buf.h"

#include <json-c/json.h>

enum { LC_JSON_DEPTH = 128 };

/* Parses exactly one JSON value. `name` is used in messages only. *out is owned by the caller
 * (json_object_put); it is NULL for the JSON value null. Errors: LC_EFORMAT or LC_ELIMIT with the
 * byte offset, LC_ENOMEM. */
int lc_json_parse(const char *text, size_t len, const char *name, struct json_object **out,
                  lc_err *err);
/* The same for a file of at most `limit` bytes (0 = 1 GiB). */
int lc_json_load(const char *path, size_t limit, struct json_object **out, lc_err *err);

#endif
