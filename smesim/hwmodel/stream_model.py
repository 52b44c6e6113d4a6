"""What loops through a matrix unit meet besides its ports; `hwmodel.streams` says how each number is used."""

from __future__ import annotations

from smesim.hwmodel.quantity import BytesPerS, Factor, Record, Seconds


class StreamModel(Record):
    """Share of the cache that a loop keeps, time of a restart, exposed share of a copy, the port's width for stores."""

    cache_share: Factor
    restart_s: Seconds
    copy_exposed: Factor
    multi_driver_store_bytes_per_s: BytesPerS
