/*
 * chat.c: the reference runtime's rules around chat templates: which template, which variables,
 * what is done to messages before a template sees them. The encoding in which data stays data is
 * in chat_encode.c.
 */
#include "text/chat_internal.h"

#include "base/err.h"
#include "base/file.h"

#include <string.h>
#include <sys/stat.h>

enum { MAX_TEMPLATE_FILE = 8 << 20, MAX_CONFIG_FILE = 64 << 20 };

static const char *const token_names[LC_CHAT_TOKENS] = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

static int no_memory(const char *name, lc_err *err) {
    return lc_fail(err, LC_ENOMEM, "%s: out of memory", name);
}

/* ---- loading ---- */

static int add_template(lc_chat_template *tmpl, bool tool_use, const char *source, size_t len,
                        const char *name, lc_err *err) {
    lc_jinja **slot = tool_use ? &tmpl->tool_use : &tmpl->main;
    lc_jinja_free(*slot);
    return lc_jinja_compile(source, len, name, slot, NULL, err);
}

static int new_template(const char *name, lc_chat_template **out, lc_err *err) {
    *out = lc_calloc(1, sizeof **out);
    return *out ? LC_OK : no_memory(name, err);
}

static int finish(int status, lc_chat_template *tmpl, lc_chat_template **out) {
    if (status == LC_OK)
        *out = tmpl;
    else
        lc_chat_template_free(tmpl);
    return status;
}

int lc_chat_template_parse(const char *source, size_t len, const char *name, lc_chat_template **out,
                           lc_err *err) {
    lc_chat_template *tmpl;
    *out = NULL;
    int status = new_template(name, &tmpl, err);
    if (status == LC_OK) status = add_template(tmpl, false, source, len, name, err);
    return finish(status, tmpl, out);
}

void lc_chat_template_free(lc_chat_template *tmpl) {
    if (!tmpl) return;
    lc_jinja_free(tmpl->main);
    lc_jinja_free(tmpl->tool_use);
    for (int i = 0; i < LC_CHAT_TOKENS; i++) json_object_put(tmpl->tokens[i]);
    lc_free(tmpl);
}

static struct json_object *member(struct json_object *object, const char *name) {
    struct json_object *value = NULL;
    if (json_object_is_type(object, json_type_object))
        json_object_object_get_ex(object, name, &value);
    return value;
}

/* "bos_token": "<s>" or {"content": "<s>", ...} */
static void take_tokens(lc_chat_template *tmpl, struct json_object *config) {
    for (int i = 0; i < LC_CHAT_TOKENS; i++) {
        struct json_object *value = member(config, token_names[i]);
        if (json_object_is_type(value, json_type_object)) value = member(value, "content");
        if (json_object_is_type(value, json_type_string)) tmpl->tokens[i] = json_object_get(value);
    }
}

static int take_named(lc_chat_template *tmpl, struct json_object *list, const char *path,
                      lc_err *err) {
    size_t len = json_object_array_length(list);
    for (size_t i = 0; i < len; i++) {
        struct json_object *entry = json_object_array_get_idx(list, i);
        struct json_object *name = member(entry, "name"), *source = member(entry, "template");
        if (!json_object_is_type(name, json_type_string) ||
            !json_object_is_type(source, json_type_string))
            return lc_fail(err, LC_EFORMAT, "%s: chat_template[%zu] lacks name or template", path,
                           i);
        bool tool_use = !strcmp(json_object_get_string(name), "tool_use");
        if (!tool_use && strcmp(json_object_get_string(name), "default")) continue;
        int status = add_template(tmpl, tool_use, json_object_get_string(source),
                                  (size_t)json_object_get_string_len(source), path, err);
        if (status != LC_OK) return status;
    }
    return LC_OK;
}

static int take_config_template(lc_chat_template *tmpl, struct json_object *config,
                                const char *path, lc_err *err) {
    struct json_object *value = member(config, "chat_template");
    if (json_object_is_type(value, json_type_array)) return take_named(tmpl, value, path, err);
    if (!json_object_is_type(value, json_type_string)) return LC_OK;
    return add_template(tmpl, false, json_object_get_string(value),
                        (size_t)json_object_get_string_len(value), path, err);
}

