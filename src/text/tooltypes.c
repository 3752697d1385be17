/*
 * tooltypes.c: schemas come from strangers and are looked at for every argument, so each parameter
 * is reduced once to a set of admitted types; the table is a JSON object {tool: {parameter: set}},
 * whose lookups are hashed. Only the keywords that decide a type are read (type, anyOf, oneOf,
 * const, enum); validation is the tool's own affair.
 */
#include "text/tooltypes.h"

#include "base/err.h"
#include "text/lenient.h"

#include <limits.h>
#include <string.h>

enum {
    TYPE_NULL = 1,
    TYPE_BOOLEAN = 2,
    TYPE_INTEGER = 4,
    TYPE_NUMBER = 8,
    TYPE_STRING = 16,
    TYPE_ARRAY = 32,
    TYPE_OBJECT = 64,
    TYPE_ANY = 127,
    SCHEMA_DEPTH = 16, /* nested anyOf/oneOf; what is deeper admits everything */
};

struct lc_tooltypes {
    struct json_object *table;
};

static unsigned named_type(struct json_object *name) {
    static const struct {
        const char *name;
        unsigned type;
    } names[] = {{"null", TYPE_NULL},     {"boolean", TYPE_BOOLEAN}, {"integer", TYPE_INTEGER},
                 {"number", TYPE_NUMBER}, {"string", TYPE_STRING},   {"array", TYPE_ARRAY},
                 {"object", TYPE_OBJECT}};
    const char *text =
        json_object_is_type(name, json_type_string) ? json_object_get_string(name) : "";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(text, names[i].name)) return names[i].type;
    return TYPE_ANY;
}

static unsigned value_type(struct json_object *value) {
    switch (json_object_get_type(value)) {
    case json_type_null: return TYPE_NULL;
    case json_type_boolean: return TYPE_BOOLEAN;
    case json_type_int: return TYPE_INTEGER;
    case json_type_double: return lc_lenient_is_integer(value) ? TYPE_INTEGER : TYPE_NUMBER;
    case json_type_string: return TYPE_STRING;
    case json_type_array: return TYPE_ARRAY;
    case json_type_object: return TYPE_OBJECT;
    }
    return TYPE_ANY;
}

static unsigned schema_types(struct json_object *schema, int depth);

/* Of a list: the types that its members name, admit or have. */
static unsigned list_types(struct json_object *list, const char *keyword, int depth) {
    unsigned types = 0;
    for (size_t i = 0; i < json_object_array_length(list) && types != TYPE_ANY; i++) {
        struct json_object *item = json_object_array_get_idx(list, i);
        if (!strcmp(keyword, "type"))
            types |= named_type(item);
        else if (!strcmp(keyword, "enum"))
            types |= value_type(item);
        else
            types |= schema_types(item, depth + 1);
    }
    return types ? types : TYPE_ANY;
}

static unsigned schema_types(struct json_object *schema, int depth) {
    static const char *const keywords[] = {"type", "anyOf", "oneOf", "const", "enum"};
    if (!json_object_is_type(schema, json_type_object) || depth > SCHEMA_DEPTH) return TYPE_ANY;
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++) {
        struct json_object *value;
        if (!json_object_object_get_ex(schema, keywords[i], &value)) continue;
        if (!strcmp(keywords[i], "const")) return value_type(value);
        if (json_object_is_type(value, json_type_array))
            return list_types(value, keywords[i], depth);
        if (i == 0 && json_object_is_type(value, json_type_string)) return named_type(value);
    }
    return TYPE_ANY;
}

bool lc_tooltypes_is_text(struct json_object *schema) {
    return schema_types(schema, 0) == TYPE_STRING;
}

static struct json_object *member(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    if (json_object_is_type(object, json_type_object))
        json_object_object_get_ex(object, key, &value);
    return value;
}

/* {parameter: set of types} of one function, NULL when memory is short. */
static struct json_object *function_types(struct json_object *function) {
    struct json_object *result = json_object_new_object();
    struct json_object *properties = member(member(function, "parameters"), "properties");
    if (!result || !json_object_is_type(properties, json_type_object)) return result;
    json_object_object_foreach(properties, key, schema) {
        struct json_object *types = json_object_new_int((int32_t)schema_types(schema, 0));
        if (!types || json_object_object_add(result, key, types)) {
            json_object_put(types);
            json_object_put(result);
            return NULL;
        }
    }
    return result;
}

static int fill_table(struct json_object *table, struct json_object *tools) {
    for (size_t i = 0; i < json_object_array_length(tools); i++) {
        struct json_object *function = json_object_array_get_idx(tools, i);
        if (member(function, "function")) function = member(function, "function");
        struct json_object *name = member(function, "name");
        if (!json_object_is_type(name, json_type_string) || !*json_object_get_string(name) ||
            member(table, json_object_get_string(name)))
            continue;
        struct json_object *types = function_types(function);
        if (!types || json_object_object_add(table, json_object_get_string(name), types)) {
            json_object_put(types);
            return LC_ENOMEM;
        }
    }
    return LC_OK;
}

int lc_tooltypes_new(struct json_object *tools, lc_tooltypes **out, lc_err *err) {
    *out = NULL;
    if (tools && !json_object_is_type(tools, json_type_array))
        return lc_fail(err, LC_EINVAL, "tools: not an array");
    lc_tooltypes *types = lc_calloc(1, sizeof *types);
    if (types) types->table = json_object_new_object();
    if (!types || !types->table || (tools && fill_table(types->table, tools) != LC_OK)) {
        lc_tooltypes_free(types);
        return lc_fail(err, LC_ENOMEM, "tools: out of memory");
    }
    *out = types;
    return LC_OK;
}

void lc_tooltypes_free(lc_tooltypes *types) {
    if (!types) return;
    json_object_put(types->table);
    lc_free(types);
}

bool lc_tooltypes_has(const lc_tooltypes *types, const char *tool) {
    return json_object_object_get_ex(types->table, tool, NULL);
}

static int new_text(const char *text, size_t len, struct json_object **out) {
    *out = len < INT_MAX ? json_object_new_string_len(text, (int)len) : NULL;
    return *out ? LC_OK : LC_ENOMEM;
}

int lc_tooltypes_value(const lc_tooltypes *types, const char *tool, const char *key,
                       const char *text, size_t len, struct json_object **out) {
    struct json_object *set = member(member(types->table, tool), key);
    unsigned admitted = set ? (unsigned)json_object_get_int(set) : TYPE_ANY;
    if (admitted == TYPE_STRING) return new_text(text, len, out);
    int status = lc_lenient_parse(text, len, out);
    if (status == LC_EFORMAT) return new_text(text, len, out);
    if (status != LC_OK) return status;
    unsigned type = value_type(*out);
    if (type == TYPE_INTEGER) type |= TYPE_NUMBER;
    if ((type & admitted) || !(admitted & TYPE_STRING)) return LC_OK;
    json_object_put(*out);
    return new_text(text, len, out);
}
