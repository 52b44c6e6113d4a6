"""The chip of a machine on which wide kernels stand in for a matrix unit.

The machine is probed twice: with the narrow kernels, which its cores then run, and with the wide ones. What the second
probe says of a core is what the stand-in gives; each core has its own, and drives it alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from smesim.exec.device import Device
from smesim.exec.probe.chipfile import LOW_PRECISION, Progress, probe
from smesim.hwmodel.chip import Chip, CoreSpec, DTypeName, MatrixUnit, TileShape
from smesim.hwmodel.product_cost import DEFAULT_MR, DEFAULT_NR
from smesim.hwmodel.quantity import Quantity
from smesim.workload.dtypes import DType

UNIT = "wide"
STAND_IN_CHIP = "host-stand-in"
"""The name of such a chip."""


def probe_with_stand_in(
    device: Device, *, threads: int | None = None, quick: bool = False, formats: Sequence[DType] | None = None,
    seed: int = 0, command: str = "smesim probe --stand-in", progress: Progress | None = None,
) -> Chip:  # fmt: skip
    """Measure this machine with narrow and with wide kernels. Raises DeviceError."""
    report = progress or (lambda what, done, total: None)
    beside = device.with_stand_in()

    def probed(kernels: Device, turn: int) -> Chip:
        def in_turn(what: str, done: int, total: int) -> None:
            report(f"{kernels.isa}: {what}", turn * total + done, 2 * total)

        return probe(
            kernels, threads=threads, quick=quick, formats=formats, seed=seed, command=command, progress=in_turn
        )

    return joined(probed(beside, 0), probed(device, 1))


def joined(narrow: Chip, wide: Chip) -> Chip:
    """The chip of the first probe with the cores of the second as units that stand in for a matrix unit."""
    cluster, unit = narrow.clusters[0], stand_in_unit(wide)
    kernels = f"cores with {cluster.core.isa} kernels, {unit.isa} ones as stand-in for a matrix unit"
    return narrow.model_copy(
        update={
            "name": STAND_IN_CHIP,
            "description": f"stand-in: {wide.description}; {kernels}",
            "provenance_note": f"stand-in: {narrow.provenance_note}; then {wide.provenance_note}",
            "memory": wide.memory,
            "clusters": (cluster.model_copy(update={"matrix_units": (unit,)}),),
        }
    )


def stand_in_unit(chip: Chip) -> MatrixUnit:
    """A core of a probed chip as what stands in for a matrix unit."""
    cluster, core = chip.clusters[0], chip.clusters[0].core
    return MatrixUnit(
        name=UNIT,
        kind="stand-in",
        isa=core.isa,
        structure=cluster.structure,
        scope="core",
        tiles={dtype: _tile(core, dtype) for dtype in core.flop_per_s},
        clock_hz=core.clock_hz,
        flop_per_s=core.flop_per_s,
        load_bytes_per_s=core.load_bytes_per_s,
        store_bytes_per_s=core.load_bytes_per_s,
        mode_switch_s=_of_a_core(0.0, "s"),
        useful_drivers=_of_a_core(1.0, "threads"),
        multi_unit_factors=cluster.multi_core_factors,
        kernels=core.kernels,
    )


def _tile(core: CoreSpec, dtype: DTypeName) -> TileShape:
    """The micro-tile of the kernels: strips of its height suit them."""
    own = f"gemm_{dtype if dtype in LOW_PRECISION else 'f32'}"
    found = {kernel.name: kernel.parameters for kernel in core.kernels}
    sizes = {name: quantity.value for name, quantity in found.get(own, found.get("gemm_f32", {})).items()}
    return TileShape(rows=int(sizes.get("mr", DEFAULT_MR)), columns=int(sizes.get("nr", DEFAULT_NR)), depth=1)


def _of_a_core(value: float, unit: str) -> Quantity:
    return Quantity(value=value, unit=unit, provenance="data_sheet", source="a stand-in is a core with other kernels")
