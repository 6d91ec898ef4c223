"""The pages of the encyclopaedia: one short passage for each entity, worded in several ways."""

from __future__ import annotations

import random
from collections.abc import Iterator

from search_env.datasets.fictional_wiki.names import pick
from search_env.datasets.fictional_wiki.world import EntityKind, Relation, World
from search_env.types import Document

__all__ = ["write_pages"]

_TRADES = ("painter", "composer", "botanist", "mason", "sculptor", "chemist", "singer", "historian", "weaver", "poet")
_PERSON = (
    "{name} was a {trade} born in {birthplace} in {birth_year}.",
    "{name}, born in {birth_year} in {birthplace}, was a {trade}.",
)
_PARENTS = (
    "{Their} father was {father} and {their} mother was {mother}.",
    "{They} was a child of the father {father} and the mother {mother}.",
)
_SPOUSE = ("{They} married {spouse}.", "{Their} spouse was {spouse}.")
_CITY = ("{name} is a city in the country {country}.", "{name} is a town of the country {country}.")
_COUNTRY = ("{name} is a country.", "{name} is a country with a long coast.")
_FILM = (
    "{name} is a {release_year} film by the director {director}, made by the studio {studio}.",
    "{name} is a film of {release_year}. The studio {studio} made it with the director {director}.",
)
_NOVEL = (
    "{name} is a {release_year} novel by the author {author}, issued by the publisher {publisher}.",
    "{name} is a novel of {release_year}. The publisher {publisher} issued it for the author {author}.",
)
_FIRM = (
    "{name} is a {kind}. Its founder is {founder} and its headquarters are in {headquarters}.",
    "{name} is a {kind} with headquarters in {headquarters}. Its founder was {founder}.",
)
_TEMPLATES = {
    EntityKind.CITY: _CITY,
    EntityKind.COUNTRY: _COUNTRY,
    EntityKind.FILM: _FILM,
    EntityKind.NOVEL: _NOVEL,
    EntityKind.STUDIO: _FIRM,
    EntityKind.PUBLISHER: _FIRM,
}


def write_pages(world: World, seed: int, prefix: str) -> Iterator[Document]:
    """Write one page for each entity of a world.

    Args:
        world: The facts.
        seed: Chooses the wording, never the facts.
        prefix: Start of every document id.

    Yields:
        Documents in the order in which the entities were made.
    """
    rng = random.Random(f"fictional-wiki-pages/{seed}")
    for number, (name, kind) in enumerate(world.kinds.items()):
        write = _person_page if kind is EntityKind.PERSON else _page
        yield Document(id=f"{prefix}{number:05d}", title=name, text=write(world, name, rng))


def _page(world: World, name: str, rng: random.Random) -> str:
    kind = world.kinds[name]
    return pick(rng, _TEMPLATES[kind]).format(name=name, kind=kind, **_facts(world, name))


def _person_page(world: World, name: str, rng: random.Random) -> str:
    facts = _facts(world, name)
    they, their = ("she", "her") if name in world.female else ("he", "his")
    words = {"they": they, "their": their, "They": they.capitalize(), "Their": their.capitalize()}
    sentences = [pick(rng, _PERSON)]
    if world.get(name, Relation.FATHER):
        sentences.append(pick(rng, _PARENTS))
    if world.get(name, Relation.SPOUSE):
        sentences.append(pick(rng, _SPOUSE))
    return " ".join(sentences).format(name=name, trade=pick(rng, _TRADES), **facts, **words)


def _facts(world: World, name: str) -> dict[str, str]:
    return {relation.name.lower(): value for relation, value in world.facts[name].items()}
