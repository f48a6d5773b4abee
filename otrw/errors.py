"""The exceptions that a command turns into one line: what the user can mend, and training that diverged."""


class UserError(ValueError):
    """Bad input. The message is one line: what, its value, the rule, the remedy. Scripts print it and exit with 2."""


class NonFiniteError(RuntimeError):
    """The loss or the weights are not finite any more; the last checkpoint is intact. Scripts print it and exit with 1."""


def check(condition: bool, key: str, value: object, rule: str, remedy: str = "") -> None:
    """Raise ``UserError("<key> must <rule>, got <value>; <remedy>")`` unless the condition holds."""
    if not condition:
        raise UserError(f"{key} must {rule}, got {value!r}" + (f"; {remedy}" if remedy else ""))
