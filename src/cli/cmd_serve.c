/*
 * cmd_serve.c: `longcat serve`: flags and a config file, what is opened in which order, and what a
 * person sees at the start. The service itself is src/server/service.c.
 */
#include "cli/engine_options.h"
#include "cli/server_data.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/utf8.h"
#include "engine/engine.h"
#include "server/service.h"

#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WHOLE_AGENT = 24576 }; /* tokens of context with which all agents of docs/clients.md begin */

typedef struct serve_flags {
    lc_engine_flags engine;
    lc_cli_config config;
    const char *host, *data, *name, *certificate, *key, *prices, *prefix, *cache_ram, *cache_disk;
    lc_opt_list hosts;
    int64_t port, context, running, budget, waiting;
    double longest_wait, drain, temperature, top_p;
    bool keys, pin_temperature, quiet;
} serve_flags;

typedef struct server {
    const serve_flags *f;
    lc_server_data data;
    lc_engine *engine;
    lc_cache *cache;
    lc_chat_template *tmpl;
    lc_accounts *accounts;
    lc_replay *replay;
    lc_sched *sched;
    lc_service *service;
    char *name; /* the served id */
    bool keys;  /* each request needs one */
} server;

/* ---- what makes two models different to the cache ---- */

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_weights(const struct dirent *e) {
    size_t n = strlen(e->d_name);
    return n > 12 && !strcmp(e->d_name + n - 12, ".safetensors");
}

/* Name, size and time of every weight file, the config's bytes, the arithmetic. Weights that change
 * in place under all of these would need their own time stamp set back. */
static int model_identity(const char *path, const serve_flags *f, bool bf16, char hex[65],
                          lc_err *err) {
    struct dirent **list = NULL;
    lc_buf text = {0};
    lc_buf_printf(&text, "%s %s\n", LC_VERSION, bf16 ? "bf16" : "f32");
    for (size_t i = 0; i < f->engine.settings.count; i++)
        lc_buf_printf(&text, "%s\n", f->engine.settings.items[i]);
    int n = scandir(path, &list, is_weights, by_name);
    for (int i = 0; i < n; i++) {
        struct stat st;
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, list[i]->d_name);
        if (stat(file, &st) == 0)
            lc_buf_printf(&text, "%s %lld %lld.%09ld\n", list[i]->d_name, (long long)st.st_size,
                          (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
        free(list[i]);
    }
    free(list);
    char config[4096];
    snprintf(config, sizeof config, "%s/config.json", path);
    int status = lc_file_read(config, 0, &text, err);
    lc_hash *hash = status == LC_OK ? lc_hash_new(LC_HASH_SHA256) : NULL;
    if (hash) {
        lc_hash_update(hash, text.data, text.len);
        lc_hash_finish(hash, hex);
    } else if (status == LC_OK) {
        status = lc_fail(err, LC_ENOMEM, "model identity: out of memory");
    }
    lc_buf_free(&text);
    return status;
}

/* What gives an answer's tokens their meaning: the bytes of tokenizer and template. */
static int text_identity(const char *path, char hex[65], lc_err *err) {
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json",
                                        "chat_template.jinja"};
    lc_hash *hash = lc_hash_new(LC_HASH_SHA256);
    if (!hash) return lc_fail(err, LC_ENOMEM, "model identity: out of memory");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char file[4096];
        lc_buf text = {0};
        lc_err absent = {0};
        snprintf(file, sizeof file, "%s/%s", path, files[i]);
        if (lc_file_read(file, 0, &text, &absent) != LC_OK) lc_buf_clear(&text);
        lc_hash_update(hash, &text.len, sizeof text.len);
        if (text.len) lc_hash_update(hash, text.data, text.len);
        lc_buf_free(&text);
    }
    lc_hash_finish(hash, hex);
    return LC_OK;
}

/* ---- opening ---- */

static int open_cache(server *s, const char *model, lc_err *err) {
    char hex[65], folder[4200];
    size_t ram = lc_cpu_memory() / 8;
    uint64_t disk = (uint64_t)10 << 30;
    int status = s->f->cache_ram ? lc_cli_bytes("--cache-ram", s->f->cache_ram, &ram, err) : LC_OK;
    if (status == LC_OK && s->f->cache_disk) {
        size_t bytes = 0;
        status = lc_cli_bytes("--cache-disk", s->f->cache_disk, &bytes, err);
        disk = bytes;
    }
    if (status != LC_OK || !ram) return status;
    status = model_identity(model, s->f, s->engine->bf16, hex, err);
    if (status != LC_OK) return status;
    snprintf(folder, sizeof folder, "%s/prompts", s->data.folder);
    lc_cache_options options = {.layout = lc_model_kv_layout(s->engine->model, s->engine->bf16),
                                .identity = hex,
                                .identity_size = strlen(hex),
                                .ram_bytes = ram,
                                .folder = disk ? folder : NULL,
                                .disk_bytes = disk,
                                .pool = s->engine->pool};
    memcpy(options.secret, s->data.secret, sizeof options.secret);
    return lc_cache_open(&options, &s->cache, err);
}

