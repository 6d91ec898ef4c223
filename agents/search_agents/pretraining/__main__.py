"""Entry of ``python -m search_agents.pretraining``."""

from search_agents.pretraining.train import main

if __name__ == "__main__":
    main()
