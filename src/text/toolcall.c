/*
 * toolcall.c: the state machine behind toolcall.h. The rules stand in docs/formats.md; comments
 * here name them by number.
 *
 * Bytes pass a filter that stops at the end tag (rule 1), then lie in `text` until a state has used
 * them up. Each state looks at a byte once and waits when a tag may be incomplete, so any cutting
 * costs linear time and gives the same result. Reasoning and content go through put_stripped, which
 * holds back white space that may turn out to be trailing. A call block stays in `text` until its
 * end is known: only then is it a call, or text after all.
 *
 * Elsewhere: values and JSON (lenient.c), schemas (tooltypes.c).
 */
#include "text/toolcall.h"

#include "base/err.h"
#include "base/utf8.h"
#include "text/lenient.h"
#include "text/tooltypes.h"

#include <string.h>

enum { MAX_TAG = 20, MIN_CUT_OFF = 8, MAX_NAME = 256 };

/* Sets of tags are bits. */
enum {
    TAG_CALL = 1,
    TAG_CALL_END = 2,
    TAG_KEY = 4,
    TAG_KEY_END = 8,
    TAG_VALUE = 16,
    TAG_VALUE_END = 32,
    TAG_THINK = 64,
    TAG_THINK_END = 128,
    CALL_TAGS = 63,
};

static const struct {
    unsigned tag;
    const char *text;
} tags[] = {
    {TAG_CALL, "<longcat_tool_call>"},  {TAG_CALL_END, "</longcat_tool_call>"},
    {TAG_KEY, "<longcat_arg_key>"},     {TAG_KEY_END, "</longcat_arg_key>"},
    {TAG_VALUE, "<longcat_arg_value>"}, {TAG_VALUE_END, "</longcat_arg_value>"},
    {TAG_THINK, "<longcat_think>"},     {TAG_THINK_END, "</longcat_think>"},
};
enum { N_TAGS = sizeof tags / sizeof *tags };

static const char end_tag[] = "</longcat_s>";
enum { END_TAG_LEN = sizeof end_tag - 1 };

typedef enum parse_state {
    AT_START, /* before anything but white space */
    IN_REASONING,
    AFTER_REASONING, /* white space behind the closer */
    IN_CONTENT,
    IN_BLOCK,
} parse_state;

typedef enum block_state {
    BLOCK_BODY,    /* white space before the name or JSON */
    BLOCK_BRACKET, /* behind '[': a list of calls if '{' follows */
    BLOCK_NAME,
    BLOCK_ARGS,  /* behind the name: '{', '(' or pairs */
    BLOCK_PAREN, /* behind '(' */
    BLOCK_JSON,
    BLOCK_PAIRS, /* between pairs */
    BLOCK_KEY_START,
    BLOCK_KEY,
    BLOCK_VALUE,
    BLOCK_TAIL, /* all is there; what comes before the block's end is ignored */
    BLOCK_BAD,  /* malformed; only its end is looked for */
} block_state;

typedef enum json_form { JSON_CALLS, JSON_ARGS, JSON_MEMBERS } json_form;

typedef struct call_block {
    block_state state;
    size_t mark; /* start of the name, key, value or JSON in `text` */
    char *name, *key;
    struct json_object *args;  /* of the name form */
    struct json_object *calls; /* of the JSON form: an object or a list of objects */
    json_form form;
} call_block;

struct lc_toolparser {
    lc_tooltypes *types;
    bool has_tools;
    bool finished, failed;

    size_t end_matched; /* bytes of the end tag that are held back */
    bool ended, passes_end;

    parse_state state;
    lc_buf text; /* not used up yet, from `start` on */
    size_t start, scan;
    call_block block;
    lc_lenient json;

    bool has_reasoning, unfinished;
    lc_buf reasoning, content, space; /* space: held back behind one of the two */
    bool after_call, piece_empty;
    lc_toolcall *calls;
    size_t n_calls, cap_calls;
};

/* ---- tags ---- */

typedef enum match { MATCH_NONE, MATCH_PART, MATCH_FULL } match;

