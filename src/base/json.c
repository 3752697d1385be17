/* json.c: strict parsing through json-c. */
#include "base/json.h"

#include "base/err.h"

#include <limits.h>
#include <string.h>

static bool only_space(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (!strchr(" \t\r\n", text[i]) || !text[i]) return false;
    return true;
}

int lc_json_parse(const char *text, size_t len, const char *name, struct json_object **out,
                  lc_err *err) {
    *out = NULL;
    if (len > INT_MAX) return lc_fail(err, LC_ELIMIT, "%s: JSON larger than 2 GiB", name);
    struct json_tokener *tok = json_tokener_new_ex(LC_JSON_DEPTH);
    if (!tok) return lc_fail(err, LC_ENOMEM, "%s: out of memory", name);
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8 |
                                    JSON_TOKENER_ALLOW_TRAILING_CHARS);
    struct json_object *value = json_tokener_parse_ex(tok, text, (int)len);
    enum json_tokener_error code = json_tokener_get_error(tok);
    if (code ==
        json_tokener_continue) { /* a bare number ends only with the text: show json-c the end */
        value = json_tokener_parse_ex(tok, "", 1);
        code = json_tokener_get_error(tok);
        if (code == json_tokener_success) {
            json_tokener_free(tok);
            *out = value;
            return LC_OK;
        }
    }
    size_t end = json_tokener_get_parse_end(tok);
    int status = LC_OK;
    if (code == json_tokener_continue)
        status = lc_fail(err, LC_EFORMAT, "%s: JSON ends too early (%zu bytes)", name, len);
    else if (code == json_tokener_error_depth)
        status = lc_fail(err, LC_ELIMIT, "%s: JSON nested deeper than %d at byte %zu", name,
                         LC_JSON_DEPTH, end);
    else if (code != json_tokener_success)
        status = lc_fail(err, LC_EFORMAT, "%s: %s at byte %zu", name, json_tokener_error_desc(code),
                         end);
    else if (!only_space(text + end, len - end))
        status = lc_fail(err, LC_EFORMAT, "%s: text after the JSON value at byte %zu", name, end);
    json_tokener_free(tok);
    if (status != LC_OK) {
        json_object_put(value);
        return status;
    }
    *out = value;
    return LC_OK;
}

int lc_json_load(const char *path, size_t limit, struct json_object **out, lc_err *err) {
    lc_buf buf = {0};
    *out = NULL;
    int status = lc_file_read(path, limit, &buf, err);
    if (status == LC_OK) status = lc_json_parse(buf.data, buf.len, path, out, err);
    lc_buf_free(&buf);
    return status;
}
