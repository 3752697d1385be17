/* bench_machine.c: `longcat bench machine`: the limits that everything else is measured against. */
#include "cli/bench.h"

enum { MAX_REPEAT = 64 };

static void spread_cells(lc_cell *cells, lc_spread s) {
    cells[0].number = s.min;
    cells[1].number = s.median;
    cells[2].number = s.max;
}

static int read_memory(lc_bench_report *r, lc_pool *pool, size_t bytes, size_t repeat,
                       lc_err *err) {
    static const lc_column columns[] = {{"threads", "threads", 9, 0, 0},
                                        {"min_bytes_per_s", "min", 10, 2, 1e9},
                                        {"median_bytes_per_s", "median", 10, 2, 1e9},
                                        {"bytes_per_s", "best", 10, 2, 1e9}};
    double rates[MAX_REPEAT];
    lc_read_buffer buffer;
    int status = lc_read_buffer_new(bytes, pool, &buffer, err);
    if (status != LC_OK) return status;
    lc_bench_fact(r, "read_buffer", (double)buffer.bytes, "\nRead bandwidth of %.2f GB of memory",
                  (double)buffer.bytes / 1e9);
    lc_bench_table(r, "memory", "GB/s", columns, 4);
    for (int all = 0; all < 2; all++) {
        int threads = all ? lc_pool_threads(pool) : 1;
        if (all && threads == 1) break;
        lc_read_rate(&buffer, all ? pool : NULL);
        for (size_t i = 0; i < repeat; i++) rates[i] = lc_read_rate(&buffer, all ? pool : NULL);
        lc_cell cells[4] = {{.number = threads}};
        spread_cells(cells + 1, lc_spread_of(rates, repeat));
        lc_bench_row(r, cells);
    }
    lc_read_buffer_free(&buffer);
    return LC_OK;
}

static void run_peaks(lc_bench_report *r, lc_pool *pool, size_t repeat) {
    static const lc_column columns[] = {{"instruction", "instruction", -20, 0, 0},
                                        {"isa", "first in", -12, 0, 0},
                                        {"threads", "threads", 8, 0, 0},
                                        {"min_ops_per_s", "min", 10, 1, 1e9},
                                        {"median_ops_per_s", "median", 10, 1, 1e9},
                                        {"ops_per_s", "best", 10, 1, 1e9}};
    const lc_peak *peaks[LC_PEAKS];
    double rates[MAX_REPEAT];
    size_t n = lc_peaks(peaks);
    lc_bench_table(r, "instructions",
                   "Instructions on registers only, multiplications and additions, Gop/s", columns,
                   6);
    for (size_t p = 0; p < n; p++)
        for (int all = 0; all < 2; all++) {
            int threads = all ? lc_pool_threads(pool) : 1;
            if (all && threads == 1) break;
            for (size_t i = 0; i < repeat; i++)
                rates[i] = lc_peak_rate(peaks[p], all ? pool : NULL, 0.05);
            lc_cell cells[6] = {{.text = peaks[p]->name},
                                {.text = lc_isa_name(peaks[p]->isa)},
                                {.number = threads}};
            spread_cells(cells + 3, lc_spread_of(rates, repeat));
            lc_bench_row(r, cells);
        }
}

static int read_disk(lc_bench_report *r, const char *path, double gb, size_t repeat, lc_err *err) {
    static const lc_column columns[] = {{"path", NULL, 0, 0, 0},
                                        {"bytes", "GB read", 9, 2, 1e9},
                                        {"cache", "page cache", 12, 0, 0},
                                        {"min_bytes_per_s", "min", 10, 2, 1e9},
                                        {"median_bytes_per_s", "median", 10, 2, 1e9},
                                        {"bytes_per_s", "best", 10, 2, 1e9}};
    lc_disk_read d;
    int status = lc_disk_read_rate(path, (uint64_t)(gb * 1e9), repeat, &d, err);
    if (status != LC_OK) return status;
    lc_bench_table(r, "disk", "Disk, sequential, 16 reads of 1 MiB in flight, GB/s", columns, 6);
    lc_cell cells[6] = {{.text = path},
                        {.number = (double)d.bytes},
                        {.text = d.direct ? "bypassed" : "in the way"}};
    spread_cells(cells + 3, d.rate);
    lc_bench_row(r, cells);
    return LC_OK;
}

int lc_bench_machine(int argc, char **argv) {
    const char *disk = NULL;
    int64_t threads = 0, repeat = 7;
    double gb = 0, disk_gb = 4;
    bool json = false;
    const lc_opt options[] = {
        {"disk", 0, LC_OPT_STRING, &disk, "PATH",
         "also read this file, or the largest files of this folder, past the page cache", 0, 0},
        {"disk-gb", 0, LC_OPT_FLOAT, &disk_gb, "GB", "most to read from the disk (default: 4)",
         0.001, 100000},
        {"memory-gb", 0, LC_OPT_FLOAT, &gb, "GB",
         "memory to read (default: 4 times the largest cache, at least 1 GiB)", 0.01, 100000},
        {"repeat", 0, LC_OPT_INT, &repeat, "N", "repetitions (default: 7)", 1, MAX_REPEAT},
        {"threads", 't', LC_OPT_INT, &threads, "N",
         "threads to measure beside one (default: the CPUs of this process)", 1, 1024},
        {"json", 0, LC_OPT_FLAG, &json, NULL, "print JSON", 0, 0},
        {0},
    };
    const lc_usage usage = {
        "longcat bench machine [--disk PATH] [options]",
        "Measures what this machine can do at most: read bandwidth of memory, rate of each\n"
        "instruction that products use, sequential reads of a disk. Run it on an idle machine.",
        options, 0, 0};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    lc_bench_report r;
    lc_pool *pool;
    lc_err err = {0};
    int status = lc_pool_new((int)threads, &pool, &err);
    if (status != LC_OK) return lc_cli_fail(&err);
    status = lc_bench_begin(&r, json, "bench machine", lc_pool_threads(pool), &err);
    if (status == LC_OK) {
        status = read_memory(&r, pool, (size_t)(gb * 1e9), (size_t)repeat, &err);
        if (status == LC_OK) run_peaks(&r, pool, (size_t)repeat);
        if (status == LC_OK && disk) status = read_disk(&r, disk, disk_gb, (size_t)repeat, &err);
        if (status == LC_OK) lc_bench_end(&r);
    }
    lc_pool_free(pool);
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
