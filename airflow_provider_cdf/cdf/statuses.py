"""What an HTTP status says about a request that failed."""


def is_ambiguous_status(code: int) -> bool:
    """Whether an answer with this HTTP status leaves open if the request was carried out."""
    return code == 408 or code >= 500


def is_transient_status(code: int) -> bool:
    """Whether the same request may get another answer than this HTTP status later."""
    return code == 429 or is_ambiguous_status(code)
