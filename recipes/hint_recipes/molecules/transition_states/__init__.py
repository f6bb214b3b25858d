"""Transition states of reactions, the ReactBench way: path, saddle, reaction coordinate, intended or not."""

from hint_recipes.failures import REASONS, SearchFailure
from hint_recipes.molecules.transition_states.reaction import Reaction, check_reaction, group_reactions
from hint_recipes.molecules.transition_states.search import SearchResult, SearchSettings, search
from hint_recipes.molecules.transition_states.study import search_set, summarise

__all__ = [
    "REASONS",
    "Reaction",
    "SearchFailure",
    "SearchResult",
    "SearchSettings",
    "check_reaction",
    "group_reactions",
    "search",
    "search_set",
    "summarise",
]
