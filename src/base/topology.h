/* topology.h: which CPU each worker of a pool is bound to, if any. */
#ifndef LC_BASE_TOPOLOGY_H
#define LC_BASE_TOPOLOGY_H

#include "longcat.h"

/*
 * Fills cpus[threads] with the CPUs (the system's numbers) of a pool's threads, node after node, so
 * threads with neighbouring numbers share a node's memory. False, and no thread is to be bound,
 * unless the machine has several NUMA nodes with CPUs, `allowed` (the CPUs this process may use,
 * quota included) is all of them, and there is a thread for each: whoever takes less shares the
 * machine, and the system places threads better then.
 * synthetic: NULL for this machine, or hwloc's description of another one ("node:2 core:4 pu:2").
 */
bool lc_topology_spread(const char *synthetic, int allowed, int threads, int *cpus);

#endif
