/*
 * corpus.h: the documents of a corpus, one by one, from files and folders that people name: text,
 * source trees, JSONL with {"text": ...}, chat JSONL with {"messages": [...], "tools": [...]}.
 *
 * Order, which everything built on it keeps: the paths as given; inside a folder its entries by
 * name, bytewise; inside a JSONL file its lines. What can't be used is left out and counted, never
 * silently; what can't be read is an error.
 */
#ifndef LC_TRAIN_CORPUS_H
#define LC_TRAIN_CORPUS_H

#include "base/err.h"
#include "base/json.h"

enum {
    LC_CORPUS_FILE_MAX = 1 << 20, /* default limit for files found in folders, bytes */
    LC_CORPUS_PART_MAX = 8 << 20, /* larger text files become several documents, cut at lines */
    LC_CORPUS_LINE_MAX = 64 << 20 /* a line of JSONL */
};

/* What folders are searched for unless options say otherwise. */
#define LC_CORPUS_EXTENSIONS                                                                       \
    "py,pyi,c,h,cc,cpp,cxx,hpp,hh,go,js,mjs,cjs,jsx,ts,tsx,rs,sh,bash,zsh,bats,java,kt,scala,rb,"  \
    "php,cs,swift,lua,pl,pm,r,jl,hs,ml,ex,erl,clj,sql,html,css,scss,md,markdown,rst,txt,tex,"      \
    "toml,yaml,yml,jsonl"

typedef struct lc_corpus_options {
    const char *const *paths; /* files and folders; a file named here may have any extension */
    size_t n_paths;
    const char *extensions; /* "py,c,h"; NULL = LC_CORPUS_EXTENSIONS */
    size_t max_file;        /* bytes of a file found in a folder; 0 = LC_CORPUS_FILE_MAX */
} lc_corpus_options;

/* What was read and what was left out. */
#define LC_CORPUS_COUNTS(X)                                                                        \
    X(files, "files read")                                                                         \
    X(bytes, "bytes read")                                                                         \
    X(documents, "documents in them")                                                              \
    X(other_type, "files of other types")                                                          \
    X(too_large, "files or lines above the size limit")                                            \
    X(links, "symbolic links and special files")                                                   \
    X(hidden, "hidden files and folders")                                                          \
    X(binary, "binary files")                                                                      \
    X(not_utf8, "files or texts that are not UTF-8")                                               \
    X(empty, "empty documents")                                                                    \
    X(bad_line, "lines that are no document")
typedef struct lc_corpus_counts {
#define LC_CORPUS_FIELD(name, text) uint64_t name;
    LC_CORPUS_COUNTS(LC_CORPUS_FIELD)
#undef LC_CORPUS_FIELD
} lc_corpus_counts;

typedef struct lc_document {
    const char *text; /* valid UTF-8, not empty; of a chat: the texts of its messages, in lines,
                         which may be empty */
    size_t len;
    const char *chat; /* NULL, or the line of JSON, an object with an array "messages" */
    size_t chat_len;
    const char *type; /* extension, "" without; lives as long as the corpus */
    const char *path; /* of its file */
    uint64_t line;    /* of a JSONL file, from 1; else 0 */
} lc_document;

typedef struct lc_corpus lc_corpus;

int lc_corpus_open(const lc_corpus_options *options, lc_corpus **out, lc_err *err);
void lc_corpus_close(lc_corpus *corpus);
/* The next document, valid until the next call; *more false at the end. */
int lc_corpus_next(lc_corpus *corpus, lc_document *doc, bool *more, lc_err *err);
const lc_corpus_counts *lc_corpus_count(const lc_corpus *corpus);
uint64_t lc_corpus_size(const lc_corpus *corpus); /* bytes of all its files, for progress */

#endif
