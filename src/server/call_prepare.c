/* call_prepare.c: what a worker does before a generation: JSON, dialect, template, tokens, limits,
 * grammar. Cheap refusals come first. */
#include "server/call.h"

#include "base/err.h"
#include "engine/engine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DEFAULT_TOKENS = 32768 }; /* as LongCat's platform; memory is kept for all of them */

static void refuse(lc_call *c, int status, const char *code, const char *text) {
    c->error.status = status;
    snprintf(c->error.code, sizeof c->error.code, "%s", code);
    snprintf(c->error.text, sizeof c->error.text, "%s", text);
}

static void refuse_status(lc_call *c, int status, const lc_err *err) {
    bool theirs = status == LC_EINVAL || status == LC_ELIMIT || status == LC_EFORMAT ||
                  status == LC_EUNSUPPORTED;
    refuse(c, theirs ? 400 : 500, theirs ? "invalid_parameter" : "internal_error", err->text);
}

static const char *header_of(void *ctx, const char *name) {
    return json_object_get_string(json_object_object_get(ctx, name));
}

static bool parse(lc_call *c) {
    struct json_object *body = NULL;
    lc_err err = {0};
    if (lc_json_parse(c->body, c->body_len, "body", &body, &err) != LC_OK) {
        refuse(c, 400, "invalid_json", err.text);
        return false;
    }
    lc_free(c->body);
    c->body = NULL;
    if (json_object_get_type(body) != json_type_object)
        refuse(c, 400, "invalid_json", "body: not a JSON object");
    else
        c->dialect->parse(body, header_of, c->headers, &c->request, &c->error);
    json_object_put(body);
    return !c->error.status;
}

/* ---- prompts ---- */

/* Texts that clients know: Claude Code, Codex and opencode act on them. */
static void refuse_length(lc_call *c, size_t tokens) {
    size_t context = lc_engine_context(c->service->o.engine);
    refuse(c, 400, "context_length_exceeded", "");
    if (c->dialect == &lc_dialect_messages)
        snprintf(c->error.text, sizeof c->error.text,
                 "prompt is too long: %zu tokens > %zu maximum", tokens, context);
    else
        snprintf(c->error.text, sizeof c->error.text,
                 "This model's maximum context length is %zu tokens. However, your messages "
                 "resulted in %zu tokens. Please reduce the length of the messages.",
                 context, tokens);
}

/* Of a prompt that was given up the least number of tokens is known. */
static void refuse_prompt(lc_call *c, const lc_ids *prompt, int status, const lc_err *err) {
    if (status == LC_ELIMIT && prompt->least)
        refuse_length(c, prompt->least);
    else
        refuse_status(c, status, err);
}

static bool must_call(const lc_api_request *r) {
    return r->choice == LC_TOOLS_REQUIRED || r->choice == LC_TOOLS_NAMED;
}

static bool constrained(const lc_api_request *r) {
    return r->format != LC_FORMAT_TEXT || must_call(r);
}

static bool make_chat_prompt(lc_call *c) {
    lc_err err = {0};
    const lc_prompter *p = &c->service->prompter;
    int status = lc_prompt_chat(p, c->visit->key.tenant, &c->request, constrained(&c->request),
                                &c->prompts[0], &c->heads[0], &err);
    if (status == LC_OK) {
        c->thinks = lc_prompt_thinks(p, &c->prompts[0], c->heads[0]);
        return true;
    }
    refuse_prompt(c, &c->prompts[0], status, &err);
    return false;
}

static int encode(lc_call *c, const lc_api_prompt *p, lc_encode_mode mode, lc_ids *out,
                  lc_err *err) {
    if (p->text)
        return lc_tokenizer_encode(c->service->prompter.tokenizer, p->text, p->len, mode, false,
                                   out, err);
    lc_ids_append(out, p->ids, p->count);
    return LC_OK;
}

