/*
 * hash.c: one streaming interface over libxxhash (fast, for integrity) and OpenSSL's EVP (what hubs
 * publish). Both libraries allocate their own state. XXH3-128 is written in its canonical order,
 * big end first, so that it equals what xxh128sum prints.
 */
#include "base/hash.h"
#include "base/mem.h"

#include <openssl/evp.h>
#include <string.h>
#include <xxhash.h>

struct lc_hash {
    XXH3_state_t *xxh; /* exactly one of the two is set */
    EVP_MD_CTX *evp;
    bool failed;
};

static void hash_free(lc_hash *hash) {
    XXH3_freeState(hash->xxh);
    EVP_MD_CTX_free(hash->evp);
    lc_free(hash);
}

lc_hash *lc_hash_new(lc_hash_kind kind) {
    lc_hash *hash = lc_calloc(1, sizeof *hash);
    if (!hash) return NULL;
    bool ok;
    if (kind == LC_HASH_XXH128) {
        hash->xxh = XXH3_createState();
        ok = hash->xxh && XXH3_128bits_reset(hash->xxh) == XXH_OK;
    } else {
        hash->evp = EVP_MD_CTX_new();
        const EVP_MD *md = kind == LC_HASH_SHA256 ? EVP_sha256() : EVP_sha1();
        ok = hash->evp && EVP_DigestInit_ex(hash->evp, md, NULL) == 1;
    }
    if (ok) return hash;
    hash_free(hash);
    return NULL;
}

void lc_hash_update(lc_hash *hash, const void *data, size_t size) {
    if (size == 0) return; /* data may be NULL then */
    if (hash->xxh) {
        if (XXH3_128bits_update(hash->xxh, data, size) != XXH_OK) hash->failed = true;
    } else if (EVP_DigestUpdate(hash->evp, data, size) != 1) {
        hash->failed = true;
    }
}

void lc_hash_finish(lc_hash *hash, char hex[65]) {
    static const char digits[] = "0123456789abcdef";
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (hash->xxh) {
        XXH128_canonical_t canonical;
        XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(hash->xxh));
        size = sizeof canonical.digest;
        memcpy(digest, canonical.digest, size);
    } else if (EVP_DigestFinal_ex(hash->evp, digest, &size) != 1) {
        hash->failed = true;
    }
    if (hash->failed) size = 0;
    for (unsigned i = 0; i < size; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[2 * size] = 0;
    hash_free(hash);
}
