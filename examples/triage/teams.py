"""
Chooses the team and the priority for a message.

If a model does not answer, the pipeline still does: a message without a topic goes to the front desk, and a message
without an urgency counts as urgent.
"""

from typing import Any

from examples.triage.words import Label

TEAMS = {"billing": "accounts", "delivery": "logistics", "technical": "support"}


def combine(topic: Label | None, urgency: Label | None) -> dict[str, Any]:
    """Return the team and the priority for a message; None stands for a model that did not answer."""
    missing = [name for name, answer in (("topic", topic), ("urgency", urgency)) if answer is None]
    return {
        "team": TEAMS[topic.name] if topic else "front-desk",
        "priority": 1 if urgency is None or urgency.name == "high" else 2,
        "topic": topic,
        "urgency": urgency,
        **({"degraded": missing} if missing else {}),
    }
