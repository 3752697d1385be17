/*
 * fields.h: reading JSON from outside: fields with a type and a range. The first fault fills the
 * error (status 400, the field's place in param and at the head of the text) and stays; readers go
 * on harmlessly after it, so that a caller checks once at the end. Absent and null are the same:
 * then *out stays as it was.
 */
#ifndef LC_SERVER_FIELDS_H
#define LC_SERVER_FIELDS_H

#include "server/api.h"

typedef struct lc_fields {
    lc_api_error *error;
    char path[72]; /* of the object that is being read: "messages[3].content[0]" */
    size_t len;
} lc_fields;

bool lc_fields_failed(const lc_fields *f);
/* Always false. key NULL: the object itself. */
bool lc_fields_refuse(lc_fields *f, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool lc_fields_no_memory(lc_fields *f); /* always false */

/* Goes into obj.key[index]; SIZE_MAX: obj.key. Returns what leave needs. */
size_t lc_fields_enter(lc_fields *f, const char *key, size_t index);
void lc_fields_leave(lc_fields *f, size_t mark);

/* NULL if obj is no object or has no such field. */
struct json_object *lc_field(struct json_object *obj, const char *key);
bool lc_field_is(struct json_object *value, const char *text); /* a string equal to text */

bool lc_field_bool(lc_fields *f, struct json_object *obj, const char *key, bool *out);
/* Whole numbers written as 3.0 are taken too. */
bool lc_field_int(lc_fields *f, struct json_object *obj, const char *key, int64_t low, int64_t high,
                  int64_t *out);
bool lc_field_number(lc_fields *f, struct json_object *obj, const char *key, double low,
                     double high, double *out);
/* Borrowed from obj. */
bool lc_field_string(lc_fields *f, struct json_object *obj, const char *key,
                     struct json_object **out);
bool lc_field_list(lc_fields *f, struct json_object *obj, const char *key, size_t most,
                   struct json_object **out);
bool lc_field_object(lc_fields *f, struct json_object *obj, const char *key,
                     struct json_object **out);
/* A copy as C string of at most `most` bytes, without NUL inside. An old *out is freed. */
bool lc_field_copy(lc_fields *f, struct json_object *obj, const char *key, size_t most, char **out);

/* Building: value is taken over; NULL, or a failure: no memory. */
bool lc_put(lc_fields *f, struct json_object *obj, const char *key, struct json_object *value);
bool lc_push(lc_fields *f, struct json_object *list, struct json_object *value);

#endif
