"""What computes: a chip, its presets, its shared links, its roofline, and the cost of a task.

`library.load("apple-m4")` gives a `Chip` (`chip`), whose every number is a `Quantity` (`quantity`). `links`
derives the network of shared bandwidths from it, `roofline` the attainable rates, `cost` what one task costs
on a core or a unit. Nothing here knows what is computed or how it is divided.
"""