static match match_tag(const char *text, size_t len, const char *tag) {
    size_t n = strlen(tag);
    if (memcmp(text, tag, len < n ? len : n) != 0) return MATCH_NONE;
    return len < n ? MATCH_PART : MATCH_FULL;
}

/* Moves `scan` to the next tag of a set and returns it. 0: none in the text so far; then `scan`
 * stands at the end, or where a tag may be beginning. final: nothing more can begin. */
static unsigned find_tag(lc_toolparser *p, unsigned set, bool final, size_t *tag_len) {
    while (p->scan < p->text.len) {
        const char *here = p->text.data + p->scan;
        const char *found = memchr(here, '<', p->text.len - p->scan);
        p->scan = found ? (size_t)(found - p->text.data) : p->text.len;
        bool part = false;
        for (int i = 0; found && i < N_TAGS; i++) {
            if (!(tags[i].tag & set)) continue;
            match m = match_tag(found, p->text.len - p->scan, tags[i].text);
            *tag_len = strlen(tags[i].text);
            if (m == MATCH_FULL) return tags[i].tag;
            part |= m == MATCH_PART;
        }
        if (part && !final) return 0;
        p->scan += found != NULL;
    }
    return 0;
}

/* Removes a cut-off tag of a set from the end of the text. */
static void drop_cut_off_tag(lc_toolparser *p, unsigned set) {
    size_t len = p->text.len;
    for (size_t n = MIN_CUT_OFF; n < MAX_TAG && n <= len - p->start; n++)
        for (int i = 0; i < N_TAGS; i++)
            if ((tags[i].tag & set) &&
                match_tag(p->text.data + len - n, n, tags[i].text) == MATCH_PART) {
                p->text.len = len - n;
                if (p->scan > p->text.len) p->scan = p->text.len;
                return;
            }
}

static void skip_space(lc_toolparser *p) {
    while (p->scan < p->text.len && lc_lenient_space(p->text.data[p->scan])) p->scan++;
}

/* ---- what is certain ---- */

/* Appends text, but keeps white space at its end in `space` until something follows. */
static void put_stripped(lc_toolparser *p, lc_buf *out, const char *text, size_t len) {
    size_t body = len;
    while (body && lc_lenient_space(text[body - 1])) body--;
    if (body) {
        lc_buf_append(out, p->space.data, p->space.len);
        lc_buf_append(out, text, body);
        p->space.len = 0;
    }
    lc_buf_append(&p->space, text + body, len - body);
}

static void put_reasoning(lc_toolparser *p, const char *text, size_t len) {
    while (!p->reasoning.len && len && lc_lenient_space(*text)) text++, len--;
    put_stripped(p, &p->reasoning, text, len);
}

/* Rule 10: pieces behind a call are stripped and joined by a newline. */
static void put_content(lc_toolparser *p, const char *text, size_t len) {
    if (!p->has_tools) {
        lc_buf_append(&p->content, text, len);
        return;
    }
    if (p->after_call && p->piece_empty) {
        while (len && lc_lenient_space(*text)) text++, len--;
        if (!len) return;
        if (p->content.len) lc_buf_putc(&p->content, '\n');
        p->piece_empty = false;
    }
    put_stripped(p, &p->content, text, len);
}

/* A call (or a dropped one) ends a piece of content. */
static void end_piece(lc_toolparser *p) {
    p->space.len = 0;
    p->after_call = p->piece_empty = true;
}

/* Uses up the text before `end`. */
static void use_up(lc_toolparser *p, size_t end) {
    p->start = p->scan = end;
    if (p->start == p->text.len) p->start = p->scan = p->text.len = 0;
}

/* ---- blocks: the parts ---- */

static void block_reset(lc_toolparser *p) {
    lc_free(p->block.name);
    lc_free(p->block.key);
    json_object_put(p->block.args);
    json_object_put(p->block.calls);
    p->block = (call_block){.state = BLOCK_BODY};
    lc_lenient_reset(&p->json);
}

