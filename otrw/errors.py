"""The one exception that means "the user can mend this"."""


class UserError(ValueError):
    """Bad input. The message is one line: what, its value, the rule, the remedy. Scripts print it and exit with 2."""


def check(condition: bool, key: str, value: object, rule: str, remedy: str = "") -> None:
    """Raise ``UserError("<key> must <rule>, got <value>; <remedy>")`` unless the condition holds."""
    if not condition:
        raise UserError(f"{key} must {rule}, got {value!r}" + (f"; {remedy}" if remedy else ""))
