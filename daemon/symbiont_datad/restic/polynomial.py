"""The polynomial of a repository's config: restic's own chunker works with it, and it must be irreducible.

We cut files in another way (see `chunk`), but a repository without such a polynomial is refused by restic.
"""

import secrets

DEGREE = 53
"""restic works with polynomials of this degree over GF(2)."""

_PRIME_FACTORS = (53,)


def random_irreducible() -> int:
    """A random irreducible polynomial of degree 53, as the number whose bits are its coefficients."""
    while True:
        candidate = secrets.randbits(DEGREE) | 1 << DEGREE | 1
        if is_irreducible(candidate):
            return candidate


def is_irreducible(polynomial: int) -> bool:
    """Whether no polynomial but 1 and itself divides it: Rabin's test (Rabin 1980, "Probabilistic algorithms in finite
    fields"): x^(2^n) = x modulo f, and gcd(x^(2^(n/p)) - x, f) = 1 for every prime p that divides the degree n.
    """
    degree = polynomial.bit_length() - 1
    if degree != DEGREE:
        return False
    if any(_gcd(_frobenius(degree // prime, polynomial) ^ 2, polynomial) != 1 for prime in _PRIME_FACTORS):
        return False
    return _frobenius(degree, polynomial) == 2


def _frobenius(times: int, modulus: int) -> int:
    """x squared so many times, modulo a polynomial."""
    found = 2
    for _ in range(times):
        square = 0
        for bit in range(found.bit_length()):
            if found >> bit & 1:
                square |= 1 << 2 * bit
        found = _remainder(square, modulus)
    return found


def _remainder(dividend: int, divisor: int) -> int:
    length = divisor.bit_length()
    while (excess := dividend.bit_length() - length) >= 0:
        dividend ^= divisor << excess
    return dividend


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, _remainder(a, b)
    return a
