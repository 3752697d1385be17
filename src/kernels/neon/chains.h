/* chains.h: a loop of one instruction on 24 of the 32 registers, each a chain of its own. In
 * assembly, so that no compiler and no optimisation level moves a register. */
#ifndef LC_KERNELS_NEON_CHAINS_H
#define LC_KERNELS_NEON_CHAINS_H

enum { LC_CHAINS = 24 };

/* instruction: "fmla v\\r\\().4s, %1.4s, %2.4s"; a and b: registers that it reads. rounds >= 1. */
#define LC_RUN_CHAINS(instruction, rounds, a, b)                                                   \
    __asm__ volatile(                                                                              \
        ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n"                   \
        "movi v\\r\\().4s, #0\n"                                                                   \
        ".endr\n"                                                                                  \
        "1:\n"                                                                                     \
        ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n" instruction "\n"  \
        ".endr\n"                                                                                  \
        "subs %0, %0, #1\n"                                                                        \
        "b.ne 1b\n"                                                                                \
        : "+r"(rounds)                                                                             \
        : "w"(a), "w"(b)                                                                           \
        : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12",   \
          "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23")

#endif
