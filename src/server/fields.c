/* fields.c: typed and ranged fields; see fields.h. */
#include "server/fields.h"

#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool lc_fields_failed(const lc_fields *f) { return f->error->status != 0; }

bool lc_fields_refuse(lc_fields *f, const char *key, const char *fmt, ...) {
    lc_api_error *e = f->error;
    if (e->status) return false;
    e->status = 400;
    snprintf(e->code, sizeof e->code, "invalid_parameter");
    snprintf(e->param, sizeof e->param, "%.*s%s%s", (int)f->len, f->path, f->len && key ? "." : "",
             key ? key : "");
    size_t at = e->param[0] ? (size_t)snprintf(e->text, sizeof e->text,
                                               "%.*s: ", (int)sizeof e->param - 1, e->param)
                            : 0;
    va_list args;
    va_start(args, fmt);
    vsnprintf(e->text + at, sizeof e->text - at, fmt, args);
    va_end(args);
    return false;
}

bool lc_fields_no_memory(lc_fields *f) {
    lc_api_error *e = f->error;
    if (!e->status) {
        *e = (lc_api_error){.status = 503, .code = "overloaded"};
        snprintf(e->text, sizeof e->text, "out of memory");
    }
    return false;
}

size_t lc_fields_enter(lc_fields *f, const char *key, size_t index) {
    size_t mark = f->len, room = sizeof f->path - f->len;
    int n = index == SIZE_MAX
                ? snprintf(f->path + f->len, room, "%s%s", f->len ? "." : "", key)
                : snprintf(f->path + f->len, room, "%s%s[%zu]", f->len ? "." : "", key, index);
    f->len = n < 0 || (size_t)n >= room ? sizeof f->path - 1 : f->len + (size_t)n;
    return mark;
}

void lc_fields_leave(lc_fields *f, size_t mark) {
    f->len = mark;
    f->path[mark] = 0;
}

struct json_object *lc_field(struct json_object *obj, const char *key) {
    struct json_object *value = NULL;
    if (json_object_get_type(obj) != json_type_object) return NULL;
    json_object_object_get_ex(obj, key, &value);
    return value;
}

bool lc_field_is(struct json_object *value, const char *text) {
    return json_object_get_type(value) == json_type_string &&
           (size_t)json_object_get_string_len(value) == strlen(text) &&
           memcmp(json_object_get_string(value), text, strlen(text)) == 0;
}

/* The field if it is of the type. */
static struct json_object *typed(lc_fields *f, struct json_object *obj, const char *key,
                                 enum json_type type, const char *name) {
    struct json_object *value = lc_field(obj, key);
    if (!value || lc_fields_failed(f)) return NULL;
    if (json_object_get_type(value) == type) return value;
    lc_fields_refuse(f, key, "must be %s", name);
    return NULL;
}

bool lc_field_bool(lc_fields *f, struct json_object *obj, const char *key, bool *out) {
    struct json_object *value = typed(f, obj, key, json_type_boolean, "true or false");
    if (value) *out = json_object_get_boolean(value);
    return !lc_fields_failed(f);
}

bool lc_field_int(lc_fields *f, struct json_object *obj, const char *key, int64_t low, int64_t high,
                  int64_t *out) {
    struct json_object *value = lc_field(obj, key);
    if (!value || lc_fields_failed(f)) return !lc_fields_failed(f);
    double real = json_object_get_double(value);
    int64_t whole = 0;
    switch (json_object_get_type(value)) {
    case json_type_int: whole = json_object_get_int64(value); break;
    case json_type_double:
        if (!isfinite(real) || real != floor(real))
            return lc_fields_refuse(f, key, "must be an integer");
        /* Beyond 2^53 a double doesn't say which integer is meant; such limits don't occur. */
        whole = fabs(real) <= 0x1p53 ? (int64_t)real : real < 0 ? INT64_MIN : INT64_MAX;
        break;
    default: return lc_fields_refuse(f, key, "must be an integer");
    }
    if (whole < low || whole > high)
        return lc_fields_refuse(f, key, "must be from %lld to %lld", (long long)low,
                                (long long)high);
    *out = whole;
    return true;
}

bool lc_field_number(lc_fields *f, struct json_object *obj, const char *key, double low,
                     double high, double *out) {
    struct json_object *value = lc_field(obj, key);
    enum json_type type = json_object_get_type(value);
    if (!value || lc_fields_failed(f)) return !lc_fields_failed(f);
    if (type != json_type_int && type != json_type_double)
        return lc_fields_refuse(f, key, "must be a number");
    double real = json_object_get_double(value);
    if (!(real >= low && real <= high))
        return lc_fields_refuse(f, key, "must be from %g to %g", low, high);
    *out = real;
    return true;
}

bool lc_field_string(lc_fields *f, struct json_object *obj, const char *key,
                     struct json_object **out) {
    struct json_object *value = typed(f, obj, key, json_type_string, "a string");
    if (value) *out = value;
    return !lc_fields_failed(f);
}

bool lc_field_list(lc_fields *f, struct json_object *obj, const char *key, size_t most,
                   struct json_object **out) {
    struct json_object *value = typed(f, obj, key, json_type_array, "a list");
    if (value && json_object_array_length(value) > most)
        return lc_fields_refuse(f, key, "has more than %zu entries", most);
    if (value) *out = value;
    return !lc_fields_failed(f);
}

bool lc_field_object(lc_fields *f, struct json_object *obj, const char *key,
                     struct json_object **out) {
    struct json_object *value = typed(f, obj, key, json_type_object, "an object");
    if (value) *out = value;
    return !lc_fields_failed(f);
}

bool lc_field_copy(lc_fields *f, struct json_object *obj, const char *key, size_t most,
                   char **out) {
    struct json_object *value = NULL;
    if (!lc_field_string(f, obj, key, &value) || !value) return !lc_fields_failed(f);
    size_t len = (size_t)json_object_get_string_len(value);
    const char *text = json_object_get_string(value);
    if (len > most) return lc_fields_refuse(f, key, "is longer than %zu bytes", most);
    if (memchr(text, 0, len)) return lc_fields_refuse(f, key, "holds a NUL character");
    lc_free(*out);
    *out = lc_strndup(text, len);
    return *out || lc_fields_no_memory(f);
}

bool lc_put(lc_fields *f, struct json_object *obj, const char *key, struct json_object *value) {
    if (obj && value && json_object_object_add(obj, key, value) == 0) return true;
    json_object_put(value);
    return lc_fields_no_memory(f);
}

bool lc_push(lc_fields *f, struct json_object *list, struct json_object *value) {
    if (list && value && json_object_array_add(list, value) == 0) return true;
    json_object_put(value);
    return lc_fields_no_memory(f);
}