static void strip(const char **text, size_t *len) {
    while (*len && lc_lenient_space(**text)) (*text)++, (*len)--;
    while (*len && lc_lenient_space((*text)[*len - 1])) (*len)--;
}

static bool valid_name(const char *name) {
    size_t chars = 0;
    for (const char *c = name; *c; c++) {
        if (lc_lenient_space(*c) || strchr("<>{}()[]\"'`,;", *c)) return false;
        chars += (*c & 0xC0) != 0x80;
    }
    return chars > 0 && chars <= MAX_NAME;
}

/* Rule 5. NULL if it is no name (or memory is short: then p->failed is set). */
static char *take_name(lc_toolparser *p, const char *text, size_t len) {
    static const char prefix[] = "functions.";
    strip(&text, &len);
    if (memchr(text, 0, len)) return NULL;
    char *name = lc_strndup(text, len);
    if (!name) {
        p->failed = true;
        return NULL;
    }
    if (lc_tooltypes_has(p->types, name)) return name;
    if (!strncmp(name, prefix, sizeof prefix - 1))
        memmove(name, name + sizeof prefix - 1, len - (sizeof prefix - 1) + 1);
    if (valid_name(name)) return name;
    lc_free(name);
    return NULL;
}

/* Keys are C strings in json-c: a NUL becomes U+FFFD, as in lenient.c. */
static void take_key(lc_toolparser *p, const char *text, size_t len) {
    lc_buf key = {0};
    strip(&text, &len);
    for (size_t i = 0; i < len; i++) {
        if (text[i])
            lc_buf_putc(&key, text[i]);
        else
            lc_buf_puts(&key, "\xEF\xBF\xBD");
    }
    p->failed |= key.failed;
    p->block.key = key.data;
}

static void set_arg(lc_toolparser *p, const char *key, struct json_object *value) {
    if (!p->block.args) p->block.args = json_object_new_object();
    if (!p->block.args || json_object_object_add(p->block.args, key, value)) {
        json_object_put(value);
        p->failed = true;
    }
}

static void take_value(lc_toolparser *p, const char *text, size_t len) {
    call_block *b = &p->block;
    struct json_object *value;
    if (!b->key) return;
    if (lc_tooltypes_value(p->types, b->name, b->key, text, len, &value) == LC_OK)
        set_arg(p, b->key, value);
    else
        p->failed = true;
    lc_free(b->key);
    b->key = NULL;
}

/* Appends a call; takes over name and args. */
static void add_call(lc_toolparser *p, char *name, struct json_object *args) {
    if (p->n_calls == p->cap_calls) {
        size_t cap = p->cap_calls ? 2 * p->cap_calls : 8;
        lc_toolcall *grown = lc_realloc(p->calls, cap, sizeof *grown);
        if (grown) {
            p->calls = grown;
            p->cap_calls = cap;
        }
    }
    if (!args) args = json_object_new_object();
    if (!args || p->n_calls == p->cap_calls) {
        lc_free(name);
        json_object_put(args);
        p->failed = true;
        return;
    }
    p->calls[p->n_calls++] = (lc_toolcall){name, args};
}

static void drop_calls(lc_toolparser *p, size_t keep) {
    while (p->n_calls > keep) {
        lc_toolcall *call = &p->calls[--p->n_calls];
        lc_free((char *)call->name);
        json_object_put(call->arguments);
    }
}

/* The arguments of a call in the JSON form (rule 4): false if they are malformed. *args NULL = {}.
 */
static bool json_args(lc_toolparser *p, struct json_object *call, struct json_object **args) {
    struct json_object *value = NULL;
    *args = NULL;
    if (!json_object_object_get_ex(call, "arguments", &value))
        json_object_object_get_ex(call, "parameters", &value);
    if (json_object_is_type(value, json_type_object)) *args = json_object_get(value);
    if (!value || *args) return true;
    if (!json_object_is_type(value, json_type_string)) return false;
    size_t len = (size_t)json_object_get_string_len(value);
    if (!len) return true;
    if (lc_lenient_parse(json_object_get_string(value), len, args) == LC_ENOMEM) p->failed = true;
    if (json_object_is_type(*args, json_type_object)) return true;
    json_object_put(*args);
    return false;
}

