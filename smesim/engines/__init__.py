"""Published engines as profiles: how each plans, and what its kernels reach of the hardware.

A profile (`profile`, one TOML file an engine) says which kernels an engine has, what it packs and when, who gets which
chunks and what its threads pay to meet. `gemm` and `llm` lower a product or a phase of a model by a profile to the same
`Program` that plans are lowered to (`lowering`), and the simulator gives its timeline.
"""
