/* prompt.c: renders, encodes, and puts back the tokens of known answers; see prompt.h. */
#include "server/prompt.h"

#include "base/err.h"

#include <string.h>

static bool is_eos(const lc_prompter *p, int32_t token) {
    for (size_t i = 0; i < p->n_eos; i++)
        if (p->eos[i] == token) return true;
    return false;
}

static int encode(const lc_prompter *p, struct json_object *messages, struct json_object *tools,
                  struct json_object *arguments, lc_ids *out, lc_err *err) {
    lc_chat chat = {.messages = messages, .tools = tools, .arguments = arguments};
    return lc_chat_encode(p->tmpl, &chat, p->tokenizer, true, out, err);
}

/* The first token that add_generation_prompt adds, if it is a special one. */
static int find_start(lc_prompter *p, lc_err *err) {
    struct json_object *messages = NULL, *on = NULL;
    lc_ids without = {0}, with = {0};
    static const char user[] = "[{\"role\":\"user\",\"content\":\"x\"}]";
    static const char generate[] = "{\"add_generation_prompt\":true}";
    int status = lc_json_parse(user, sizeof user - 1, "probe", &messages, err);
    if (status == LC_OK) status = lc_json_parse(generate, sizeof generate - 1, "probe", &on, err);
    if (status == LC_OK) status = encode(p, messages, NULL, NULL, &without, err);
    if (status == LC_OK) status = encode(p, messages, NULL, on, &with, err);
    if (status == LC_OK && with.len > without.len &&
        lc_tokenizer_is_special(p->tokenizer, with.data[without.len]))
        p->start = with.data[without.len];
    json_object_put(messages);
    json_object_put(on);
    lc_ids_free(&without);
    lc_ids_free(&with);
    return status;
}

int lc_prompter_init(lc_prompter *p, const lc_chat_template *tmpl, const lc_tokenizer *tokenizer,
                     lc_replay *replay, const int32_t *eos, size_t n_eos, lc_err *err) {
    *p = (lc_prompter){.tmpl = tmpl,
                       .tokenizer = tokenizer,
                       .replay = replay,
                       .eos = eos,
                       .n_eos = n_eos,
                       .start = -1,
                       .think = lc_tokenizer_id(tokenizer, "<longcat_think>"),
                       .think_end = lc_tokenizer_id(tokenizer, "</longcat_think>")};
    return tmpl ? find_start(p, err) : LC_OK;
}

static struct json_object *last_of(struct json_object *messages) {
    size_t n = json_object_array_length(messages);
    return n ? json_object_array_get_idx(messages, n - 1) : NULL;
}

static bool is_assistant(struct json_object *message) {
    const char *role = json_object_get_string(json_object_object_get(message, "role"));
    return role && !strcmp(role, "assistant");
}

bool lc_prompt_continues(const lc_api_request *r) {
    struct json_object *last = last_of(r->messages);
    return last && is_assistant(last) && !json_object_object_get(last, "tool_calls");
}

static struct json_object *arguments_of(const lc_api_request *r, bool plain) {
    struct json_object *a = json_object_new_object();
    json_object_object_add(a, "add_generation_prompt",
                           json_object_new_boolean(!lc_prompt_continues(r)));
    if (plain || r->thinking != LC_THINK_DEFAULT)
        json_object_object_add(a, "enable_thinking",
                               json_object_new_boolean(!plain && r->thinking == LC_THINK_ON));
    if (r->keep_reasoning)
        json_object_object_add(a, "save_reasoning_content", json_object_new_boolean(true));
    if (r->choice == LC_TOOLS_NONE && r->tools)
        json_object_object_add(a, "tool_choice", json_object_new_string("none"));
    return a;
}

/* ---- replay ---- */

typedef struct turns {
    size_t starts, messages; /* of assistant turns: in the tokens, in the conversation */
} turns;

static turns count_turns(const lc_prompter *p, const lc_api_request *r, const lc_ids *tokens) {
    turns n = {0};
    for (size_t i = 0; i < tokens->len; i++)
        if (tokens->data[i] == p->start) n.starts++;
    for (size_t i = 0; i < json_object_array_length(r->messages); i++)
        if (is_assistant(json_object_array_get_idx(r->messages, i))) n.messages++;
    return n;
}

/* Copies a turn's inside, from *at on up to its EOS, from the rendered tokens or the known answer.
 */
static int put_turn(const lc_prompter *p, uint64_t tenant, struct json_object *message,
                    const lc_ids *from, size_t *at, lc_ids *out, lc_err *err) {
    size_t end = *at;
    lc_replay_key key;
    while (end < from->len && !is_eos(p, from->data[end])) end++;
    int status = lc_replay_key_of(p->replay, tenant, message, &key, err);
    if (status != LC_OK) return status;
    if (!lc_replay_get(p->replay, key, out)) lc_ids_append(out, from->data + *at, end - *at);
    *at = end;
    return LC_OK;
}

/* User data can't hold the start token (it is sanitized), so the k-th start in the tokens opens the
 * k-th assistant message if there are as many of both; templates where there aren't are left alone.
 */
static int put_answers(const lc_prompter *p, uint64_t tenant, const lc_api_request *r,
                       const lc_ids *from, lc_ids *out, lc_err *err) {
    size_t m = 0, n = json_object_array_length(r->messages);
    int status = LC_OK;
    for (size_t i = 0; i < from->len && status == LC_OK;) {
        lc_ids_push(out, from->data[i]);
        if (from->data[i++] != p->start) continue;
        while (m < n && !is_assistant(json_object_array_get_idx(r->messages, m))) m++;
        if (m < n)
            status = put_turn(p, tenant, json_object_array_get_idx(r->messages, m++), from, &i, out,
                              err);
    }
    return status;
}

int lc_prompt_chat(const lc_prompter *p, uint64_t tenant, const lc_api_request *r, bool plain,
                   lc_ids *out, size_t *head, lc_err *err) {
    lc_ids rendered = {0};
    if (!p->tmpl) return lc_fail(err, LC_EUNSUPPORTED, "this model has no chat template");
    struct json_object *arguments = arguments_of(r, plain);
    if (!arguments) return lc_fail(err, LC_ENOMEM, "prompt: out of memory");
    rendered.most = out->most;
    int status = encode(p, r->messages, r->tools, arguments, &rendered, err);
    out->least = rendered.least;
    json_object_put(arguments);
    bool open = lc_prompt_continues(r);
    if (status == LC_OK && open && rendered.len && is_eos(p, rendered.data[rendered.len - 1]))
        rendered.len--;
    if (status == LC_OK) {
        turns n = count_turns(p, r, &rendered);
        bool replays = p->replay && p->start >= 0 && n.starts == n.messages + (open ? 0 : 1);
        if (replays)
            status = put_answers(p, tenant, r, &rendered, out, err);
        else
            lc_ids_append(out, rendered.data, rendered.len);
    }
    if (status == LC_OK && out->failed) status = lc_fail(err, LC_ENOMEM, "prompt: out of memory");
    lc_ids_free(&rendered);
    *head = out->len;
    while (*head > 0 && out->data[*head - 1] != p->start) --*head;
    return status;
}

bool lc_prompt_thinks(const lc_prompter *p, const lc_ids *prompt, size_t head) {
    bool open = false;
    for (size_t i = head; i < prompt->len; i++) {
        if (prompt->data[i] == p->think) open = true;
        if (prompt->data[i] == p->think_end) open = false;
    }
    return open && p->think >= 0;
}
