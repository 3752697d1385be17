/* page.c: the files of web/ and the API's description as bytes of the program. */
#include "server/page.h"

#include <string.h>

/* Assembled in: name_begin .. name_end are the bytes of the file. */
#define PACK(name, file)                                                                           \
    extern const char name##_begin[], name##_end[];                                                \
    __asm__(".section .rodata\n.global " #name "_begin\n.global " #name "_end\n" #name             \
            "_begin:\n.incbin \"" file "\"\n" #name "_end:\n.byte 0\n.previous\n")

PACK(lc_page_html, "web/index.html");
PACK(lc_page_js, "web/page.js");
PACK(lc_page_css, "web/page.css");
PACK(lc_page_openapi, "web/openapi.json");

bool lc_page_find(const char *path, lc_page_file *out) {
    static const struct {
        const char *path, *type, *begin, *end;
    } files[] = {
        {"/", "text/html; charset=utf-8", lc_page_html_begin, lc_page_html_end},
        {"/page.js", "text/javascript; charset=utf-8", lc_page_js_begin, lc_page_js_end},
        {"/page.css", "text/css; charset=utf-8", lc_page_css_begin, lc_page_css_end},
        {"/openapi.json", "application/json", lc_page_openapi_begin, lc_page_openapi_end},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (strcmp(path, files[i].path) != 0) continue;
        *out = (lc_page_file){files[i].path, files[i].type, files[i].begin,
                              (size_t)(files[i].end - files[i].begin)};
        return true;
    }
    return false;
}
