"""Check events about attributes of users."""

from collections.abc import Mapping

from chassis.wire.cloudevents import CloudEvent
from functions.extract_features.declared_values import read_values
from functions.extract_features.moments import event_time_us
from recsys.contracts import events
from recsys.declaration.types import Attribute
from recsys.features import AGE_GROUPS
from recsys.records import AGE_GROUP, UserUpdate

_AGE_GROUP = Attribute("categorical")


def read_update(event: CloudEvent, *, attributes: Mapping[str, Attribute]) -> UserUpdate:
    """
    Return the update that *event* reports; *attributes* are the declared attributes of users.

    The age group is a feature, so it needs no declaration.

    Raises:
        NotJsonError, InvalidRequestError: the data do not name a user and declared attributes with suitable values.
    """
    known = {AGE_GROUP: _AGE_GROUP, **attributes}

    def check(data: events.UserUpdatedData) -> UserUpdate:
        values = read_values(
            data.attributes,
            lambda name: known[name].kind if name in known else None,
            declared=known,
            allowed={AGE_GROUP: AGE_GROUPS},
        )
        return UserUpdate(data.user_id, event_time_us(event), values)

    return events.user_updated.read(event.data, check)
