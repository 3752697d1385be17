/* fuzz_utf8.c: the decoder never reads past the end, every valid character encodes back to its own
 * bytes, and sanitised text is valid and stays as it is. */
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

static void check_valid(const char *text, size_t len) {
    for (size_t i = 0, used; i < len; i += used)
        if (lc_utf8_decode(text + i, len - i, &used) < 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size ? size : 1); /* exactly as long as the text, so that ASan sees all */
    if (!text) return 0;
    if (size) memcpy(text, data, size);
    for (size_t i = 0, used; i < size; i += used) {
        char back[4];
        int32_t code = lc_utf8_decode(text + i, size - i, &used);
        if (used < 1 || used > size - i || used > 4) abort();
        if (code == LC_UTF8_PARTIAL && i + used != size) abort();
        if (code >= 0 &&
            (lc_utf8_encode((uint32_t)code, back) != used || memcmp(back, text + i, used)))
            abort();
    }
    lc_buf once = {0}, twice = {0};
    if (!lc_utf8_sanitize(&once, text, size)) abort();
    if (once.data) check_valid(once.data, once.len);
    if (!lc_utf8_sanitize(&twice, once.data, once.len)) abort();
    if (once.len != twice.len || (once.len && memcmp(once.data, twice.data, once.len))) abort();
    lc_buf_free(&once);
    lc_buf_free(&twice);
    free(text);
    return 0;
}
