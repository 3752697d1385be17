/* api.c: the life of an internal request; see api.h. */
#include "server/api.h"

#include "base/mem.h"

void lc_api_request_free(lc_api_request *r) {
    for (size_t i = 0; i < r->n_prompts; i++) {
        lc_free(r->prompts[i].text);
        lc_free(r->prompts[i].ids);
    }
    for (size_t i = 0; i < r->n_stops; i++) lc_free(r->stops[i]);
    json_object_put(r->messages);
    json_object_put(r->tools);
    json_object_put(r->schema);
    json_object_put(r->echoed);
    lc_free(r->prompts);
    lc_free(r->model);
    lc_free(r->suffix.text);
    lc_free(r->tool);
    *r = (lc_api_request){0};
}
