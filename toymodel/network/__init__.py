"""Small simulated networks: the data, two networks behind one interface, interventions, training and experiments.

Nothing here knows the toy model's theory; the two meet in figures/. The modules, in the order of reading:
`data` (sequences), `tap` (interventions), `disentangled` and `transformer` (networks), `evaluators`, `training`,
`experiments` (what is run), `runs` (running, caching), `paper` (the paper's own curves), `curves` (landmarks of both)
and `cli`.
"""
