/* call_settle.c: what a worker does behind a generation and before its last bytes: the ledger's row
 * is on the disk, the answers can be replayed. */
#include "server/call.h"

#include "base/log.h"

#include <string.h>

static struct json_object *calls_of(const lc_choice *k, const lc_parsed *p) {
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < p->n_calls && i < k->n_call_ids; i++) {
        struct json_object *call = json_object_new_object(), *function = json_object_new_object();
        json_object_object_add(call, "id", json_object_new_string(k->call_ids[i]));
        json_object_object_add(function, "name", json_object_new_string(p->calls[i].name));
        json_object_object_add(function, "arguments", json_object_get(p->calls[i].arguments));
        json_object_object_add(call, "function", function);
        json_object_array_add(list, call);
    }
    return list;
}

/* The answer in the form in which the client will send it back. */
static struct json_object *message_of(const lc_choice *k) {
    lc_parsed p = lc_toolparser_result(k->parser);
    struct json_object *m = json_object_new_object();
    json_object_object_add(m, "content", json_object_new_string_len(p.content, (int)p.content_len));
    if (p.reasoning_len)
        json_object_object_add(m, "reasoning_content",
                               json_object_new_string_len(p.reasoning, (int)p.reasoning_len));
    if (p.n_calls) json_object_object_add(m, "tool_calls", calls_of(k, &p));
    return m;
}

/* Whether the message stands for nothing but the tokens that were sampled: the client's own
 * beginning isn't in it, nor were ends of turns passed over, nor did a stop string cut it, nor is a
 * token lost. An answer that ran out of tokens isn't a turn's end as the model writes it, but it is
 * what was sampled. */
static bool stands_for_tokens(const lc_call *c, const lc_choice *k) {
    return k->parser && k->tokens.len && k->end != LC_TASK_STRING && k->end != LC_TASK_FAILED &&
           !c->request.ignore_eos && !lc_prompt_continues(&c->request);
}

static void keep_answer(const lc_call *c, const lc_choice *k) {
    const lc_ids *prompt = &c->prompts[k->prompt];
    size_t head = c->heads[k->prompt];
    lc_ids tokens = {0};
    lc_replay_key key;
    lc_err err = {0};
    struct json_object *message = message_of(k);
    lc_ids_append(&tokens, prompt->data + head, prompt->len - head);
    lc_ids_append(&tokens, k->tokens.data, k->tokens.len);
    if (message && !tokens.failed &&
        lc_replay_key_of(c->service->o.replay, c->visit->key.tenant, message, &key, &err) == LC_OK)
        lc_replay_put(c->service->o.replay, key, tokens.data, tokens.len);
    json_object_put(message);
    lc_ids_free(&tokens);
}

void lc_call_settle(lc_call *c) {
    const lc_service *s = c->service;
    lc_err err = {0};
    for (size_t i = 0; i < c->n_choices && s->o.replay && s->prompter.start >= 0; i++)
        if (stands_for_tokens(c, &c->choices[i])) keep_answer(c, &c->choices[i]);
    c->unbilled = s->o.accounts && lc_ledger_add(s->o.accounts, &c->usage, &err) != LC_OK;
    if (c->unbilled) lc_log(LC_LOG_ERROR, "ledger: %s", err.text);
}