/* Templates are optional: a base model still serves completions. */
static int open_template(server *s, const char *model, lc_err *err) {
    int status = lc_chat_template_load(model, &s->tmpl, err);
    if (status != LC_ENOTFOUND) return status;
    lc_log(LC_LOG_WARN, "%s: no chat template: only /v1/completions is served", model);
    return LC_OK;
}

static bool is_loopback(const char *host) {
    return !strncmp(host, "127.", 4) || !strcmp(host, "::1") || !strcmp(host, "localhost");
}

static int check_exposure(server *s, lc_err *err) {
    const serve_flags *f = s->f;
    lc_key *list = NULL;
    size_t n = 0, active = 0;
    int status = lc_key_list(s->accounts, &list, &n, err);
    for (size_t i = 0; i < n; i++) active += !list[i].revoked;
    lc_free(list);
    if (status != LC_OK) return status;
    s->keys = f->keys || active;
    if (active || (is_loopback(f->host) && !f->keys)) return LC_OK;
    return lc_fail(err, LC_EINVAL,
                   "%s, and there is no key yet. Make one with `longcat keys create NAME --data "
                   "%s`, then start this again with --data %s",
                   f->keys ? "--keys" : "other machines could use this server", s->data.folder,
                   s->data.folder);
}

static void log_line(void *ctx, const char *json) {
    (void)ctx;
    fprintf(stderr, "%s\n", json);
}

static char *name_of(const char *model, const char *given) {
    if (given) return lc_strdup(given);
    char path[4096];
    char *real = realpath(model, path); /* "." has a name too */
    const char *slash = strrchr(real ? real : model, '/');
    return lc_strdup(slash && slash[1] ? slash + 1 : model);
}

/* A name goes into JSON, metrics and logs; a prefix begins names of Prometheus. */
static int check_names(const server *s, lc_err *err) {
    const char *prefix = s->f->prefix;
    bool plain = s->name && *s->name;
    if (!s->name) return lc_fail(err, LC_ENOMEM, "out of memory");
    for (size_t at = 0, n = strlen(s->name), used; plain && at < n; at += used) {
        int32_t c = lc_utf8_decode(s->name + at, n - at, &used);
        plain = c >= ' ' && (c < 0x7f || c > 0x9f) && c != '"' && c != '\\';
    }
    if (!plain)
        return lc_fail(
            err, LC_EINVAL,
            "--name: \"%s\" is empty, or has what isn't printable UTF-8, a quote or a backslash",
            s->name);
    for (const char *p = prefix; *p || p == prefix; p++)
        if (!isalpha((unsigned char)*p) && *p != '_' && *p != ':' &&
            !(p > prefix && isdigit((unsigned char)*p)))
            return lc_fail(err, LC_EINVAL,
                           "--metrics-prefix: \"%s\" is no letter, _ or : and then letters, "
                           "digits, _ and :",
                           prefix);
    return LC_OK;
}

