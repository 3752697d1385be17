/*
 * tooltypes.h: which tools there are and which JSON types each parameter admits, and from that the
 * value that a parameter's text stands for (docs/formats.md, rule 6 of the tool-call rules).
 */
#ifndef LC_TEXT_TOOLTYPES_H
#define LC_TEXT_TOOLTYPES_H

#include "base/json.h"

typedef struct lc_tooltypes lc_tooltypes;

/* tools: array of {"type":"function","function":{"name","parameters"}} or of bare functions; read
 * once, not kept. Entries without a name can't be called by name and are left out. Where two have
 * the same name the first counts. */
int lc_tooltypes_new(struct json_object *tools, lc_tooltypes **out, lc_err *err);
void lc_tooltypes_free(lc_tooltypes *types);

/* Whether a parameter of this schema admits strings only: then its text is the value as it stands.
 */
bool lc_tooltypes_is_text(struct json_object *schema);

bool lc_tooltypes_has(const lc_tooltypes *types, const char *tool);

/* The value of a parameter from its text. An unknown tool or parameter admits every type. *out is
 * the caller's (NULL is JSON's null). LC_ENOMEM is the only failure. */
int lc_tooltypes_value(const lc_tooltypes *types, const char *tool, const char *key,
                       const char *text, size_t len, struct json_object **out);

#endif
