"""LZF decompression for compressed .pcd files."""


def decompress(packed: bytes, size: int) -> bytes:
    """Decompress LZF data: runs of literal bytes, and references to earlier bytes.

    A control byte below 32 is followed by that many plus one literal bytes. Otherwise its upper
    three bits are the length minus two. If they are seven, the next byte is added. The lower five
    bits and the next byte are the distance minus one.

    Args:
        packed: Compressed bytes.
        size: Length of the result.

    Raises:
        ValueError: If the bytes do not decompress to exactly ``size`` bytes.
    """
    out = bytearray()
    place, end = 0, len(packed)
    try:
        while place < end and len(out) <= size:
            control = packed[place]
            place += 1
            if control < 32:
                run = packed[place : place + control + 1]
                if len(run) != control + 1:
                    raise IndexError
                out += run
                place += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[place]
                place += 1
            length += 2
            start = len(out) - ((control & 31) << 8) - packed[place] - 1
            place += 1
            if start < 0:
                raise IndexError
            if start + length <= len(out):
                out += out[start : start + length]
            else:  # the reference overlaps its own output: repeat the tail
                tail = out[start:]
                out += (tail * (length // len(tail) + 1))[:length]
    except IndexError:
        raise ValueError(f"the compressed block breaks off at byte {place} of {end}") from None
    if len(out) != size:
        raise ValueError(f"expected {size} bytes from the compressed block (got {len(out)})")
    return bytes(out)


__all__ = ["decompress"]