static int open_all(server *s, const char *model, lc_err *err) {
    const serve_flags *f = s->f;
    char path[4200], text[65];
    lc_engine_options engine = lc_cli_engine_options(&f->engine);
    engine.context = (size_t)f->context;
    s->name = name_of(model, f->name);
    int status = check_names(s, err);
    if (status == LC_OK) status = lc_server_data_open(f->data, &s->data, err);
    if (status == LC_OK) status = lc_server_data_hold(&s->data, err);
    if (status == LC_OK) {
        snprintf(path, sizeof path, "%s/accounts.db", s->data.folder);
        status = lc_accounts_open(path, f->prices, &s->accounts, err);
    }
    if (status == LC_OK) status = check_exposure(s, err);
    if (status == LC_OK) status = lc_engine_open(model, &engine, &s->engine, err);
    if (status == LC_OK) status = lc_engine_warm_up(s->engine, err);
    if (status == LC_OK && !s->engine->tokenizer)
        status = lc_fail(err, LC_ENOTFOUND, "%s: tokenizer.json is missing", model);
    if (status == LC_OK) status = open_template(s, model, err);
    if (status == LC_OK) status = open_cache(s, model, err);
    if (status == LC_OK) {
        snprintf(path, sizeof path, "%s/answers.db", s->data.folder);
        status = text_identity(model, text, err);
    }
    if (status == LC_OK)
        status = lc_replay_open(path, text, lc_tokenizer_vocab_size(s->engine->tokenizer),
                                &s->replay, err);
    lc_sched_options sched = {.running = (size_t)f->running,
                              .budget = (size_t)f->budget,
                              .waiting = (size_t)f->waiting,
                              .cache = s->cache};
    if (status == LC_OK) status = lc_sched_open(s->engine, &sched, &s->sched, err);
    if (status != LC_OK) return status;
    lc_service_options o = {
        .engine = s->engine,
        .sched = s->sched,
        .cache = s->cache,
        .tmpl = s->tmpl,
        .replay = s->replay,
        .accounts = s->accounts,
        .keys = s->keys,
        .model = s->name,
        .metrics_prefix = f->prefix,
        .sampling = {.temperature = (float)f->temperature, .top_p = (float)f->top_p},
        .pin_temperature = f->pin_temperature,
        .longest_wait = f->longest_wait,
        .drain = f->drain,
        .http = {.host = f->host,
                 .port = (int)f->port,
                 .tls_certificate = f->certificate,
                 .tls_key = f->key,
                 .hosts = f->hosts.items,
                 .n_hosts = f->hosts.count},
        .access = f->quiet ? NULL : log_line};
    return lc_service_open(&o, &s->service, err);
}

static void close_all(server *s) {
    lc_sched_close(s->sched);
    lc_service_free(s->service);
    lc_replay_close(s->replay);
    lc_cache_close(s->cache);
    lc_accounts_close(s->accounts);
    lc_chat_template_free(s->tmpl);
    lc_engine_close(s->engine);
    lc_server_data_close(&s->data);
    lc_free(s->name);
}

/* The address that a client types: 0.0.0.0 and :: stand for all of this machine's. */
static void print_base(const server *s, char *out, size_t size) {
    char name[256];
    const char *host = s->f->host;
    if ((!strcmp(host, "0.0.0.0") || !strcmp(host, "::")) && !gethostname(name, sizeof name))
        host = name;
    bool ipv6 = strchr(host, ':');
    snprintf(out, size, "%s://%s%s%s:%d", s->f->certificate ? "https" : "http", ipv6 ? "[" : "",
             host, ipv6 ? "]" : "", lc_service_port(s->service));
}

static void greet(const server *s, double seconds) {
    char base[400];
    print_base(s, base, sizeof base);
    printf("longcat " LC_VERSION " serves %s (context %zu) at %s, ready after %.1f s\n\n", s->name,
           lc_engine_context(s->engine), base, seconds);
    printf("  page          %s/\n", base);
    printf("  OpenAI        %s/v1    Chat Completions, Responses, Completions\n", base);
    printf("  Anthropic     %s       Messages\n", base);
    bool small = lc_engine_context(s->engine) < WHOLE_AGENT;
    printf("  Claude Code   ANTHROPIC_BASE_URL=%s ANTHROPIC_AUTH_TOKEN=%s ANTHROPIC_MODEL=%s "
           "%sclaude\n",
           base, s->keys ? "<key>" : "local", s->name, small ? "CLAUDE_CODE_SIMPLE=1 " : "");
    if (small)
        printf("\nThis context is too small for whole agents: they open with 8 to 25 thousand "
               "tokens.\n");
    printf("\nCtrl-C stops; docs/clients.md has the lines for other agents.\n");
    fflush(stdout);
}

static int serve(const char *model, const serve_flags *f, lc_err *err) {
    server s = {.f = f, .data.lock = -1};
    uint64_t start = lc_clock_ns();
    signal(SIGPIPE, SIG_IGN); /* a closed log or page is an error to handle, */
    signal(SIGXFSZ, SIG_IGN); /* as a file that may not grow is */
    int status = open_all(&s, model, err);
    if (status == LC_OK) {
        greet(&s, (double)(lc_clock_ns() - start) / 1e9);
        status = lc_service_run(s.service, err);
    }
    close_all(&s);
    return status;
}