static int read_source(lc_chat_template *tmpl, const char *path, lc_err *err) {
    lc_buf file = {0};
    int status = lc_file_read(path, MAX_TEMPLATE_FILE, &file, err);
    if (status == LC_OK)
        status = add_template(tmpl, false, file.data ? file.data : "", file.len, path, err);
    lc_buf_free(&file);
    return status;
}

/* Reads tokenizer_config.json; its absence is no error. */
static int read_config(lc_chat_template *tmpl, const char *path, bool with_template, lc_err *err) {
    struct json_object *config;
    lc_err ignored = {0};
    int status = lc_json_load(path, MAX_CONFIG_FILE, &config, &ignored);
    if (status == LC_ENOTFOUND) return LC_OK;
    if (status != LC_OK) {
        if (err) *err = ignored;
        return status;
    }
    take_tokens(tmpl, config);
    if (with_template) status = take_config_template(tmpl, config, path, err);
    json_object_put(config);
    return status;
}

static bool ends_with(const char *text, const char *end) {
    size_t a = strlen(text), b = strlen(end);
    return a >= b && !strcmp(text + a - b, end);
}

static bool put_path(lc_buf *out, const char *folder, size_t len, const char *file) {
    lc_buf_clear(out);
    lc_buf_append(out, folder, len);
    if (len && folder[len - 1] != '/') lc_buf_putc(out, '/');
    return lc_buf_puts(out, file);
}

/* A model folder: chat_template.jinja, else the template in tokenizer_config.json. */
static int load_folder(lc_chat_template *tmpl, const char *path, lc_buf *name, lc_err *err) {
    lc_err first = {0};
    size_t len = strlen(path);
    if (!put_path(name, path, len, "chat_template.jinja")) return no_memory(path, err);
    int status = read_source(tmpl, name->data, &first);
    if (status != LC_OK && status != LC_ENOTFOUND) {
        if (err) *err = first;
        return status;
    }
    if (!put_path(name, path, len, "tokenizer_config.json")) return no_memory(path, err);
    return read_config(tmpl, name->data, status == LC_ENOTFOUND, err);
}

static int load_jinja(lc_chat_template *tmpl, const char *path, lc_buf *name, lc_err *err) {
    const char *slash = strrchr(path, '/');
    int status = read_source(tmpl, path, err);
    if (status != LC_OK) return status;
    if (!put_path(name, path, slash ? (size_t)(slash - path) : 0, "tokenizer_config.json"))
        return no_memory(path, err);
    return read_config(tmpl, name->data, false, err);
}

int lc_chat_template_load(const char *path, lc_chat_template **out, lc_err *err) {
    lc_chat_template *tmpl;
    lc_buf name = {0};
    struct stat st;
    *out = NULL;
    if (stat(path, &st) != 0) return lc_fail_errno(err, LC_ENOTFOUND, "%s", path);
    int status = new_template(path, &tmpl, err);
    if (status != LC_OK) return status;
    if (S_ISDIR(st.st_mode))
        status = load_folder(tmpl, path, &name, err);
    else if (ends_with(path, ".json"))
        status = read_config(tmpl, path, true, err);
    else
        status = load_jinja(tmpl, path, &name, err);
    if (status == LC_OK && !tmpl->main)
        status = lc_fail(err, LC_ENOTFOUND, "%s: no chat template", path);
    lc_buf_free(&name);
    return finish(status, tmpl, out);
}

/* ---- messages ---- */

/* Without null members, and with the reasoning under both of its names: "thinking" comes first and
 * keeps a value of its own, "reasoning_content" is set to the first name that has a value. */
static struct json_object *prepare_message(struct json_object *message) {
    static const char *const aliases[] = {"reasoning_content", "thinking", "reasoning"};
    struct json_object *copy = json_object_new_object(), *reasoning = NULL;
    bool ok = copy != NULL;
    for (int i = 0; i < 3 && !reasoning; i++) reasoning = member(message, aliases[i]);
    if (reasoning && ok) ok = !json_object_object_add(copy, "thinking", json_object_get(reasoning));
    json_object_object_foreach(message, key, value) {
        if (value) ok = ok && !json_object_object_add(copy, key, json_object_get(value));
    }
    if (reasoning && ok)
        ok = !json_object_object_add(copy, "reasoning_content", json_object_get(reasoning));
    if (ok) return copy;
    json_object_put(copy);
    return NULL;
}

