"""Episodes as one HTML file to look through: what ``search-env view`` writes."""

from search_agents.evaluation.viewer.page import make_page
from search_agents.evaluation.viewer.payload import Outcome, Payload, make_payload

__all__ = ["Outcome", "Payload", "make_page", "make_payload"]
