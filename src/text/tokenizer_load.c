/*
 * tokenizer_load.c: from tokenizer.json to lc_tokenizer: the order of loading, the readers of
 * single fields, post-processors.
 *
 * What a file needs and we don't have is LC_EUNSUPPORTED with its name; what is malformed is
 * LC_EFORMAT with the path of the field. `truncation` and `padding` are ignored: they shape
 * batches, not ids. `version` other than 1.0 is refused, as in the reference.
 */
#include "text/tok.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- fields ---- */

struct json_object *lc_tok_field(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    if (!json_object_is_type(object, json_type_object)) return NULL;
    json_object_object_get_ex(object, key, &value);
    return value;
}

int lc_tok_bool(const lc_tok_src *src, struct json_object *object, const char *where,
                const char *key, bool *out) {
    struct json_object *value = lc_tok_field(object, key);
    if (!value) return LC_OK;
    if (!json_object_is_type(value, json_type_boolean))
        return lc_fail(src->err, LC_EFORMAT, "%s: %s.%s is not true or false", src->name, where,
                       key);
    *out = json_object_get_boolean(value);
    return LC_OK;
}

int lc_tok_string(const lc_tok_src *src, struct json_object *object, const char *where,
                  const char *key, lc_str *out) {
    struct json_object *value = lc_tok_field(object, key);
    *out = (lc_str){"", 0};
    if (!json_object_is_type(value, json_type_string))
        return lc_fail(src->err, LC_EFORMAT, "%s: %s.%s is missing or no string", src->name, where,
                       key);
    *out = (lc_str){json_object_get_string(value), (size_t)json_object_get_string_len(value)};
    if (strlen(out->data) != out->len)
        return lc_fail(src->err, LC_EFORMAT, "%s: %s.%s holds a NUL character", src->name, where,
                       key);
    return LC_OK;
}

int lc_tok_id(const lc_tok_src *src, struct json_object *value, const char *where, int32_t *out) {
    int64_t id = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : -1;
    if (id >= 0 && id < LC_TOK_ID_LIMIT) {
        *out = (int32_t)id;
        return LC_OK;
    }
    if (!where) return LC_EFORMAT;
    return lc_fail(src->err, LC_EFORMAT, "%s: %s is not an integer from 0 to %d", src->name, where,
                   LC_TOK_ID_LIMIT - 1);
}

lc_quoted lc_tok_quote(const char *content) {
    lc_quoted quoted = {0};
    size_t n = strlen(content);
    bool cut = n > 40;
    if (cut)
        for (n = 37; n && ((unsigned char)content[n] & 0xC0) == 0x80;) n--;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)content[i];
        quoted.text[i] = c < 0x20 || c == 0x7F ? '?' : content[i];
    }
    if (cut) memcpy(quoted.text + n, "...", 4);
    return quoted;
}

/* ---- post-processors ---- */

/* What post-processors put around a text; later ones stand outside of earlier ones. */
static int surround(lc_tokenizer *t, const lc_tok_src *src, const lc_ids *before,
                    const lc_ids *after) {
    lc_ids outer = {0};
    lc_ids_append(&outer, before->data, before->len);
    lc_ids_append(&outer, t->before.data, t->before.len);
    lc_ids_append(&t->after, after->data, after->len);
    lc_ids_free(&t->before);
    t->before = outer;
    if (!outer.failed && !t->after.failed) return LC_OK;
    return lc_fail(src->err, LC_ENOMEM, "%s: out of memory", src->name);
}

static int add_known_id(const lc_tokenizer *t, const lc_tok_src *src, struct json_object *value,
                        lc_ids *ids) {
    int32_t id = 0;
    int status = lc_tok_id(src, value, "post_processor: a token's id", &id);
    if (status) return status;
    if ((size_t)id >= t->vocab.n_ids || !t->vocab.flags[id])
        return lc_fail(src->err, LC_EFORMAT, "%s: post_processor: id %d is not in the vocabulary",
                       src->name, id);
    return lc_ids_push(ids, id) ? LC_OK
                                : lc_fail(src->err, LC_ENOMEM, "%s: out of memory", src->name);
}

static int special_piece(const lc_tokenizer *t, const lc_tok_src *src, struct json_object *json,
                         struct json_object *piece, lc_ids *ids) {
    lc_str name;
    int status = lc_tok_string(src, piece, "post_processor.single[].SpecialToken", "id", &name);
    if (status) return status;
    struct json_object *list =
        lc_tok_field(lc_tok_field(lc_tok_field(json, "special_tokens"), name.data), "ids");
    lc_quoted quoted = lc_tok_quote(name.data);
    if (!json_object_is_type(list, json_type_array))
        return lc_fail(src->err, LC_EFORMAT,
                       "%s: post_processor.special_tokens has no ids for \"%s\"", src->name,
                       quoted.text);
    for (size_t i = 0; i < json_object_array_length(list) && !status; i++) {
        status = add_known_id(t, src, json_object_array_get_idx(list, i), ids);
        if (ids->len > LC_TOK_STEPS_MAX)
            status = lc_fail(src->err, LC_ELIMIT, "%s: post_processor: more than %d tokens",
                             src->name, LC_TOK_STEPS_MAX);
    }
    return status;
}