static struct json_object *prepare_messages(struct json_object *messages) {
    struct json_object *copy = json_object_new_array();
    size_t len = json_object_array_length(messages);
    bool ok = copy != NULL;
    for (size_t i = 0; i < len && ok; i++) {
        struct json_object *message = prepare_message(json_object_array_get_idx(messages, i));
        ok = message && !json_object_array_add(copy, message);
    }
    if (ok) return copy;
    json_object_put(copy);
    return NULL;
}

/* ---- rendering ---- */

static void add_var(lc_jinja_var *vars, size_t *n, const char *name, struct json_object *value) {
    vars[(*n)++] = (lc_jinja_var){name, value};
}

/* The later of two variables counts: arguments replace the defaults, nothing replaces messages. */
static size_t list_vars(const lc_chat_template *tmpl, const lc_chat *chat,
                        struct json_object *messages, struct json_object *no, lc_jinja_var *vars) {
    size_t n = 0;
    add_var(vars, &n, "documents", NULL);
    add_var(vars, &n, "add_generation_prompt", no);
    for (int i = 0; i < LC_CHAT_TOKENS; i++)
        if (tmpl->tokens[i]) add_var(vars, &n, token_names[i], tmpl->tokens[i]);
    if (chat->arguments) {
        json_object_object_foreach(chat->arguments, name, value) { add_var(vars, &n, name, value); }
    }
    add_var(vars, &n, "messages", messages);
    add_var(vars, &n, "tools", chat->tools);
    return n;
}

const lc_jinja *lc_chat_jinja(const lc_chat_template *tmpl, const lc_chat *chat) {
    return chat->tools && tmpl->tool_use ? tmpl->tool_use : tmpl->main;
}

static int check_chat(const lc_chat *chat, lc_err *err) {
    if (!json_object_is_type(chat->messages, json_type_array))
        return lc_fail(err, LC_EINVAL, "messages: not an array");
    for (size_t i = 0; i < json_object_array_length(chat->messages); i++)
        if (!json_object_is_type(json_object_array_get_idx(chat->messages, i), json_type_object))
            return lc_fail(err, LC_EINVAL, "messages[%zu]: not an object", i);
    if (chat->tools && !json_object_is_type(chat->tools, json_type_array))
        return lc_fail(err, LC_EINVAL, "tools: not an array");
    if (chat->arguments && !json_object_is_type(chat->arguments, json_type_object))
        return lc_fail(err, LC_EINVAL, "template arguments: not an object");
    return LC_OK;
}

int lc_chat_render_marked(const lc_chat_template *tmpl, const lc_chat *chat, uint32_t marks_first,
                          uint32_t marks_count, lc_buf *out, lc_err *err) {
    int status = check_chat(chat, err);
    if (status != LC_OK) return status;
    size_t n_arguments = chat->arguments ? (size_t)json_object_object_length(chat->arguments) : 0;
    lc_jinja_var *vars = lc_calloc(n_arguments + LC_CHAT_TOKENS + 4, sizeof *vars);
    struct json_object *messages = prepare_messages(chat->messages);
    struct json_object *no = json_object_new_boolean(false);
    if (vars && messages && no) {
        lc_jinja_job job = {.vars = vars,
                            .n_vars = list_vars(tmpl, chat, messages, no, vars),
                            .now = chat->now,
                            .marks_first = marks_first,
                            .marks_count = marks_count,
                            .fault = chat->fault};
        status = lc_jinja_render(lc_chat_jinja(tmpl, chat), &job, out, err);
    } else {
        status = no_memory("chat template", err);
    }
    json_object_put(no);
    json_object_put(messages);
    lc_free(vars);
    return status;
}

int lc_chat_render(const lc_chat_template *tmpl, const lc_chat *chat, lc_buf *out, lc_err *err) {
    return lc_chat_render_marked(tmpl, chat, 0, 0, out, err);
}