static bool take_json_call(lc_toolparser *p, struct json_object *call) {
    struct json_object *text = NULL, *args;
    if (!json_object_is_type(call, json_type_object)) return false;
    json_object_object_get_ex(call, "name", &text);
    if (!json_object_is_type(text, json_type_string) || !json_args(p, call, &args)) return false;
    char *name =
        take_name(p, json_object_get_string(text), (size_t)json_object_get_string_len(text));
    if (!name) {
        json_object_put(args);
        return false;
    }
    add_call(p, name, args);
    return true;
}

static bool take_json_calls(lc_toolparser *p, struct json_object *calls) {
    if (!json_object_is_type(calls, json_type_array)) return take_json_call(p, calls);
    size_t before = p->n_calls;
    for (size_t i = 0; i < json_object_array_length(calls); i++)
        if (!take_json_call(p, json_object_array_get_idx(calls, i))) {
            drop_calls(p, before);
            return false;
        }
    return true;
}

/* ---- blocks: the machine ---- */

static void enter(lc_toolparser *p, block_state state) {
    p->block.state = state;
    p->block.mark = p->scan;
}

static void enter_json(lc_toolparser *p, size_t start, json_form form) {
    lc_lenient_reset(&p->json);
    p->block.state = BLOCK_JSON;
    p->block.form = form;
    p->block.mark = p->scan = start;
}

/* The name ends at `scan`. */
static void end_name(lc_toolparser *p) {
    call_block *b = &p->block;
    b->name = take_name(p, p->text.data + b->mark, p->scan - b->mark);
    b->state = b->name ? BLOCK_ARGS : BLOCK_BAD;
}

/* The complete JSON of a block goes where it belongs. */
static void end_json(lc_toolparser *p) {
    call_block *b = &p->block;
    struct json_object *value = p->json.value;
    p->json.value = NULL;
    p->scan = b->mark + p->json.pos;
    b->state = BLOCK_TAIL;
    if (b->form == JSON_CALLS) {
        b->calls = value;
    } else if (b->form == JSON_ARGS) {
        b->args = value;
    } else {
        json_object_object_foreach(value, key, member) { set_arg(p, key, json_object_get(member)); }
        json_object_put(value);
        b->state = BLOCK_PAIRS;
    }
}

/* The block ends at `end`: a call, or text after all (rule 8). */
static void end_block(lc_toolparser *p, size_t end) {
    call_block *b = &p->block;
    const char *text = p->text.data;
    bool ok = b->state == BLOCK_TAIL || b->state == BLOCK_PAIRS || b->state == BLOCK_ARGS ||
              b->state == BLOCK_KEY || b->state == BLOCK_KEY_START || b->state == BLOCK_VALUE;
    if (b->calls) {
        ok = take_json_calls(p, b->calls);
    } else if (ok) {
        add_call(p, b->name, b->args);
        b->name = NULL;
        b->args = NULL;
    }
    if (ok)
        end_piece(p);
    else
        put_content(p, text + p->start, end - p->start);
    block_reset(p);
    p->state = IN_CONTENT;
    use_up(p, end);
}

/* States that look at one character behind white space. */
static void block_mark(lc_toolparser *p) {
    call_block *b = &p->block;
    char c = p->text.data[p->scan];
    switch (b->state) {
    case BLOCK_BODY:
        if (c == '{') {
            enter_json(p, p->scan, JSON_CALLS);
        } else {
            enter(p, c == '[' ? BLOCK_BRACKET : BLOCK_NAME);
            p->scan += c == '[';
        }
        break;
    case BLOCK_BRACKET:
        if (c == '{')
            enter_json(p, b->mark, JSON_CALLS);
        else
            b->state = BLOCK_NAME;
        break;
    case BLOCK_ARGS:
        if (c == '{') {
            enter_json(p, p->scan, JSON_ARGS);
        } else {
            b->state = c == '(' ? BLOCK_PAREN : BLOCK_PAIRS;
            p->scan += c == '(';
        }
        break;
    case BLOCK_PAREN:
        if (c == '{')
            enter_json(p, p->scan, JSON_ARGS);
        else
            b->state = c == ')' ? BLOCK_TAIL : BLOCK_BAD;
        break;
    default: /* BLOCK_KEY_START */
        if (c == '{') {
            enter_json(p, p->scan, JSON_MEMBERS);
        } else {
            b->state = BLOCK_KEY;
            p->scan = b->mark;
        }
    }
}

