/*
 * cmd_inspect.c: `longcat inspect`: what a model is, what it needs, whether it fits. Reads the
 * config and, if there is one, the header of the checkpoint; never the weights.
 */
#include "cli/cli.h"
#include "cli/inspect.h"

#include "base/cpu.h"
#include "engine/engine.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DEFAULT_CONTEXT = 8192 };

/* "20G", "512M", "1.5T": binary multiples; plain numbers are bytes. */
static bool parse_size(const char *text, uint64_t *out) {
    static const char letters[] = "KMGT";
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno || end == text || !(value > 0)) return false;
    const char *unit = *end ? strchr(letters, *end >= 'a' ? *end - 32 : *end) : NULL;
    if (unit) {
        value = ldexp(value, 10 * (int)(unit - letters + 1));
        end++;
        if (*end == 'i') end++;
        if (*end == 'B') end++;
    }
    if (*end || value < 1 || value >= 0x1p63) return false;
    *out = (uint64_t)value;
    return true;
}

/* Of what is packed as values. */
static uint64_t packed_bytes(const lc_report *r, const lc_part_sum *part) {
    return part->packed * r->kernels->bf16.right;
}

/* Weights that one token reads: rows of the tables are nothing beside the rest. */
static uint64_t token_bytes(const lc_report *r, const lc_part_sum parts[LC_PART_COUNT]) {
    const lc_config *c = &r->config;
    const lc_param_counts *n = &r->counts;
    uint64_t bytes = 0;
    for (int p = LC_PART_NGRAM_PROJECTIONS; p < LC_PART_MTP; p++)
        bytes += parts[p].bytes - parts[p].replaced + packed_bytes(r, &parts[p]);
    if (c->tie_embeddings) bytes += parts[LC_PART_EMBEDDING].bytes;
    double share = n->average_experts / (double)c->experts;
    double experts = (double)parts[LC_PART_EXPERTS].bytes;
    return bytes - parts[LC_PART_EXPERTS].bytes + (uint64_t)(experts * share);
}

/* Weights that a run uses: MTP's n-gram tables are in 2.0's files, but normally not used. */
static uint64_t used_bytes(const lc_config *c, const lc_part_sum parts[LC_PART_COUNT]) {
    uint64_t bytes = 0;
    for (int p = 0; p < LC_PART_COUNT; p++)
        if (p != LC_PART_MTP_NGRAM || c->switches.mtp_ngram) bytes += parts[p].bytes;
    return bytes;
}

static void add_fit(lc_report *r, const char *name, const lc_part_sum parts[LC_PART_COUNT]) {
    uint64_t kv = r->kv[0] + r->kv_mtp[0], context = kv * r->context;
    uint64_t weights = used_bytes(&r->config, parts), packed = 0;
    for (int p = 0; p < LC_PART_COUNT; p++)
        packed += packed_bytes(r, &parts[p]) + parts[p].packed_codes;
    lc_fit *fit = &r->fits[r->n_fits++];
    *fit = (lc_fit){
        .name = name,
        .weights = weights,
        .packed = packed,
        .token = token_bytes(r, parts),
        .together = weights + packed + context + r->step,
    };
    fit->fits = fit->together <= r->memory;
    if (fit->together - context < r->memory)
        fit->room = (r->memory - (fit->together - context)) / kv;
    if (fit->room > r->config.max_positions) fit->room = r->config.max_positions;
}

static void estimate(lc_report *r) {
    lc_names_estimate(&r->config, LC_STORE_BF16, r->parts);
    for (int s = 0; s < LC_STORE_COUNT; s++) {
        lc_part_sum parts[LC_PART_COUNT];
        lc_names_estimate(&r->config, (lc_storage)s, parts);
        add_fit(r, lc_storage_name((lc_storage)s), parts);
    }
}

static int look(lc_report *r, lc_err *err) {
    lc_tensors *tensors;
    int status = lc_tensors_open(r->path, &tensors, err);
    if (status != LC_OK) return status;
    lc_tensors_set_quant(tensors, &r->config.quant);
    status = lc_inventory_take(&r->config, tensors, &r->inventory, err);
    r->n_tensors = lc_tensors_count(tensors);
    memcpy(r->parts, r->inventory.parts, sizeof r->parts);
    add_fit(r, "as stored", r->parts);
    r->fits[0].copied = r->inventory.misaligned;
    lc_tensors_close(tensors);
    return status;
}

