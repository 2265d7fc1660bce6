"""Sweeps: many trainings of which few go to the end, each gone on with from its checkpoint.

All that a sweep knows stands in files of its folder, so that it can be killed anywhere and started again. The sweeper
of Hydra (hydra_plugins/halving) hands in how to compose and how to launch; nothing here knows of Hydra's launchers.
"""
