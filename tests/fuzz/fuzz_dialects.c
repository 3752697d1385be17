/*
 * fuzz_dialects.c: bytes as a request body: each dialect reads it; what was read is rendered with a
 * fixed run of events, which must work for every request that was taken.
 */
#include "server/api.h"

#include <stdlib.h>
#include <string.h>

static const char *no_header(void *ctx, const char *name) {
    (void)ctx;
    (void)name;
    return NULL;
}

static void require(bool good) {
    if (!good) abort();
}

static void reply(const lc_dialect *d, const lc_api_request *r) {
    static const lc_api_reply_info info = {
        .id = "i", .model = "m", .request_id = "r", .created = 1};
    static const lc_api_logprob own = {3, -1, "\xE7", 1};
    static const lc_api_event events[] = {
        {.kind = LC_API_BEGIN},
        {.kind = LC_API_PING},
        {.kind = LC_API_REASONING, .text = "a\xFF\"", .len = 3},
        {.kind = LC_API_CONTENT, .text = "b", .len = 1, .logprobs = &own, .n_logprobs = 1},
        {.kind = LC_API_CALL, .call_id = "c", .name = "f", .arguments = "{}"},
        {.kind = LC_API_FINISH, .reason = LC_REASON_STOP},
        {.kind = LC_API_USAGE},
    };
    lc_api_reply *reply = NULL;
    lc_err err = {0};
    require(d->open(r, &info, &reply, &err) == LC_OK);
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        lc_buf out = {0};
        struct json_object *body = NULL;
        bool chat_only = events[i].kind == LC_API_REASONING || events[i].kind == LC_API_CALL;
        if (r->messages || !chat_only) require(d->event(reply, &events[i], &out, &err) == LC_OK);
        if (!r->stream && events[i].kind == LC_API_USAGE)
            require(lc_json_parse(out.data, out.len, "reply", &body, &err) == LC_OK);
        json_object_put(body);
        lc_buf_free(&out);
    }
    d->close(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const lc_dialect *const dialects[] = {&lc_dialect_chat, &lc_dialect_completions,
                                                 &lc_dialect_responses, &lc_dialect_messages};
    struct json_object *body = NULL;
    lc_err err = {0};
    if (lc_json_parse((const char *)data, size, "body", &body, &err) != LC_OK) return 0;
    if (json_object_get_type(body) == json_type_object) {
        for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++) {
            lc_api_request r = {0};
            lc_api_error e = {0};
            int status = dialects[i]->parse(body, no_header, NULL, &r, &e);
            require((status == LC_OK) == (e.status == 0));
            if (status == LC_OK) reply(dialects[i], &r);
            lc_api_request_free(&r);
        }
    }
    json_object_put(body);
    return 0;
}
