"""Our environments inside other trainers: one module a trainer, each a translation and nothing more.

========================  ==================================================================
`search_env.interop.trl`       TRL's `GRPOTrainer`, through `environment_factory`
`search_env.interop.verifiers` verifiers (v1) and prime-rl: a taskset with its environment
`search_env.interop.skyrl`     SkyRL-Gym: a `BaseTextEnv`, found by `skyrl_gym.make`
`search_env.interop.openenv`   OpenEnv: an environment and its server
========================  ==================================================================

Search-R1's own loop needs no module: ``search-env serve`` speaks its retrieval API, and the dialect ``search-r1``
its tags. Nothing here is imported before it is asked for, so each trainer is installed only by those who use it.

Question, prompt, budgets, inert documents, format rules and reward are the environment's own in all of them. Where
the search fails for good, the episode has no reward: each module says how its trainer is told.
"""
