/*
 * topology.c: the machine's NUMA nodes, by hwloc. Nodes may have no CPUs (memory on a link) or
 * those of another node (memory of two kinds): a CPU counts for the first node that has it.
 * Nothing may be filtered out to save time: a node has the CPUs of the object that it hangs on.
 */
#include "base/topology.h"

#include <hwloc.h>
#include <sched.h>
#include <unistd.h>

/* The CPUs of each node in turn. Returns how many nodes had new ones; *n: CPUs, `most` at most. */
static int list_cpus(hwloc_topology_t topology, hwloc_bitmap_t seen, int most, int *cpus, int *n) {
    int nodes = 0;
    hwloc_obj_t node = NULL;
    *n = 0;
    while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node))) {
        int before = *n;
        for (int cpu = hwloc_bitmap_first(node->cpuset); cpu >= 0;
             cpu = hwloc_bitmap_next(node->cpuset, cpu)) {
            if (hwloc_bitmap_isset(seen, (unsigned)cpu)) continue;
            if (*n == most || cpu >= CPU_SETSIZE || hwloc_bitmap_set(seen, (unsigned)cpu) != 0)
                return 0;
            cpus[(*n)++] = cpu;
        }
        nodes += *n > before;
    }
    return nodes;
}

/* Without the flag hwloc leaves out CPUs that this process may not use. Where a container has no
 * sysfs there is nothing to load, and hwloc would say so on stderr. */
static bool load(hwloc_topology_t topology, const char *synthetic) {
    if (!synthetic && access("/sys/devices/system/cpu", R_OK) != 0) return false;
    if (synthetic && hwloc_topology_set_synthetic(topology, synthetic) != 0) return false;
    return hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED) == 0 &&
           hwloc_topology_load(topology) == 0 &&
           (synthetic || hwloc_topology_is_thissystem(topology));
}

bool lc_topology_spread(const char *synthetic, int allowed, int threads, int *cpus) {
    hwloc_topology_t topology;
    bool spread = false;
    int n = 0;
    if (threads < 2 || threads != allowed || hwloc_topology_init(&topology) != 0) return false;
    hwloc_bitmap_t seen = hwloc_bitmap_alloc();
    if (seen && load(topology, synthetic) &&
        hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU) == threads)
        spread = list_cpus(topology, seen, threads, cpus, &n) > 1 && n == threads;
    hwloc_bitmap_free(seen);
    hwloc_topology_destroy(topology);
    return spread;
}
