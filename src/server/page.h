/* page.h: files that are packed into the program: the page at / and what describes the API. */
#ifndef LC_SERVER_PAGE_H
#define LC_SERVER_PAGE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct lc_page_file {
    const char *path; /* "/", "/page.js", ... */
    const char *type; /* content type */
    const char *data;
    size_t len;
} lc_page_file;

/* false: none under this path. */
bool lc_page_find(const char *path, lc_page_file *out);

#endif
