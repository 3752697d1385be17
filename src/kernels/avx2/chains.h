/* chains.h: a loop of one instruction on 12 of the 16 registers, each a chain of its own; ymm12 is
 * for what comes before it. In assembly, so that no compiler and no optimisation level moves a
 * register. */
#ifndef LC_KERNELS_AVX2_CHAINS_H
#define LC_KERNELS_AVX2_CHAINS_H

enum { LC_CHAINS = 12 };

/* instruction: "vfmadd213ps %2, %1, "; a and b: registers that it reads. rounds >= 1. */
#define LC_RUN_CHAINS(instruction, rounds, a, b)                                                   \
    __asm__ volatile(".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n"                                          \
                     "vpxor %%ymm\\r, %%ymm\\r, %%ymm\\r\n"                                        \
                     ".endr\n"                                                                     \
                     "1:\n"                                                                        \
                     ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n" instruction "%%ymm\\r\n"                 \
                     ".endr\n"                                                                     \
                     "dec %0\n"                                                                    \
                     "jnz 1b\n"                                                                    \
                     : "+r"(rounds)                                                                \
                     : "x"(a), "x"(b)                                                              \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",       \
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12")

#endif