/* False: more text is needed. */
static bool block_name(lc_toolparser *p, bool final) {
    for (; p->scan < p->text.len; p->scan++) {
        const char *here = p->text.data + p->scan;
        if (*here == '\n' || *here == '{' || *here == '(') break;
        if (*here != '<') continue;
        match open = match_tag(here, p->text.len - p->scan, "<longcat_");
        match close = match_tag(here, p->text.len - p->scan, "</longcat_");
        if (open == MATCH_FULL || close == MATCH_FULL) break;
        if ((open == MATCH_PART || close == MATCH_PART) && !final) return false;
    }
    if (p->scan == p->text.len && !final) return false;
    end_name(p);
    return true;
}

static bool block_json(lc_toolparser *p) {
    size_t mark = p->block.mark;
    switch (lc_lenient_feed(&p->json, p->text.data + mark, p->text.len - mark, false)) {
    case LC_LENIENT_DONE: end_json(p); return true;
    case LC_LENIENT_BAD:
        p->scan = mark + p->json.pos;
        p->block.state = BLOCK_BAD;
        return true;
    case LC_LENIENT_NOMEM: p->failed = true; return false;
    default: return false;
    }
}

static unsigned block_tags(block_state state) {
    const unsigned ends = TAG_CALL | TAG_CALL_END;
    switch (state) {
    case BLOCK_PAIRS: return ends | TAG_KEY | TAG_VALUE;
    case BLOCK_KEY: return ends | TAG_KEY | TAG_KEY_END | TAG_VALUE;
    case BLOCK_VALUE: return ends | TAG_KEY | TAG_VALUE_END;
    default: return ends;
    }
}

/* What a key or value that ends at `scan` was. */
static void end_part(lc_toolparser *p) {
    call_block *b = &p->block;
    const char *text = p->text.data + b->mark;
    if (b->state == BLOCK_KEY)
        take_key(p, text, p->scan - b->mark);
    else if (b->state == BLOCK_VALUE)
        take_value(p, text, p->scan - b->mark);
    if (b->state == BLOCK_KEY || b->state == BLOCK_VALUE) b->state = BLOCK_PAIRS;
}

/* States that run to a tag. False: more text is needed. */
static bool block_tag(lc_toolparser *p, bool final) {
    call_block *b = &p->block;
    size_t len;
    unsigned tag = find_tag(p, block_tags(b->state), final, &len);
    if (!tag) return false;
    end_part(p);
    if (tag == TAG_CALL || tag == TAG_CALL_END) {
        end_block(p, tag == TAG_CALL ? p->scan : p->scan + len);
        return true;
    }
    p->scan += len;
    if (tag == TAG_KEY) {
        lc_free(b->key);
        b->key = NULL;
        enter(p, BLOCK_KEY_START);
    } else if (tag == TAG_VALUE) {
        enter(p, BLOCK_VALUE);
    }
    return true;
}

/* False: more text is needed. */
static bool run_block(lc_toolparser *p, bool final) {
    switch (p->block.state) {
    case BLOCK_NAME: return block_name(p, final);
    case BLOCK_JSON: return block_json(p);
    case BLOCK_PAIRS:
    case BLOCK_KEY:
    case BLOCK_VALUE:
    case BLOCK_TAIL:
    case BLOCK_BAD: return block_tag(p, final);
    default:
        skip_space(p);
        if (p->scan == p->text.len) return false;
        block_mark(p);
        return true;
    }
}

