"""Migration: what a Symbiont runtime left in the places of before the tree is found, planned, brought over, taken back.

`detect` finds it, `inventory` lists it, `plan` decides (pure), `apply` carries the plan out and writes it into a
`journal`, `undo` goes by that journal backwards. `compat` keeps the old place working meanwhile, by a link or, with
`mirror`, by bringing over what is still written there. `config` rewrites the settings that name old places.
"""
