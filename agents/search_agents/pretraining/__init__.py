"""How the tiny base model of the embedded default is made: its tokenizer, its text, its training.

Run ``python -m search_agents.pretraining --help``. The result is shipped in
``search_agents/models/fictional-wiki``; users need this package only to make another one.
"""
