/*
 * shardset.c: a folder of shards behind one numbering; see shardset.h. The manifest is read for the
 * names and checksums of the shards; what else stands in it is for people.
 */
#include "train/shardset.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { MANIFEST_MAX = 64 << 20, NAME_MAX_BYTES = 200 };

struct lc_shardset {
    char *name;
    lc_shard **shards;
    uint64_t *first; /* [n + 1] number of a shard's first document */
    size_t n;
    uint64_t tokens, checksum;
};

static struct json_object *member(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    if (json_object_is_type(object, json_type_object))
        json_object_object_get_ex(object, key, &value);
    return value;
}

static const char *string_of(struct json_object *object, const char *key) {
    struct json_object *value = member(object, key);
    if (!json_object_is_type(value, json_type_string)) return NULL;
    const char *text = json_object_get_string(value);
    return strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}

static bool number_is(struct json_object *object, const char *key, uint64_t want) {
    struct json_object *value = member(object, key);
    return json_object_is_type(value, json_type_int) && json_object_get_int64(value) >= 0 &&
           json_object_get_uint64(value) == want;
}

/* A plain file name: nothing that leads out of the folder. */
static bool plain_name(const char *name) {
    size_t len = name ? strlen(name) : 0;
    return len && len <= NAME_MAX_BYTES && name[0] != '.' && !strchr(name, '/');
}

static bool same_kind(const lc_shard_kind *a, const lc_shard_kind *b) {
    return a->token_bytes == b->token_bytes && a->vocab == b->vocab && a->eos == b->eos &&
           !memcmp(a->tokenizer, b->tokenizer, sizeof a->tokenizer);
}

static int check_shard(const lc_shardset *set, const char *path, size_t i,
                       struct json_object *entry, lc_err *err) {
    const lc_shard *shard = set->shards[i];
    char sum[20];
    snprintf(sum, sizeof sum, "%016llx", (unsigned long long)lc_shard_checksum(shard));
    const char *stated = string_of(entry, "xxh3");
    if (!stated || strcmp(stated, sum))
        return lc_fail(err, LC_EFORMAT,
                       "%s: is not the shard that manifest.json names: checksum "
                       "%s, not %.40s",
                       path, sum, stated ? stated : "(none)");
    if (!number_is(entry, "documents", lc_shard_documents(shard)) ||
        !number_is(entry, "tokens", lc_shard_tokens(shard)))
        return lc_fail(err, LC_EFORMAT, "%s: documents or tokens differ from manifest.json", path);
    if (!same_kind(lc_shard_what(shard), lc_shard_what(set->shards[0])))
        return lc_fail(err, LC_EFORMAT, "%s: tokenizer or token size differ from the first shard's",
                       path);
    return LC_OK;
}

static int open_shard(lc_shardset *set, const char *folder, size_t i, struct json_object *entry,
                      lc_err *err) {
    const char *file = string_of(entry, "file");
    if (!plain_name(file))
        return lc_fail(err, LC_EFORMAT, "%s/manifest.json: shards[%zu].file is no file name",
                       folder, i);
    lc_buf path = {0};
    if (!lc_buf_printf(&path, "%s/%s", folder, file)) {
        lc_buf_free(&path);
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", folder);
    }
    int status = lc_shard_open(path.data, &set->shards[i], err);
    if (!status) {
        set->n = i + 1;
        status = check_shard(set, path.data, i, entry, err);
        set->first[i + 1] = set->first[i] + lc_shard_documents(set->shards[i]);
        set->tokens += lc_shard_tokens(set->shards[i]);
        uint64_t pair[2] = {set->checksum, lc_shard_checksum(set->shards[i])};
        set->checksum = XXH3_64bits(pair, sizeof pair);
    }
    lc_buf_free(&path);
    return status;
}

static int open_shards(lc_shardset *set, const char *folder, struct json_object *manifest,
                       lc_err *err) {
    const char *format = string_of(manifest, "format"), *name = string_of(manifest, "name");
    struct json_object *list = member(manifest, "shards");
    if (!format || strcmp(format, LC_SHARDSET_FORMAT))
        return lc_fail(err, LC_EFORMAT, "%s/manifest.json: format is not \"%s\"", folder,
                       LC_SHARDSET_FORMAT);
    if (!number_is(manifest, "version", LC_SHARDSET_VERSION))
        return lc_fail(err, LC_EUNSUPPORTED, "%s/manifest.json: only version %d is supported",
                       folder, LC_SHARDSET_VERSION);
    size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
    if (!name || !n || n > LC_SHARDSET_MAX)
        return lc_fail(err, LC_EFORMAT, "%s/manifest.json: name or shards (1 to %d) are missing",
                       folder, LC_SHARDSET_MAX);
    set->name = lc_strdup(name);
    set->shards = lc_calloc(n, sizeof(lc_shard *));
    set->first = lc_calloc(n + 1, sizeof *set->first);
    if (!set->name || !set->shards || !set->first)
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", folder);
    int status = LC_OK;
    for (size_t i = 0; i < n && !status; i++)
        status = open_shard(set, folder, i, json_object_array_get_idx(list, i), err);
    return status;
}

int lc_shardset_open(const char *folder, lc_shardset **out, lc_err *err) {
    struct json_object *manifest = NULL;
    lc_shardset *set = lc_calloc(1, sizeof *set);
    lc_buf path = {0};
    *out = NULL;
    lc_buf_printf(&path, "%s/manifest.json", folder);
    int status = set && !path.failed ? lc_json_load(path.data, MANIFEST_MAX, &manifest, err)
                                     : lc_fail(err, LC_ENOMEM, "%s: out of memory", folder);
    if (status == LC_ENOTFOUND)
        lc_fail(err, status, "%s: has no manifest.json: no training data, or not finished", folder);
    if (!status) status = open_shards(set, folder, manifest, err);
    json_object_put(manifest);
    lc_buf_free(&path);
    if (status)
        lc_shardset_close(set);
    else
        *out = set;
    return status;
}

void lc_shardset_close(lc_shardset *set) {
    if (!set) return;
    for (size_t i = 0; i < set->n; i++) lc_shard_close(set->shards[i]);
    lc_free(set->shards);
    lc_free(set->first);
    lc_free(set->name);
    lc_free(set);
}

const char *lc_shardset_name(const lc_shardset *set) { return set->name; }
const lc_shard_kind *lc_shardset_what(const lc_shardset *set) {
    return lc_shard_what(set->shards[0]);
}
uint64_t lc_shardset_documents(const lc_shardset *set) { return set->first[set->n]; }
uint64_t lc_shardset_tokens(const lc_shardset *set) { return set->tokens; }
uint64_t lc_shardset_checksum(const lc_shardset *set) { return set->checksum; }

/* The shard that holds a document. */
static size_t find(const lc_shardset *set, uint64_t doc) {
    size_t low = 0, high = set->n;
    while (high - low > 1) {
        size_t mid = (low + high) / 2;
        if (set->first[mid] <= doc)
            low = mid;
        else
            high = mid;
    }
    return low;
}

uint32_t lc_shardset_length(const lc_shardset *set, uint64_t doc) {
    size_t i = find(set, doc);
    return lc_shard_length(set->shards[i], doc - set->first[i]);
}

int lc_shardset_read(const lc_shardset *set, const lc_shard_part *part, lc_err *err) {
    size_t i = find(set, part->doc);
    lc_shard_part local = *part;
    local.doc -= set->first[i];
    return lc_shard_read(set->shards[i], &local, err);
}
