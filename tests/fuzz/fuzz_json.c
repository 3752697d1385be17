/* fuzz_json.c: whatever the JSON reader accepts, it accepts again after printing it. */
#include "base/err.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct json_object *value, *again;
    lc_err err = {0};
    int status = lc_json_parse((const char *)data, size, "input", &value, &err);
    if (status != LC_OK) {
        if (value || status != err.code || !err.text[0]) abort();
        return 0;
    }
    const char *text = json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN);
    if (lc_json_parse(text, strlen(text), "printed", &again, &err) != LC_OK) abort();
    json_object_put(again);
    json_object_put(value);
    return 0;
}
