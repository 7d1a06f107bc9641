"""The declaration that a function follows: that of its data, which must agree with the one it is given."""

from chassis.environment import Reader
from recsys.declaration.reader import DeclarationError, default_declaration, read_declaration
from recsys.declaration.types import Declaration

SETTING = "RECSYS_DECLARATION"


def read_setting(env: Reader) -> Declaration | None:
    """Read the declaration in the file that the setting names, and add its faults to *env*; None without a file."""
    path = env.path(SETTING)
    try:
        return read_declaration(path) if path else None
    except DeclarationError as error:
        env.faults.append(f"{SETTING}: {error}")
        return None


def agree(
    given: Declaration | None,
    held: Declaration | None,
    *,
    holder: str,
    giver: str = SETTING,
    features: bool = False,
) -> Declaration:
    """
    Return the declaration to follow: the one *given*, else the one *held* by the data.

    Data without a declaration follow the demo's.

    Args:
        given: The declaration of a setting or an option.
        held: The declaration in the data.
        holder: The data, for messages.
        giver: The setting or the option, for messages.
        features: Compare the features of the ranker too.

    Raises:
        DeclarationError: the two differ in a field that the data depend on; the message names the field.
    """
    own = held or default_declaration()
    if given is None:
        return own
    if difference := own.describe_difference(given, mine=holder, theirs=giver, features=features):
        raise DeclarationError(f"{difference}; train with this declaration, or correct {giver}")
    return given