/* ---- outside of blocks ---- */

static bool run_start(lc_toolparser *p, bool final) {
    skip_space(p);
    size_t left = p->text.len - p->scan;
    match m = match_tag(p->text.data + p->scan, left, "<longcat_think>");
    if (m == MATCH_PART && !final) return false;
    if (m == MATCH_FULL) {
        p->has_reasoning = true;
        use_up(p, p->scan + strlen("<longcat_think>"));
    }
    p->state = p->has_reasoning ? IN_REASONING : IN_CONTENT;
    p->scan = p->start;
    return true;
}

static bool run_reasoning(lc_toolparser *p, bool final) {
    size_t len;
    bool closed = find_tag(p, TAG_THINK_END, final, &len) != 0;
    put_reasoning(p, p->text.data + p->start, p->scan - p->start);
    use_up(p, closed ? p->scan + len : p->scan);
    if (!closed) return false;
    p->space.len = 0;
    p->state = AFTER_REASONING;
    return true;
}

static bool run_content(lc_toolparser *p, bool final) {
    size_t len;
    bool call = find_tag(p, p->has_tools ? TAG_CALL : 0, final, &len) != 0;
    put_content(p, p->text.data + p->start, p->scan - p->start);
    use_up(p, p->scan);
    if (!call) return false;
    p->scan += len;
    p->state = IN_BLOCK;
    return true;
}

static bool step(lc_toolparser *p, bool final) {
    switch (p->state) {
    case AT_START: return run_start(p, final);
    case IN_REASONING: return run_reasoning(p, final);
    case IN_CONTENT: return run_content(p, final);
    case IN_BLOCK: return run_block(p, final);
    case AFTER_REASONING:
        skip_space(p);
        use_up(p, p->scan);
        if (p->text.len == 0) return false;
        p->state = IN_CONTENT;
        return true;
    }
    return false;
}

/* Goes as far as the text allows, then moves the rest to the front of its buffer now and then. */
static void run(lc_toolparser *p, bool final) {
    while (p->text.len && !p->failed && step(p, final)) {
    }
    if (p->start < 4096 || p->start < p->text.len / 2) return;
    p->text.len -= p->start;
    memmove(p->text.data, p->text.data + p->start, p->text.len);
    p->scan -= p->start;
    if (p->block.mark) p->block.mark -= p->start;
    p->start = 0;
}

/* ---- the interface ---- */

int lc_toolparser_new(struct json_object *tools, bool thinking_open, lc_toolparser **out,
                      lc_err *err) {
    *out = NULL;
    lc_tooltypes *types;
    int status = lc_tooltypes_new(tools, &types, err);
    if (status != LC_OK) return status;
    lc_toolparser *p = lc_calloc(1, sizeof *p);
    if (!p) {
        lc_tooltypes_free(types);
        return lc_fail(err, LC_ENOMEM, "tool-call parser: out of memory");
    }
    p->types = types;
    p->has_tools = tools && json_object_array_length(tools) > 0;
    p->has_reasoning = thinking_open;
    *out = p;
    return LC_OK;
}

void lc_toolparser_pass_end(lc_toolparser *p) { p->passes_end = true; }

void lc_toolparser_free(lc_toolparser *p) {
    if (!p) return;
    block_reset(p);
    drop_calls(p, 0);
    lc_free(p->calls);
    lc_buf_free(&p->text);
    lc_buf_free(&p->reasoning);
    lc_buf_free(&p->content);
    lc_buf_free(&p->space);
    lc_tooltypes_free(p->types);
    lc_free(p);
}

