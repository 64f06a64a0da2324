"""Globs that match the dotted paths of modules."""

import fnmatch


def matches_glob(path: str, glob: str) -> bool:
    """Return whether a glob matches the whole path of a module, segment by segment.

    Args:
        path: Path as in ``named_modules``. The model itself has the path ``""``, which has no
            segment: ``**`` matches it, and ``*`` does not.
        glob: Pattern of segments. ``*`` matches one segment or a part of one, and a segment ``**``
            any number of segments.

    Example:
        >>> matches_glob("blocks.0.attn", "blocks.*.attn"), matches_glob("blocks.0", "blocks")
        (True, False)
        >>> matches_glob("blocks.0.attn", "**.attn"), matches_glob("", "**")
        (True, True)
    """
    segments, pattern = _segments(path), _segments(glob)
    # Tracks all lengths of the path that can be matched so far. Patterns with many `**`, which may
    # come from a file, then take no longer than patterns with few.
    reached = {0}
    for part in pattern:
        if part == "**":
            reached = set(range(min(reached, default=len(segments) + 1), len(segments) + 1))
        else:
            hits = (i for i in reached if i < len(segments))
            reached = {i + 1 for i in hits if fnmatch.fnmatchcase(segments[i], part)}
    return len(segments) in reached


def _segments(path: str) -> list[str]:
    return path.split(".") if path else []


__all__ = ["matches_glob"]