static int load_template(lc_tokenizer *t, const lc_tok_src *src, struct json_object *json) {
    struct json_object *single = lc_tok_field(json, "single");
    lc_ids part[2] = {{0}, {0}}; /* before and after the text */
    size_t at = 0;
    int status = LC_OK;
    if (!json_object_is_type(single, json_type_array))
        return lc_fail(src->err, LC_EFORMAT, "%s: post_processor.single is missing or no list",
                       src->name);
    for (size_t i = 0; i < json_object_array_length(single) && !status; i++) {
        struct json_object *piece = json_object_array_get_idx(single, i);
        struct json_object *special = lc_tok_field(piece, "SpecialToken");
        if (special)
            status = special_piece(t, src, json, special, &part[at]);
        else if (lc_tok_field(piece, "Sequence") && at == 0)
            at = 1;
        else
            status = lc_fail(src->err, LC_EUNSUPPORTED,
                             "%s: post_processor.single[%zu]: only special tokens around one "
                             "Sequence are supported",
                             src->name, i);
    }
    if (!status && !at)
        status =
            lc_fail(src->err, LC_EFORMAT, "%s: post_processor.single has no Sequence", src->name);
    if (!status) status = surround(t, src, &part[0], &part[1]);
    lc_ids_free(&part[0]);
    lc_ids_free(&part[1]);
    return status;
}

/* BertProcessing and RobertaProcessing: "cls": [content, id] before, "sep" after. */
static int load_cls_sep(lc_tokenizer *t, const lc_tok_src *src, struct json_object *json) {
    static const char *const keys[] = {"cls", "sep"};
    lc_ids part[2] = {{0}, {0}};
    int status = LC_OK;
    for (size_t i = 0; i < 2 && !status; i++) {
        struct json_object *pair = lc_tok_field(json, keys[i]);
        if (!json_object_is_type(pair, json_type_array) || json_object_array_length(pair) != 2)
            status = lc_fail(src->err, LC_EFORMAT, "%s: post_processor.%s is not [content, id]",
                             src->name, keys[i]);
        else
            status = add_known_id(t, src, json_object_array_get_idx(pair, 1), &part[i]);
    }
    if (!status) status = surround(t, src, &part[0], &part[1]);
    lc_ids_free(&part[0]);
    lc_ids_free(&part[1]);
    return status;
}

static int load_post(lc_tokenizer *t, const lc_tok_src *src, struct json_object *json, int depth) {
    lc_str type;
    if (!json) return LC_OK;
    int status = lc_tok_string(src, json, "post_processor", "type", &type);
    if (status) return status;
    if (!strcmp(type.data, "ByteLevel")) return LC_OK; /* it moves offsets only */
    if (!strcmp(type.data, "TemplateProcessing")) return load_template(t, src, json);
    if (!strcmp(type.data, "BertProcessing") || !strcmp(type.data, "RobertaProcessing"))
        return load_cls_sep(t, src, json);
    lc_quoted quoted = lc_tok_quote(type.data);
    if (strcmp(type.data, "Sequence"))
        return lc_fail(src->err, LC_EUNSUPPORTED, "%s: post-processor \"%s\" is not supported",
                       src->name, quoted.text);
    struct json_object *members = lc_tok_field(json, "processors");
    if (!json_object_is_type(members, json_type_array))
        return lc_fail(src->err, LC_EFORMAT, "%s: post_processor.processors is missing or no list",
                       src->name);
    size_t n = json_object_array_length(members);
    if (depth == LC_TOK_DEPTH_MAX || n > LC_TOK_STEPS_MAX)
        return lc_fail(src->err, LC_ELIMIT, "%s: post_processor: Sequences too deep or too long",
                       src->name);
    for (size_t i = 0; i < n && !status; i++)
        status = load_post(t, src, json_object_array_get_idx(members, i), depth + 1);
    return status;
}

/* ---- the file ---- */