/* Rule 1: passes on what is before the end tag; a beginning of it is held back. */
static void filter(lc_toolparser *p, const char *text, size_t len) {
    for (size_t i = 0; i < len && !p->ended;) {
        if (p->end_matched && text[i] == end_tag[p->end_matched]) {
            i++;
            if (++p->end_matched < END_TAG_LEN) continue;
            p->ended = !p->passes_end;
            if (p->passes_end) p->end_matched = 0;
            continue;
        }
        lc_buf_append(&p->text, end_tag, p->end_matched);
        p->end_matched = 0;
        const char *found = memchr(text + i, '<', len - i);
        size_t plain = found ? (size_t)(found - text) - i : len - i;
        lc_buf_append(&p->text, text + i, plain);
        i += plain;
        if (found) {
            p->end_matched = 1;
            i++;
        }
    }
}

static int check(lc_toolparser *p, lc_err *err) {
    p->failed |= p->text.failed || p->reasoning.failed || p->content.failed || p->space.failed;
    if (!p->failed) return LC_OK;
    return lc_fail(err, LC_ENOMEM, "tool-call parser: out of memory");
}

int lc_toolparser_push(lc_toolparser *p, const char *text, size_t len, lc_err *err) {
    if (p->finished) return lc_fail(err, LC_EINVAL, "tool-call parser: text after its end");
    if (p->failed) return check(p, err);
    filter(p, text, len);
    run(p, false);
    return check(p, err);
}

/* Rule 9: a string that never closes ends its block at the next closer, and what follows is read
 * again. The quote that opens a later string would have closed this one, so it happens at most once
 * for each kind of quote. */
static void resolve_strings(lc_toolparser *p) {
    static const char closer[] = "</longcat_tool_call>";
    while (p->state == IN_BLOCK && p->block.state == BLOCK_JSON && lc_lenient_in_string(&p->json)) {
        size_t from = p->block.mark + p->json.token;
        const char *found =
            memmem(p->text.data + from, p->text.len - from, closer, sizeof closer - 1);
        if (!found || p->failed) return;
        p->block.state = BLOCK_BAD;
        end_block(p, (size_t)(found - p->text.data) + sizeof closer - 1);
        run(p, false);
    }
}

static unsigned cut_off_tags(const lc_toolparser *p) {
    switch (p->state) {
    case AT_START: return p->has_reasoning ? TAG_THINK_END : p->has_tools ? TAG_CALL : 0;
    case IN_REASONING: return TAG_THINK_END;
    case IN_BLOCK: return CALL_TAGS;
    default: return p->has_tools ? TAG_CALL : 0;
    }
}

/* The text ended inside a block (rule 9). */
static void close_block(lc_toolparser *p, lc_finish finish) {
    if (finish == LC_FINISH_LENGTH) {
        p->unfinished = true;
        block_reset(p);
        end_piece(p);
        p->state = IN_CONTENT;
        use_up(p, p->text.len);
        return;
    }
    end_part(p);
    end_block(p, p->text.len);
}

int lc_toolparser_finish(lc_toolparser *p, lc_finish finish, lc_err *err) {
    if (p->finished) return lc_fail(err, LC_EINVAL, "tool-call parser: finished twice");
    p->finished = true;
    if (p->failed) return check(p, err);
    bool cut_off = !p->ended;
    if (!p->ended && p->end_matched < MIN_CUT_OFF)
        lc_buf_append(&p->text, end_tag, p->end_matched);
    else
        cut_off = false; /* the end tag itself, or all that came of it */
    run(p, false);
    resolve_strings(p);
    if (cut_off) drop_cut_off_tag(p, cut_off_tags(p));
    run(p, true);
    if (p->state == IN_BLOCK && !p->failed) close_block(p, finish);
    if (p->state == IN_CONTENT && !p->after_call)
        lc_buf_append(&p->content, p->space.data, p->space.len);
    p->space.len = 0;
    return check(p, err);
}

lc_parsed lc_toolparser_result(const lc_toolparser *p) {
    return (lc_parsed){
        .has_reasoning = p->has_reasoning,
        .reasoning = p->reasoning.data ? p->reasoning.data : "",
        .content = p->content.data ? p->content.data : "",
        .reasoning_len = p->reasoning.len,
        .content_len = p->content.len,
        .calls = p->calls,
        .n_calls = p->n_calls,
        .unfinished = p->unfinished,
    };
}