int lc_cmd_serve(int argc, char **argv) {
    serve_flags f = {.host = "127.0.0.1",
                     .port = 8080,
                     .prefix = "longcat:",
                     .running = 16,
                     .budget = 512,
                     .waiting = 256,
                     .longest_wait = 300,
                     .drain = 30,
                     .temperature = 0.7,
                     .top_p = 0.95};
    const lc_opt options[] = {
        {"config", 0, LC_OPT_STRING, &f.config.path, "FILE",
         "lines of `name = value` with the names of these options; flags win", 0, 0},
        {"host", 0, LC_OPT_STRING, &f.host, "ADDRESS",
         "address to listen on (default 127.0.0.1; others need a key)", 0, 0},
        {"port", 'p', LC_OPT_INT, &f.port, "N", "default 8080; 0 = any free one", 0, 65535},
        {"name", 0, LC_OPT_STRING, &f.name, "ID", "the model's id (default: its folder's name)", 0,
         0},
        {"data", 0, LC_OPT_STRING, &f.data, "DIR",
         "keys, ledger and prompt cache (default ~/.local/share/longcat)", 0, 0},
        {"keys", 0, LC_OPT_FLAG, &f.keys, NULL, "refuse to start while there is no API key", 0, 0},
        {"context", 0, LC_OPT_INT, &f.context, "N",
         "longest conversation in tokens (default: what the model allows)", 1, 1 << 28},
        {"cache-ram", 0, LC_OPT_STRING, &f.cache_ram, "SIZE",
         "memory of the prompt cache (default: an eighth of the machine's; 0 = no cache)", 0, 0},
        {"cache-disk", 0, LC_OPT_STRING, &f.cache_disk, "SIZE",
         "disk space of the prompt cache (default 10G; 0 = none)", 0, 0},
        {"running", 0, LC_OPT_INT, &f.running, "N", "answers generated at a time (default 16)", 1,
         1024},
        {"budget", 0, LC_OPT_INT, &f.budget, "N", "rows of a step (default 512)", 1, 65536},
        {"waiting", 0, LC_OPT_INT, &f.waiting, "N", "requests in the queue (default 256)", 1,
         65536},
        {"longest-wait", 0, LC_OPT_FLOAT, &f.longest_wait, "S",
         "429 when more seconds of work wait (default 300)", 1, 1e6},
        {"drain", 0, LC_OPT_FLOAT, &f.drain, "S",
         "seconds that running answers get after SIGTERM (default 30)", 0, 1e6},
        {"temperature", 0, LC_OPT_FLOAT, &f.temperature, "X", "where a request has none (0.7)", 0,
         100},
        {"top-p", 0, LC_OPT_FLOAT, &f.top_p, "X", "where a request has none (0.95)", 0, 1},
        {"pin-temperature", 0, LC_OPT_FLAG, &f.pin_temperature, NULL,
         "as LongCat's platform: 1.0 while thinking, 0.7 otherwise, whatever a request says", 0, 0},
        {"tls-certificate", 0, LC_OPT_STRING, &f.certificate, "FILE", "PEM; SIGHUP reads it again",
         0, 0},
        {"tls-key", 0, LC_OPT_STRING, &f.key, "FILE", "PEM", 0, 0},
        {"allow-host", 0, LC_OPT_LIST, &f.hosts, "NAME",
         "a Host header to accept on a loopback address; may be repeated", 0, 0},
        {"prices", 0, LC_OPT_STRING, &f.prices, "FILE",
         "JSON, yuan per million tokens (docs/api.md; default: LongCat's own)", 0, 0},
        {"metrics-prefix", 0, LC_OPT_STRING, &f.prefix, "TEXT",
         "before the names at /metrics (default longcat:; vllm: suits existing dashboards)", 0, 0},
        {"quiet", 'q', LC_OPT_FLAG, &f.quiet, NULL, "no line for each request on stderr", 0, 0},
        LC_ENGINE_OPTIONS(f.engine),
        {0},
    };
    const lc_usage usage = {
        .synopsis = "longcat serve MODEL [options]",
        .description = "Serves a model over HTTP as OpenAI's and Anthropic's APIs do, for coding "
                       "agents and SDKs.\n"
                       "Prompts are cached in memory and on the disk, across restarts. docs/api.md "
                       "describes it.",
        .options = options,
        .min_args = 1,
        .max_args = 1,
    };
    const char *args[1];
    int n_args, code = lc_cli_parse_config(&usage, argc, argv, &f.config, args, &n_args);
    lc_err err = {0};
    if (code < 0) code = serve(args[0], &f, &err) == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
    lc_buf_free(&f.config.text);
    return code;
}