/* Prefix, suffix, middle, as `longcat train data --fim` writes it. */
static int encode_fim(lc_call *c, const lc_api_prompt *p, lc_ids *out, lc_err *err) {
    lc_fim_tokens fim;
    if (!lc_tokenizer_fim(c->service->prompter.tokenizer, &fim))
        return lc_fail(err, LC_EINVAL,
                       "suffix: this model has no tokens to fill in the middle of a text");
    lc_ids_push(out, fim.prefix);
    int status = encode(c, p, LC_ENCODE_PLAIN, out, err);
    lc_ids_push(out, fim.suffix);
    if (status == LC_OK) status = encode(c, &c->request.suffix, LC_ENCODE_PLAIN, out, err);
    lc_ids_push(out, fim.middle);
    return status;
}

static bool make_plain_prompts(lc_call *c) {
    lc_err err = {0};
    int status = LC_OK;
    for (size_t i = 0; i < c->n_prompts && status == LC_OK; i++) {
        const lc_api_prompt *p = &c->request.prompts[i];
        status = c->request.suffix.text ? encode_fim(c, p, &c->prompts[i], &err)
                                        : encode(c, p, LC_ENCODE_ALL, &c->prompts[i], &err);
        if (status == LC_OK && c->prompts[i].failed)
            status = lc_fail(&err, LC_ENOMEM, "prompt: out of memory");
        if (status == LC_OK && !c->prompts[i].len)
            status = lc_fail(&err, LC_EINVAL, "prompt: is empty");
        if (status != LC_OK) refuse_prompt(c, &c->prompts[i], status, &err);
    }
    return status == LC_OK;
}

static bool make_prompts(lc_call *c) {
    bool chat = c->request.messages != NULL;
    c->n_prompts = chat ? 1 : c->request.n_prompts;
    c->prompts = lc_calloc(c->n_prompts, sizeof *c->prompts);
    c->heads = lc_calloc(c->n_prompts, sizeof *c->heads);
    for (size_t i = 0; c->prompts && i < c->n_prompts; i++)
        c->prompts[i].most = lc_engine_context(c->service->o.engine);
    if (c->prompts && c->heads) return chat ? make_chat_prompt(c) : make_plain_prompts(c);
    refuse(c, 500, "internal_error", "out of memory");
    return false;
}

static bool check_context(lc_call *c) {
    size_t context = lc_engine_context(c->service->o.engine), most = 0;
    for (size_t i = 0; i < c->n_prompts; i++)
        if (c->prompts[i].len > most) most = c->prompts[i].len;
    if (c->request.echo ? most > context : most >= context) {
        refuse_length(c, most);
        return false;
    }
    int64_t left = (int64_t)(context - most) + 1;
    if (c->request.max_tokens < 0) c->request.max_tokens = DEFAULT_TOKENS;
    if (c->request.max_tokens > left) c->request.max_tokens = left;
    return true;
}

/* ---- sampling ---- */

static float given(double value, float otherwise) {
    return isnan(value) ? otherwise : (float)value;
}

static void set_sampling(lc_call *c) {
    const lc_api_request *r = &c->request;
    lc_sampling s = c->service->o.sampling;
    s.temperature = given(r->temperature, s.temperature);
    if (c->service->o.pin_temperature) s.temperature = c->thinks ? 1.0f : 0.7f;
    s.top_p = given(r->top_p, s.top_p);
    s.min_p = given(r->min_p, s.min_p);
    s.repetition_penalty = given(r->repetition_penalty, s.repetition_penalty);
    s.presence_penalty = given(r->presence_penalty, s.presence_penalty);
    s.frequency_penalty = given(r->frequency_penalty, s.frequency_penalty);
    if (r->top_k >= 0) s.top_k = (int32_t)r->top_k;
    s.bias = r->biases;
    s.n_bias = r->n_biases;
    s.seed = r->seed;
    if (!r->has_seed) {
        char letters[14];
        lc_random_letters(letters, 13); /* 65 bits */
        for (size_t i = 0; i < 13; i++) s.seed = s.seed * 31 + (uint64_t)letters[i];
    }
    c->sampling = s;
}