static int gather(lc_report *r, lc_err *err) {
    struct stat st;
    int status = lc_config_load(r->path, &r->config, err);
    if (status != LC_OK) return status;
    const lc_config *c = &r->config;
    lc_config_count(c, &r->counts);
    r->checkpoint = !stat(r->path, &st) && S_ISDIR(st.st_mode) && lc_tensors_exist(r->path);
    if (!r->memory) r->memory = lc_cpu_memory();
    if (!r->context)
        r->context = c->max_positions < DEFAULT_CONTEXT ? c->max_positions : DEFAULT_CONTEXT;
    for (int i = 0; i < 2; i++) {
        size_t element = i ? sizeof(float) : sizeof(uint16_t);
        r->kv[i] = lc_config_kv_bytes(c, element);
        if (c->mtp_steps)
            r->kv_mtp[i] =
                (c->kv_rank + c->rope_dim + (c->index_heads ? c->index_dim : 0)) * element;
    }
    lc_work_size size = {0, r->context, lc_cpu_count(), lc_kernels_fastest(NULL), true};
    size.rows = lc_work_default_rows(c, size, lc_cpu_memory());
    r->kernels = size.kernels;
    r->step = lc_work_bytes(c, size);
    if (r->checkpoint) return look(r, err);
    estimate(r);
    return LC_OK;
}

static int show_json(const lc_report *r) {
    struct json_object *json = lc_report_json(r);
    const char *text = json ? json_object_to_json_string_ext(
                                  json, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE)
                            : NULL;
    if (text) puts(text);
    json_object_put(json);
    if (text) return LC_EXIT_OK;
    fprintf(stderr, "longcat: out of memory\n");
    return LC_EXIT_FAILED;
}

int lc_cmd_inspect(int argc, char **argv) {
    bool json = false;
    const char *memory = NULL, *args[1];
    int64_t context = 0;
    int n_args;
    const lc_opt options[] = {
        {"json", 0, LC_OPT_FLAG, &json, NULL, "print the same facts as JSON", 0, 0},
        {"memory", 0, LC_OPT_STRING, &memory, "SIZE",
         "RAM to fit into, as 20G or 512M (default: this machine's)", 0, 0},
        {"context", 0, LC_OPT_INT, &context, "N",
         "tokens of context to fit (default: 8192, or the model's limit if it is less)", 1,
         1 << 30},
        {0},
    };
    const lc_usage usage = {
        "longcat inspect MODEL|config.json [--json] [--memory SIZE] [--context N]",
        "Shows what a model is (family member, dimensions, parameters, switches), what its parts "
        "weigh,\nwhat its context takes and whether it fits this machine. MODEL is a folder with "
        "config.json and\nsafetensors files: sizes are then those of the files, and tensors that "
        "are missing, unknown or of\nthe wrong shape are listed (exit code 1 if any is missing or "
        "wrong). From a bare config.json sizes\nare computed for BF16, FP8, INT8 and INT4. Only "
        "headers are read, so this is fast for any model.",
        options, 1, 1};
    int code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    lc_report report = {.path = args[0], .context = (uint64_t)context};
    if (memory && !parse_size(memory, &report.memory)) {
        fprintf(stderr, "longcat: --memory: \"%s\" is not a size such as 20G\n", memory);
        return LC_EXIT_USAGE;
    }
    report.memory_given = memory != NULL;
    lc_err err = {0};
    if (gather(&report, &err) != LC_OK) {
        lc_inventory_free(&report.inventory);
        return lc_cli_fail(&err);
    }
    code = LC_EXIT_OK;
    if (json)
        code = show_json(&report);
    else
        lc_report_print(&report, stdout);
    if (report.inventory.n_missing || report.inventory.n_wrong) code = LC_EXIT_FAILED;
    lc_inventory_free(&report.inventory);
    return code;
}
