/* The one routine of the platform's SME support that the kernels call, for toolchains that do not bring it.
 *
 * A function that takes ZA over finds in TPIDR2_EL0 whether someone before left state in ZA that is to be saved first
 * (AAPCS64, "The ZA lazy saving scheme"). The block that the register points at says where to and how much:
 *
 *     0   address of the buffer, null if there is nothing to save
 *     8   slices to save, 16 bits
 *
 * It may change x14 to x18 only. Whoever calls it has read TPIDR2_EL0, so there is SME. Hidden, so that it serves
 * this library alone, and weak, so that a toolchain's own routine may stand beside it. */
#if defined(__APPLE__)
#define SAVE ___arm_tpidr2_save
        .text
        .globl  SAVE
        .private_extern SAVE
        .weak_definition SAVE
#else
#define SAVE __arm_tpidr2_save
        .text
        .hidden SAVE
        .weak   SAVE
        .type   SAVE, %function
        .variant_pcs SAVE
#endif
        .p2align 4
SAVE:
        mrs     x14, TPIDR2_EL0
        cbz     x14, 2f
        ldrh    w16, [x14, #8]
        ldr     x14, [x14]
        cbz     x14, 2f
        cbz     w16, 2f
        rdsvl   x17, #1
        mov     w15, #0
1:      str     za[w15, #0], [x14]
        add     x14, x14, x17
        add     w15, w15, #1
        cmp     w15, w16
        b.lo    1b
2:      ret
#if !defined(__APPLE__)
        .size   SAVE, . - SAVE
        .section .note.GNU-stack, "", %progbits
#endif
