"""Kill it, fuzz it, forge it: `make chaos` runs every experiment and writes docs/reference/chaos.md.

Every experiment runs twice. First as Clary is, and the promise must hold. Then with the guarantee taken away by
`sabotage/sitecustomize.py`, and the experiment must notice: one that cannot fail proves nothing. Seeds are printed
and may be given again (`CHAOS_SEED`).
"""