/* ---- constraints ---- */

/* What the answer is held to; false: nothing. */
static bool spec_of(const lc_api_request *r, lc_grammar_spec *spec) {
    bool format = r->format != LC_FORMAT_TEXT; /* never beside a forced call */
    bool may_call = r->choice == LC_TOOLS_AUTO && (format || r->strict_tools);
    *spec = (lc_grammar_spec){.kind = LC_GRAMMAR_TOOLS};
    if (r->tools && (must_call(r) || may_call)) {
        spec->tools = r->tools;
        spec->tool = r->choice == LC_TOOLS_NAMED ? r->tool : NULL;
        spec->parallel = r->parallel && r->choice != LC_TOOLS_NAMED;
        spec->text_before = !constrained(r);
    }
    if (format) {
        spec->kind = r->format == LC_FORMAT_SCHEMA ? LC_GRAMMAR_SCHEMA : LC_GRAMMAR_OBJECT;
        spec->schema = r->schema;
    }
    return format || spec->tools;
}

static bool make_grammar(lc_call *c) {
    const lc_api_request *r = &c->request;
    lc_grammar_spec spec;
    lc_err err = {0};
    if (!spec_of(r, &spec)) return true;
    int status = lc_grammar_new(c->service->vocab, &spec, &c->grammar, &err);
    if (status != LC_OK && spec.kind != LC_GRAMMAR_TOOLS && spec.tools && !r->strict_tools) {
        spec.tools = NULL; /* tools that nobody holds to their schemas: the format alone */
        status = lc_grammar_new(c->service->vocab, &spec, &c->grammar, &err);
    }
    if (status == LC_OK && lc_grammar_shortest(c->grammar) > (size_t)r->max_tokens)
        status = lc_fail(&err, LC_EINVAL, "max_tokens %lld: the shortest valid answer takes %zu",
                         (long long)r->max_tokens, lc_grammar_shortest(c->grammar));
    if (status != LC_OK) refuse_status(c, status, &err);
    return status == LC_OK;
}

/* They are queued together: more than ever wait would be told to come again for ever. */
static bool check_answers(lc_call *c) {
    const lc_api_request *r = &c->request;
    char text[160];
    size_t answers = r->n * (r->messages ? 1 : r->n_prompts);
    size_t most = c->service->most_answers;
    if (answers <= most) return true;
    snprintf(text, sizeof text, "%zu answers (prompts times n): this server takes %zu at a time",
             answers, most);
    refuse(c, 400, "invalid_parameter", text);
    return false;
}

static bool make_choices(lc_call *c) {
    lc_err err = {0};
    c->n_choices = c->n_prompts * c->request.n;
    c->choices = lc_calloc(c->n_choices, sizeof *c->choices);
    int status = c->choices ? LC_OK : lc_fail(&err, LC_ENOMEM, "out of memory");
    for (size_t i = 0; i < c->n_choices && status == LC_OK; i++) {
        lc_choice *k = &c->choices[i];
        k->call = c;
        k->index = i;
        k->prompt = i / c->request.n;
        if (c->request.echo) k->prompt_left = c->prompts[k->prompt].len;
        if (c->request.messages)
            status = lc_toolparser_new(c->request.tools, c->thinks, &k->parser, &err);
        if (k->parser && c->request.ignore_eos) lc_toolparser_pass_end(k->parser);
    }
    if (status != LC_OK) refuse_status(c, status, &err);
    return status == LC_OK;
}

void lc_call_prepare(lc_call *c) {
    if (!parse(c) || !check_answers(c) || !make_prompts(c) || !check_context(c)) return;
    set_sampling(c);
    if (make_grammar(c)) make_choices(c);
}
