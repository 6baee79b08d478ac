"""What tests do to the emulator from outside: faults, the journal, the clock. CDF has nothing of the kind."""


def is_control(path: str) -> bool:
    """
    Whether a path is one by which the emulator itself is operated or looked at.

    :param path: of a request
    """
    return path == "/" or path.startswith("/emulator")
