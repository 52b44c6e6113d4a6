"""The dashboard: look at a plan, a timeline and an error, change the chip, and see.

It stands outside the package: it reads public API and files, and nothing imports it. What is shown is made by plain
functions (`tables`, `figures`, `gantt`, `what_if`, `opening`), which need no browser and no server; the pages in
`views` ask for what is wanted and lay out what those return. `smesim dashboard` starts it.
"""