static int check_head(const lc_tok_src *src, struct json_object *json, struct json_object *model) {
    lc_str version = {"1.0", 3}, type = {"BPE", 3};
    int status = LC_OK;
    if (!json_object_is_type(json, json_type_object))
        return lc_fail(src->err, LC_EFORMAT, "%s: not a JSON object", src->name);
    if (!json_object_is_type(model, json_type_object))
        return lc_fail(src->err, LC_EFORMAT, "%s: model is missing or no object", src->name);
    if (lc_tok_field(json, "version")) status = lc_tok_string(src, json, "", "version", &version);
    if (!status && lc_tok_field(model, "type"))
        status = lc_tok_string(src, model, "model", "type", &type);
    if (status) return status;
    lc_quoted quoted = lc_tok_quote(strcmp(version.data, "1.0") ? version.data : type.data);
    if (strcmp(version.data, "1.0"))
        return lc_fail(src->err, LC_EUNSUPPORTED, "%s: version \"%s\" is not supported", src->name,
                       quoted.text);
    if (strcmp(type.data, "BPE"))
        return lc_fail(src->err, LC_EUNSUPPORTED, "%s: model \"%s\" is not supported, only BPE is",
                       src->name, quoted.text);
    if (!json_object_is_type(lc_tok_field(model, "vocab"), json_type_object))
        return lc_fail(src->err, LC_EFORMAT, "%s: model.vocab is missing or no object", src->name);
    struct json_object *added = lc_tok_field(json, "added_tokens");
    if (added && !json_object_is_type(added, json_type_array))
        return lc_fail(src->err, LC_EFORMAT, "%s: added_tokens is no list", src->name);
    return LC_OK;
}

/* 0 where text may vanish on its way to tokens. */
static size_t longest_of(const lc_tokenizer *t) {
    if (t->norm.n_steps > (t->norm.byte_level ? 1 : 0) || t->pretok.drops) return 0;
    for (int32_t code = 0; code < LC_ALPHABET_END; code++)
        if (lc_alphabet_byte(code) >= 0 && t->bpe.char_id[code] < 0) return 0;
    for (size_t i = 0; i < t->added.count; i++)
        if (t->added.tokens[i].lstrip || t->added.tokens[i].rstrip) return 0;
    return lc_vocab_longest(&t->vocab);
}

static int load(lc_tokenizer *t, const lc_tok_src *src, struct json_object *json) {
    struct json_object *model = lc_tok_field(json, "model");
    struct json_object *added = lc_tok_field(json, "added_tokens");
    int status = check_head(src, json, model);
    if (!status) status = lc_normalizer_load(&t->norm, src, lc_tok_field(json, "normalizer"));
    if (!status) status = lc_pretok_load(&t->pretok, src, lc_tok_field(json, "pre_tokenizer"));
    if (!status && !t->norm.byte_level && !t->pretok.byte_level)
        status = lc_fail(src->err, LC_EUNSUPPORTED,
                         "%s: neither pre_tokenizer nor normalizer has ByteLevel; only byte-level "
                         "BPE is supported",
                         src->name);
    if (!status) status = lc_vocab_load(&t->vocab, src, lc_tok_field(model, "vocab"), added);
    if (!status) status = lc_bpe_load(&t->bpe, &t->vocab, src, model);
    if (!status) status = lc_added_load(&t->added, &t->norm, src, added);
    if (!status) status = load_post(t, src, lc_tok_field(json, "post_processor"), 0);
    if (!status) status = lc_pieces_load(&t->pieces, t, src, lc_tok_field(json, "decoder"));
    if (!status) t->longest = longest_of(t);
    return status;
}

static int from_json(struct json_object *json, const char *name, lc_tokenizer **out, lc_err *err) {
    lc_tokenizer *t = lc_calloc(1, sizeof *t);
    lc_tok_src src = {name, err};
    int status = t ? load(t, &src, json) : lc_fail(err, LC_ENOMEM, "%s: out of memory", name);
    if (status)
        lc_tokenizer_free(t);
    else
        *out = t;
    return status;
}

int lc_tokenizer_parse(const char *text, size_t len, const char *name, lc_tokenizer **out,
                       lc_err *err) {
    struct json_object *json;
    *out = NULL;
    if (len > LC_TOK_FILE_MAX)
        return lc_fail(err, LC_ELIMIT, "%s: larger than the limit of %d bytes", name,
                       LC_TOK_FILE_MAX);
    int status = lc_json_parse(text, len, name, &json, err);
    if (status) return status;
    status = from_json(json, name, out, err);
    json_object_put(json);
    return status;
}

int lc_tokenizer_load(const char *path, lc_tokenizer **out, lc_err *err) {
    struct json_object *json;
    struct stat info;
    lc_buf name = {0};
    *out = NULL;
    lc_buf_puts(&name, path);
    if (!stat(path, &info) && S_ISDIR(info.st_mode)) lc_buf_puts(&name, "/tokenizer.json");
    if (name.failed) {
        lc_buf_free(&name);
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    }
    int status = lc_json_load(name.data, LC_TOK_FILE_MAX, &json, err);
    if (!status) {
        status = from_json(json, name.data, out, err);
        json_object_put(json);
    }
    lc_buf_free(&name);
    return status;
}
