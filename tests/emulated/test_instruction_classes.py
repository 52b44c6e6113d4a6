"""The classes of instructions against an assembler, which knows words and names but not how we read them."""

from __future__ import annotations

import shlex
import struct
import subprocess
from pathlib import Path

from emulation import TARGET, cross_environment

from smesim.instructions import InstructionClass, classify

MARK = 0x5A5A1234
"""Stands before and behind the instructions in the assembled file; no instruction."""

ASSEMBLY = {
    InstructionClass.OUTER_PRODUCT: """
        fmopa za0.s, p0/m, p1/m, z0.s, z1.s
        fmops za3.s, p0/m, p1/m, z0.s, z1.s
        fmopa za7.d, p0/m, p1/m, z0.d, z1.d
        fmopa za0.s, p0/m, p1/m, z0.h, z1.h
        fmopa za1.h, p0/m, p1/m, z0.h, z1.h
        bfmopa za2.s, p0/m, p1/m, z0.h, z1.h
        bfmopa za1.h, p0/m, p1/m, z0.h, z1.h
        smopa za0.s, p0/m, p1/m, z0.b, z1.b
        umopa za0.s, p0/m, p1/m, z0.b, z1.b
        sumopa za3.s, p0/m, p1/m, z0.b, z1.b
        usmopa za3.s, p0/m, p1/m, z0.b, z1.b
        smopa za0.s, p0/m, p1/m, z0.h, z1.h
        smopa za0.d, p0/m, p1/m, z0.h, z1.h
        bmopa za0.s, p0/m, p1/m, z0.s, z1.s
        fmop4a za0.s, z0.s, z16.s
        smop4a za0.s, z0.b, z16.b
    """,
    InstructionClass.LOAD: """
        ldr x0, [x1, #8]
        ldr w0, [x1], #4
        ldr x0, [x1, x2, lsl #3]
        ldrb w0, [x1]
        ldrsw x0, [x1, #4]
        ldrsb w0, [x1, #4]!
        ldur x0, [x1, #-8]
        ldp x0, x1, [sp, #16]
        ldp q0, q1, [x0], #32
        ldnp d0, d1, [x0]
        ldpsw x0, x1, [x2]
        ldr q0, [x0, #16]
        ldr d0, [x0, x1]
        ldr b0, [x0]
        ldur q0, [x1, #-16]
        ldr x0, #16
        ldr q0, #16
        ld1 {v0.4s, v1.4s, v2.4s, v3.4s}, [x0], #64
        ld1 {v0.s}[1], [x0]
        ld1r {v0.4s}, [x0]
        ld4 {v0.4s, v1.4s, v2.4s, v3.4s}, [x0]
        ldxr x0, [x1]
        ldar x0, [x1]
        ldapur x0, [x1, #8]
        ldadd x0, x1, [x2]
        swp x0, x1, [x2]
        prfm pldl1keep, [x0, #64]
        ldr z0, [x0, #1, mul vl]
        ldr p0, [x0]
        ld1w {z0.s}, p0/z, [x0]
        ld1w {z0.s}, p0/z, [x0, x1, lsl #2]
        ld1b {z0.s}, p0/z, [x0]
        ld1rw {z0.s}, p0/z, [x0, #4]
        ld1rqw {z0.s}, p0/z, [x0]
        ldnt1w {z0.s}, p0/z, [x0]
        ld2w {z0.s, z1.s}, p0/z, [x0]
        prfw pldl1keep, p0, [x0]
        ld1w {z0.s-z3.s}, pn8/z, [x0]
        ld1w {z0.s-z1.s}, pn8/z, [x0, x1, lsl #2]
        ld1b {z0.b-z3.b}, pn8/z, [x0, x1]
        ldnt1w {z0.s-z3.s}, pn8/z, [x0]
        ld1w {z0.s, z4.s, z8.s, z12.s}, pn8/z, [x0]
        ld1w {za0h.s[w12, 1]}, p0/z, [x0]
        ld1b {za0v.b[w12, 1]}, p0/z, [x0, x1]
        ld1q {za0h.q[w12, 0]}, p0/z, [x0]
        ldr za[w12, 0], [x0]
        ldr zt0, [x0]
    """,
    InstructionClass.STORE: """
        str x0, [x1, #8]
        strb w0, [x1]
        strh w0, [x1], #2
        stur x0, [x1, #-8]
        stp x0, x1, [sp, #-16]!
        stp q0, q1, [x0]
        str q0, [x0, #16]
        str s0, [x0]
        stur q0, [x1, #-16]
        st1 {v0.4s, v1.4s}, [x0]
        st1 {v0.s}[1], [x0]
        st4 {v0.4s, v1.4s, v2.4s, v3.4s}, [x0], #64
        stxr w0, x1, [x2]
        stlr x0, [x1]
        stlur x0, [x1, #8]
        str z0, [x0]
        str p0, [x0]
        st1w {z0.s}, p0, [x0]
        st1w {z0.s}, p0, [x0, x1, lsl #2]
        st1h {z0.s}, p0, [x0]
        stnt1w {z0.s}, p0, [x0]
        st1w {z0.s-z3.s}, pn8, [x0]
        st1w {z0.s-z1.s}, pn8, [x0, x1, lsl #2]
        st1w {z0.s, z4.s, z8.s, z12.s}, pn8, [x0]
        st1w {za0h.s[w12, 1]}, p0, [x0]
        st1w {za3v.s[w12, 1]}, p0, [x0, x1, lsl #2]
        st1q {za0h.q[w12, 0]}, p0, [x0]
        str za[w12, 0], [x0]
        str zt0, [x0]
    """,
    InstructionClass.ZA_MOVE: """
        mova z0.s, p0/m, za0h.s[w12, 1]
        mova za0v.s[w12, 1], p0/m, z0.s
        mova za0h.q[w12, 0], p0/m, z0.q
        mova {z0.s-z3.s}, za0h.s[w12, 0:3]
        mova {z0.b-z1.b}, za0v.b[w12, 0:1]
        mova za0h.s[w12, 0:3], {z0.s-z3.s}
        mova {z0.d-z3.d}, za.d[w8, 0, vgx4]
        mova za.d[w8, 0, vgx4], {z0.d-z3.d}
        movaz {z0.d-z3.d}, za.d[w8, 0, vgx4]
        movaz z0.s, za0h.s[w12, 0]
        zero {za}
        zero {za0.s}
        zero {zt0}
        zero za.d[w8, 0, vgx4]
        movt zt0[8], x0
        movt x0, zt0[8]
    """,
    InstructionClass.VECTOR: """
        fmla v0.4s, v1.4s, v2.s[0]
        sdot v0.4s, v1.16b, v2.16b
        smmla v0.4s, v1.16b, v2.16b
        bfmmla v0.4s, v1.8h, v2.8h
        tbl v0.16b, {v1.16b}, v2.16b
        movi v0.4s, #0
        dup v0.4s, w0
        fmadd s0, s1, s2, s3
        fadd d0, d1, d2
        fmov x0, d0
        scvtf s0, w0
        umov w0, v0.s[1]
        fmla z0.s, p0/m, z1.s, z2.s
        fadd z0.s, z1.s, z2.s
        sel z0.s, p0, z1.s, z2.s
        mov z0.s, s1
        zip1 z0.s, z1.s, z2.s
        ptrue p0.s
        ptrue pn8.s
        whilelt p0.s, x0, x1
        whilelt pn8.s, x0, x1, vlx4
        bic p0.b, p1/z, p2.b, p3.b
        incw z0.s
        index z0.s, #0, #1
        fmla za.s[w8, 0, vgx4], {z0.s-z3.s}, {z4.s-z7.s}
        fmla za.s[w8, 0, vgx2], {z0.s-z1.s}, z4.s
        fdot za.s[w8, 0, vgx4], {z0.h-z3.h}, {z4.h-z7.h}
        bfdot za.s[w8, 0, vgx2], {z0.h-z1.h}, z4.h[1]
        sdot za.s[w8, 0, vgx4], {z0.b-z3.b}, {z4.b-z7.b}
        add za.s[w8, 0, vgx4], {z0.s-z3.s}
        addha za0.s, p0/m, p1/m, z0.s
        luti4 {z0.b-z1.b}, zt0, z2[0]
        luti4 z0.b, zt0, z2[0]
        luti2 {z0.b-z3.b}, zt0, z4[0]
        zip {z0.s-z3.s}, {z4.s-z7.s}
        fcvtzs {z0.s-z3.s}, {z4.s-z7.s}
        sclamp {z0.s-z3.s}, z4.s, z5.s
        sunpk {z0.h-z3.h}, {z4.b-z5.b}
    """,
    InstructionClass.SCALAR: """
        add x0, x1, x2
        add x0, x1, #16
        sub sp, sp, #64
        mov x0, #1
        madd x0, x1, x2, x3
        cmp x0, x1
        csel x0, x1, x2, lt
        ubfx x0, x1, #4, #8
        adr x0, #16
        mrs x0, tpidr2_el0
        msr tpidr2_el0, xzr
        smstart
        smstop za
        nop
        bti c
        dmb ish
        svc #0
        rdvl x0, #1
        rdsvl x0, #1
        addvl sp, sp, #-1
        addpl x0, x1, #2
        addsvl x0, x1, #2
        cntw x0
        cntd x0, all, mul #2
        incw x0
        decb x0
        .inst 0
    """,
    InstructionClass.BRANCH: """
        b #8
        bl #8
        b.lt #8
        cbz x0, #8
        cbnz w0, #8
        tbz x0, #3, #8
        br x0
        blr x0
        ret
    """,
}


def words_of(assembly: list[str], folder: Path) -> list[int]:
    source, assembled = folder / "all.s", folder / "all.o"
    extensions = "+sme2p1+sme-i16i64+sme-f64f64+sme-f16f16+sme-b16b16+sme-mop4"
    lines = [f".arch armv9.4-a{extensions}", f".inst {MARK}", *assembly, f".inst {MARK}"]
    source.write_text("\n".join(lines) + "\n", encoding="ascii")
    environment = cross_environment(TARGET, "linux-aarch64", ())
    assembler = [*shlex.split(environment["CC"]), "-c", str(source), "-o", str(assembled)]
    done = subprocess.run(assembler, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, between, _ = assembled.read_bytes().split(struct.pack("<I", MARK))
    return [word for (word,) in struct.iter_unpack("<I", between)]


def test_every_instruction_has_the_class_of_what_it_does(tmp_path: Path) -> None:
    expected = {
        line.strip(): of_class for of_class, lines in ASSEMBLY.items() for line in lines.strip().splitlines()
    }
    words = words_of(list(expected), tmp_path)
    assert dict(zip(expected, map(classify, words), strict=True)) == expected
